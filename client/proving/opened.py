"""The documents of a bundle, each opened by itself: one that can not be read does not keep the others from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from client.bundle import Bundle, SealedText, SegmentTexts
from client.bundle_file import MAX_APPROVALS, MAX_SEGMENTS
from client.proving.checks import Check, check
from gonogo import sealing
from gonogo.digests import digest
from gonogo.policy import Policy
from gonogo.policy_document import open_policy
from gonogo.v1 import evidence_pb2, plan_pb2, policy_pb2

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """An approval and the document that it was read from."""

    document: SealedText
    digest: str
    approval: evidence_pb2.Approval

    @property
    def name(self) -> str:
        """What checks call it."""
        return f"approval {self.approval.approval_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWord:
    """A step's own approval, or a word on an effect, and the document that it was read from."""

    document: SealedText
    digest: str
    word: evidence_pb2.StepApproval | evidence_pb2.Reconciliation

    @property
    def word_id(self) -> str:
        """Its id."""
        word = self.word
        return word.approval_id if isinstance(word, evidence_pb2.StepApproval) else word.reconciliation_id

    @property
    def person(self) -> str:
        """In whose name it is."""
        return self.word.approver if isinstance(self.word, evidence_pb2.StepApproval) else self.word.person

    @property
    def name(self) -> str:
        """What checks call it."""
        kind = "step approval" if isinstance(self.word, evidence_pb2.StepApproval) else "reconciliation"
        return f"{kind} {self.word_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What could be read; digests are computed here, not taken over."""

    number: int
    """The segment of the execution that plan, report and approvals are of."""
    plan: plan_pb2.Plan | None
    plan_digest: str
    report: evidence_pb2.Report | None
    report_digest: str
    approvals: tuple[OpenApproval, ...]
    receipt: evidence_pb2.Receipt | None
    receipt_digest: str
    refusal: evidence_pb2.Refusal | None
    refusal_digest: str
    policy: Policy | None
    policy_digest: str
    earlier: tuple["Opened", ...]
    """The segments before, each with the same receipt, refusal and policy."""
    words: tuple[OpenWord, ...]
    checks: tuple[Check, ...]
    """How reading went."""

    @property
    def every(self) -> tuple["Opened", ...]:
        """All segments, the first first."""
        return (*self.earlier, self)

    @property
    def label(self) -> str:
        """What the names of checks about this segment begin with."""
        return label_of(self.number)


def open_all(bundle: Bundle) -> Opened:
    """Open every document of a bundle; the segment that is returned is the present plan's."""
    checks: list[Check] = [*_digests(bundle)]
    present = _segment(checks, bundle)
    earlier = tuple(
        replace(
            present,
            number=one.segment,
            **_opened_of(checks, label_of(one.segment), one.plan, one.report, one.approvals),
        )
        for one in bundle.segments
    )
    words = tuple(_words(checks, bundle.words))
    return replace(present, earlier=earlier, words=words, checks=tuple(checks))


def label_of(number: int) -> str:
    """Return what is put before the names of a segment's documents; the first segment is the mission's own."""
    return f"segment {number} " if number else ""


def _segment(checks: list[Check], bundle: Bundle) -> Opened:
    number = bundle.mission.segment if bundle.segments else 0
    return Opened(
        number=number,
        **_opened_of(checks, label_of(number), bundle.plan, bundle.report, bundle.approvals),
        receipt=_receipt(checks, bundle.receipt),
        receipt_digest=_digest(bundle.receipt),
        refusal=_read(checks, "refusal", bundle.refusal, sealing.REFUSAL, evidence_pb2.Refusal),
        refusal_digest=_digest(bundle.refusal),
        policy=_policy(checks, bundle.policy),
        policy_digest=_digest(bundle.policy),
        earlier=(),
        words=(),
        checks=(),
    )


def _opened_of(
    checks: list[Check], label: str, plan: SealedText, report: SealedText | None, approvals: Sequence[SealedText]
) -> dict[str, Any]:
    """Open what one segment stands on."""
    opened = [
        OpenApproval(document=document, digest=digest(document.sealed.body), approval=read)
        for number, document in enumerate(approvals, 1)
        if (read := _read(checks, f"{label}approval {number}", document, sealing.APPROVAL, evidence_pb2.Approval))
    ]
    return {
        "plan": _read(checks, f"{label}plan", plan, sealing.PLAN, plan_pb2.Plan),
        "plan_digest": _digest(plan),
        "report": _read(checks, f"{label}report", report, sealing.REPORT, evidence_pb2.Report),
        "report_digest": _digest(report),
        "approvals": tuple(opened),
    }


