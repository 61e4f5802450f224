"""The documents of a bundle, each opened by itself: one that can not be read does not keep the others from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from client.bundle import Bundle, SealedText
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
class Opened:
    """What could be read; digests are computed here, not taken over."""

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
    checks: tuple[Check, ...]
    """How reading went."""


def open_all(bundle: Bundle) -> Opened:
    """Open every document of a bundle."""
    checks: list[Check] = [*_digests(bundle)]
    approvals = [
        OpenApproval(document=document, digest=digest(document.sealed.body), approval=opened)
        for number, document in enumerate(bundle.approvals, 1)
        if (opened := _read(checks, f"approval {number}", document, sealing.APPROVAL, evidence_pb2.Approval))
    ]
    return Opened(
        plan=_read(checks, "plan", bundle.plan, sealing.PLAN, plan_pb2.Plan),
        plan_digest=_digest(bundle.plan),
        report=_read(checks, "report", bundle.report, sealing.REPORT, evidence_pb2.Report),
        report_digest=_digest(bundle.report),
        approvals=tuple(approvals),
        receipt=_read(checks, "receipt", bundle.receipt, sealing.RECEIPT, evidence_pb2.Receipt),
        receipt_digest=_digest(bundle.receipt),
        refusal=_read(checks, "refusal", bundle.refusal, sealing.REFUSAL, evidence_pb2.Refusal),
        refusal_digest=_digest(bundle.refusal),
        policy=_policy(checks, bundle.policy),
        policy_digest=_digest(bundle.policy),
        checks=tuple(checks),
    )


def named_documents(bundle: Bundle) -> Sequence[tuple[str, SealedText]]:
    """Return the documents that are there, with what checks call them."""
    alone = (
        ("plan", bundle.plan),
        ("policy", bundle.policy),
        ("report", bundle.report),
        ("receipt", bundle.receipt),
        ("refusal", bundle.refusal),
    )
    found = [(name, document) for name, document in alone if document is not None]
    return [*found, *((f"approval {number}", document) for number, document in enumerate(bundle.approvals, 1))]


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


def _policy(checks: list[Check], document: SealedText | None) -> Policy | None:
    if _read(checks, "policy", document, sealing.POLICY, policy_pb2.Policy) is None or document is None:
        return None
    try:
        return open_policy(document.sealed.body)
    except ValueError as error:
        checks.append(check("policy is read strictly", False, str(error)))
        return None
