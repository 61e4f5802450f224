"""The bundle: all that a proof of one mission needs. Its file is written and read by `client.bundle_file`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from client.errors import ClientError
from client.mission_state import MissionState
from gonogo.digests import digest
from gonogo.v1 import audit_pb2, orchestrator_pb2, sealed_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedText:
    """A sealed document as a file holds it, with the digest that the file gives for it."""

    sealed: sealed_pb2.Sealed
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf of an audit log, its place, and the way from it to the root."""

    index: int
    text: str
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """Two checkpoints of one log and the proof that the newer one continues the older one."""

    older: str
    newer: str
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A mission's part of an audit log."""

    checkpoint: str
    leaves: tuple[Leaf, ...]
    continuity: tuple[Continuity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTexts:
    """What one segment of an execution stood on."""

    segment: int
    plan: SealedText
    report: SealedText | None = None
    approvals: tuple[SealedText, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything about one mission; what is not there is None.

    `plan`, `report` and `approvals` are those of the present plan. Of a mission that was repaired while it was carried
    out they are the last segment's, and `segments` has those before.
    """

    mission: MissionState
    plan: SealedText
    policy: SealedText | None = None
    report: SealedText | None = None
    approvals: tuple[SealedText, ...] = ()
    segments: tuple[SegmentTexts, ...] = ()
    words: tuple[SealedText, ...] = ()
    """Signed approvals and denials of single steps, and reconciliations."""
    receipt: SealedText | None = None
    refusal: SealedText | None = None
    orchestrator_log: LogPart | None = None
    executor_log: LogPart | None = None
    executor_key: str = ""
    """Whom the file claims to be signed by; proves nothing."""
    orchestrator_key: str = ""
    """Likewise."""
    has_logs: bool = field(default=True)
    """Whether this kind of file has a place for logs at all."""


def sealed_text(sealed: sealed_pb2.Sealed) -> SealedText | None:
    """Return a document as a bundle holds it, None where there is none."""
    return SealedText(sealed=sealed, digest=digest(sealed.body)) if sealed.body else None


def segment_texts(segments: Iterable[orchestrator_pb2.SegmentDocuments]) -> tuple[SegmentTexts, ...]:
    """Return the earlier segments as a bundle holds them.

    Raises:
        ClientError: one is without its plan.
    """
    found: list[SegmentTexts] = []
    for one in segments:
        plan = sealed_text(one.plan)
        if plan is None:
            message = f"segment {one.segment} was handed out without its plan"
            raise ClientError("MALFORMED", message, "ask the orchestrator's operator")
        approvals = tuple(text for sealed in one.approvals if (text := sealed_text(sealed)))
        found.append(SegmentTexts(segment=one.segment, plan=plan, report=sealed_text(one.report), approvals=approvals))
    return tuple(found)


def log_part(extract: audit_pb2.LogExtract, continuity: Sequence[Continuity] = ()) -> LogPart | None:
    """Return a part of a log as a bundle holds it, None where there is none.

    Raises:
        ClientError: a leaf is not text.
    """
    if not extract.checkpoint:
        return None
    try:
        leaves = tuple(
            Leaf(index=entry.index, text=entry.leaf.decode("utf-8"), path=tuple(entry.path))
            for entry in extract.entries
        )
    except UnicodeDecodeError as error:
        raise ClientError("MALFORMED", f"a leaf is not text: {error}", "ask the service's operator") from None
    ordered = tuple(sorted(leaves, key=lambda leaf: leaf.index))
    return LogPart(checkpoint=extract.checkpoint, leaves=ordered, continuity=tuple(continuity))