def _words(checks: list[Check], documents: Sequence[SealedText]) -> Iterator[OpenWord]:
    kinds: Mapping[str, type[evidence_pb2.StepApproval | evidence_pb2.Reconciliation]] = {
        sealing.STEP_APPROVAL: evidence_pb2.StepApproval,
        sealing.RECONCILIATION: evidence_pb2.Reconciliation,
    }
    for number, document in enumerate(documents, 1):
        name, media_type = f"word {number}", document.sealed.media_type
        kind = kinds.get(media_type)
        if kind is None:
            checks.append(check(f"{name} is read strictly", False, f"its media type is {media_type!r}"))
            continue
        word = _read(checks, name, document, media_type, kind)
        if word is not None:
            yield OpenWord(document=document, digest=digest(document.sealed.body), word=word)


def named_documents(bundle: Bundle) -> Sequence[tuple[str, SealedText]]:
    """Return the documents that are there, with what checks call them."""
    own = label_of(bundle.mission.segment if bundle.segments else 0)
    alone = (
        (f"{own}plan", bundle.plan),
        ("policy", bundle.policy),
        (f"{own}report", bundle.report),
        ("receipt", bundle.receipt),
        ("refusal", bundle.refusal),
        *((f"{own}approval {number}", document) for number, document in enumerate(bundle.approvals, 1)),
        *(named for one in bundle.segments for named in _named_of(one)),
        *((f"word {number}", document) for number, document in enumerate(bundle.words, 1)),
    )
    return [(name, document) for name, document in alone if document is not None]


def _named_of(one: SegmentTexts) -> Iterator[tuple[str, SealedText | None]]:
    label = label_of(one.segment)
    yield from ((f"{label}plan", one.plan), (f"{label}report", one.report))
    yield from ((f"{label}approval {number}", document) for number, document in enumerate(one.approvals, 1))


def _digests(bundle: Bundle) -> Iterator[Check]:
    """Compare the digests that the file gives with those of the bytes."""
    for name, document in named_documents(bundle):
        actual = digest(document.sealed.body)
        shown = actual if actual == document.digest else f"the file says {document.digest}, the bytes are {actual}"
        yield check(f"{name} digest", actual == document.digest, shown)


def _digest(document: SealedText | None) -> str:
    return digest(document.sealed.body) if document else ""


def _read(
    checks: list[Check], name: str, document: SealedText | None, media_type: str, message_type: type[M]
) -> M | None:
    if document is None:
        return None
    title = f"{name} is read strictly"
    if document.sealed.media_type != media_type:
        checks.append(check(title, False, f"its media type is {document.sealed.media_type!r}"))
        return None
    try:
        return sealing.open_sealed(document.sealed.body, message_type)
    except sealing.SealingError as error:
        checks.append(check(title, False, str(error)))
        return None


def _receipt(checks: list[Check], document: SealedText | None) -> evidence_pb2.Receipt | None:
    """Read the receipt; one that tells of more than an execution can have would be compared without an end."""
    receipt = _read(checks, "receipt", document, sealing.RECEIPT, evidence_pb2.Receipt)
    if receipt is None:
        return None
    approvals = max(len(receipt.approvals), *(len(one.approvals) for one in receipt.segments), 0)
    if approvals <= MAX_APPROVALS and len(receipt.segments) <= MAX_SEGMENTS:
        return receipt
    shown = f"{len(receipt.segments)} segments, {approvals} approvals of one"
    checks.append(check("receipt is of an execution that there can be", False, shown))
    return None


def _policy(checks: list[Check], document: SealedText | None) -> Policy | None:
    if _read(checks, "policy", document, sealing.POLICY, policy_pb2.Policy) is None or document is None:
        return None
    try:
        return open_policy(document.sealed.body)
    except ValueError as error:
        checks.append(check("policy is read strictly", False, str(error)))
        return None
