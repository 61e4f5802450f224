"""The executor's leaves about a mission, compared with the documents that they name by digest.

A leaf is written in the transaction of what it records, so that it can not be left out later; but nothing in a bundle
shows that a leaf of the mission was not left out of the bundle. What has to be there is therefore asked for: the leaf
of the report, of the claim, of the end and of the refusal, wherever the document is there; one claim for each segment,
and one end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.bundle import Bundle, Leaf, LogPart, SealedText
from client.json_form import short_name
from client.proving.checks import Check, absent, bounded, check
from client.proving.controlled import (
    CONTROL,
    CONTROL_FIELDS,
    CONTROL_NUMBERS,
    EFFECT_CLAIMED,
    EFFECT_SETTLED,
    controlled_checks,
)
from client.proving.events import LeafError
from client.proving.opened import Opened
from client.proving.recorded import Told
from client.proving.segments import Segment, segments
from client.proving.worded import carried_checks
from client.strict_json import strict_json
from gonogo.digests import framed_digest

KNOWN = "executor leaves are the mission's"
COMMON = ("type", "mission_id", "at_us")
REPORT_ISSUED = "report_issued"
CLAIMED = "claimed"
EVENTS_RECORDED = "events_recorded"
EXECUTION_ENDED = "execution_ended"
REFUSED = "refused"
REVOKED = "revoked"
DENY = "deny"

FIELDS: Mapping[str, frozenset[str]] = {
    kind: frozenset((*COMMON, *names))
    for kind, names in {
        REPORT_ISSUED: ("report_digest", "report_id", "plan_digest", "epoch", "status", "signature"),
        CLAIMED: (
            *("execution_id", "segment", "plan_digest", "report_digest", "approvals", "claim_digest"),
            *("request_id", "request_digest"),
        ),
        EVENTS_RECORDED: ("execution_id", "last_sequence", "events_digest"),
        EXECUTION_ENDED: (
            *("execution_id", "outcome", "receipt_digest", "signature", "last_sequence", "events_digest"),
        ),
        REFUSED: ("refusal_id", "gate", "reason", "refusal_digest", "signature", "event_digest"),
        REVOKED: ("revocation_id", "person", "kind", "reason", "media_type", "document_digest", "signature"),
        **CONTROL_FIELDS,
    }.items()
}
"""What each kind of leaf says."""


NUMBERS = frozenset({"at_us", "segment", "last_sequence", "gate"}) | CONTROL_NUMBERS
"""What of it is a number; the approvals are a list, and all else is text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A leaf of the executor's log, read."""

    index: int
    kind: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mission:
    """What the leaves are compared with."""

    bundle: Bundle
    opened: Opened
    told: Told
    """What the orchestrator's log tells."""
    by_number: Mapping[int, Segment]
    """The segments, by their numbers: there may be as many leaves as a file holds, and each looks for its own."""
    by_report: Mapping[str, Segment]
    """The segments, by their reports' digests."""


def leaf_checks(bundle: Bundle, opened: Opened, told: Told | None) -> Iterator[Check]:
    """Check what the executor's leaves say."""
    if bundle.executor_log is None:
        if bundle.has_logs and bundle.receipt is not None:
            yield check("receipt's leaf", False, "the bundle has the receipt and not the executor's log")
        return
    try:
        entries = [read_entry(leaf) for leaf in bundle.executor_log.leaves]
    except LeafError as error:
        yield check(KNOWN, False, str(error))
        return
    strange = [entry for entry in entries if entry.value["mission_id"] != bundle.mission.mission_id]
    shown = f"leaf {strange[0].index} is of {strange[0].value['mission_id']!r}" if strange else f"{len(entries)} leaves"
    yield check(KNOWN, not strange, shown)
    mission = _mission(bundle, opened, told or Told())
    for entry in entries:
        yield from _COMPARED[entry.kind](mission, entry)
    yield from _needed(mission, entries)
    values = [entry.value for entry in entries]
    if opened.receipt is not None:
        yield from controlled_checks(opened.receipt, values)
    yield from carried_checks(opened.words, values, opened.receipt)
    yield _taken_back(opened, entries)
    yield _in_order(entries)


def _mission(bundle: Bundle, opened: Opened, told: Told) -> _Mission:
    found = segments(bundle, opened)[::-1]  # of two that say they are the same the first counts
    return _Mission(
        bundle=bundle,
        opened=opened,
        told=told,
        by_number={one.number: one for one in found},
        by_report={one.opened.report_digest: one for one in found},
    )


def read_entry(leaf: Leaf) -> Entry:
    """Read a leaf of the executor's log.

    Raises:
        LeafError: it is none, or of a kind that this release does not know.
    """
    try:
        value = strict_json(leaf.text.encode())
    except ValueError as error:
        raise LeafError(f"leaf {leaf.index} is not JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise LeafError(f"leaf {leaf.index} is no entry of an executor's log")
    kind = value["type"]
    if kind not in FIELDS:
        raise LeafError(f"leaf {leaf.index} is of an unknown kind {bounded(repr(kind))}")
    if value.keys() != FIELDS[kind] or not all(_is_typed(name, one) for name, one in value.items()):
        raise LeafError(f"leaf {leaf.index}, {kind}, says other things than such a leaf says")
    return Entry(index=leaf.index, kind=kind, value=value)


def _is_typed(name: str, value: object) -> bool:
    if name in NUMBERS:
        return type(value) is int
    if name == "approvals":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def receipt_leaf(log: LogPart, receipt_digest: str) -> Leaf | None:
    """Return the leaf that records a receipt, None where there is none."""
    for leaf in log.leaves:
        try:
            entry = read_entry(leaf)
        except LeafError:
            continue
        if entry.kind == EXECUTION_ENDED and entry.value["receipt_digest"] == receipt_digest:
            return leaf
    return None


def _report(mission: _Mission, entry: Entry) -> Iterator[Check]:
    title, named = _title(entry), entry.value["report_digest"]
    found = mission.by_report.get(named)
    document = found.bundle.report if found else None
    report = found.opened.report if found else None
    if found is None or document is None or report is None:
        told = named in mission.told.reports
        yield check(title, True, "an earlier dry run" if told else "a dry run that the orchestrator does not tell of")
        return
    yield _agree(
        title,
        entry,
        report_id=report.report_id,
        plan_digest=found.opened.plan_digest,
        epoch=report.ledger_epoch,
        status=short_name(report, "status"),
        signature=_signed_by(document),
        at_us=report.completed_at.ToMicroseconds(),
    )


def _claim(mission: _Mission, entry: Entry) -> Iterator[Check]:
    receipt, title = mission.opened.receipt, _title(entry)
    if receipt is None:
        if mission.bundle.receipt is None:
            yield absent(title, "the receipt")
        return
    number = entry.value["segment"]
    segment = mission.by_number.get(number)
    found = segment.opened if segment else None
    if found is None or found.receipt is None:
        yield check(title, False, f"the receipt, or the bundle, has no segment {number}")
        return
    yield _agree(
        title,
        entry,
        execution_id=receipt.execution_id,
        plan_digest=found.plan_digest,
        report_digest=found.report_digest,
        approvals=[record.approval_digest for record in found.receipt.approvals],
        at_us=found.receipt.started_at.ToMicroseconds(),
    )


def _events(mission: _Mission, entry: Entry) -> Iterator[Check]:
    if mission.opened.receipt is not None:
        yield _agree(_title(entry), entry, execution_id=mission.opened.receipt.execution_id)


def _end(mission: _Mission, entry: Entry) -> Iterator[Check]:
    receipt, document = mission.opened.receipt, mission.bundle.receipt
    if receipt is None or document is None:
        yield check(_title(entry), document is not None, "the mission has ended and its receipt is left out")
        return
    yield _agree(
        _title(entry),
        entry,
        execution_id=receipt.execution_id,
        outcome=short_name(receipt, "execution_status"),
        receipt_digest=mission.opened.receipt_digest,
        signature=_signed_by(document),
        at_us=receipt.completed_at.ToMicroseconds(),
    )


def _refusal(mission: _Mission, entry: Entry) -> Iterator[Check]:
    refusal, document = mission.opened.refusal, mission.bundle.refusal
    if refusal is None or document is None or entry.value["refusal_id"] != refusal.refusal_id:
        told = entry.value["refusal_id"] in mission.told.refusals
        shown = "an earlier refusal" if told else "a refusal that the orchestrator does not tell of"
        yield check(_title(entry), True, f"{shown}: {entry.value['reason']}")
        return
    yield _agree(
        _title(entry),
        entry,
        gate=refusal.gate,
        reason=refusal.abort_reason,
        refusal_digest=mission.opened.refusal_digest,
        signature=_signed_by(document),
        at_us=refusal.refused_at.ToMicroseconds(),
    )


def _revocation(_mission: _Mission, entry: Entry) -> Iterator[Check]:
    """The document itself is the executor's; what it means for a claim is looked at in `_taken_back`."""
    yield check(_title(entry), True, f"{entry.value['person']}: {entry.value['kind']}")


def _together(_mission: _Mission, _entry: Entry) -> Iterator[Check]:
    """Compare nothing: what people had an execution do is compared as a whole."""
    yield from ()


_COMPARED: Mapping[str, Callable[[_Mission, Entry], Iterator[Check]]] = {
    REPORT_ISSUED: _report,
    CLAIMED: _claim,
    EVENTS_RECORDED: _events,
    EXECUTION_ENDED: _end,
    REFUSED: _refusal,
    REVOKED: _revocation,
    CONTROL: _together,
    EFFECT_CLAIMED: _together,
    EFFECT_SETTLED: _together,
}


def _needed(mission: _Mission, entries: Sequence[Entry]) -> Iterator[Check]:
    """Ask for the leaf of each document, and for those that the orchestrator tells of."""
    opened, tells = mission.opened, mission.told
    reports = [entry.value["report_digest"] for entry in entries if entry.kind == REPORT_ISSUED]
    refusals = [entry.value["refusal_id"] for entry in entries if entry.kind == REFUSED]
    if opened.report is not None:
        yield check("report's leaf", reports.count(opened.report_digest) == 1, opened.report_digest)
    if opened.refusal is not None:
        yield check("refusal's leaf", refusals.count(opened.refusal.refusal_id) == 1, opened.refusal.refusal_id)
    lost = [*(tells.reports - set(reports)), *(tells.refusals - set(refusals))]
    yield check("executor tells of every dry run and refusal", not lost, ", ".join(sorted(lost)))
    claims = [(entry.value["execution_id"], entry.value["segment"]) for entry in entries if entry.kind == CLAIMED]
    ends = [entry.value["receipt_digest"] for entry in entries if entry.kind == EXECUTION_ENDED]
    if opened.receipt is not None:
        segments = [0, *(one.segment for one in opened.receipt.segments)]
        once = claims == [(opened.receipt.execution_id, segment) for segment in range(len(segments))]
        once = once and segments == list(range(len(segments)))
        yield check("claimed once", once, f"{len(claims)} claims")
        yield check("receipt's leaf", ends == [opened.receipt_digest], opened.receipt_digest)
    elif claims:
        yield absent("receipt", "the mission was claimed and its receipt is not here")
    yield from _stopped(opened, entries)


def _taken_back(opened: Opened, entries: Sequence[Entry]) -> Check:
    """Nothing was claimed after a denial, or on the approval of somebody who had withdrawn it."""
    claimed: dict[int, int] = {}
    """By segment, the place of its last claim."""
    for entry in entries:
        if entry.kind == CLAIMED:
            claimed[entry.value["segment"]] = max(entry.index, claimed.get(entry.value["segment"], entry.index))
    denied_before = max(claimed.values(), default=-1)
    withdrawn_before = _last_claims(opened, claimed)
    ignored = next(
        (
            f"{entry.value['person']}: {entry.value['kind']}"
            for entry in entries
            if entry.kind == REVOKED
            if entry.index < withdrawn_before.get(entry.value["person"], -1)
            or (entry.value["kind"] == DENY and entry.index < denied_before)
        ),
        None,
    )
    return check("nothing was claimed that was taken back", ignored is None, ignored or "")


def _last_claims(opened: Opened, claimed: Mapping[int, int]) -> Mapping[str, int]:
    """Return, by person, the place of the last claim that stood on that person's approval."""
    receipt = opened.receipt
    if receipt is None:
        return {}
    told = {one.segment: one.approvals for one in reversed(receipt.segments)}
    first = max((place for segment, place in claimed.items() if segment not in told), default=-1)
    places = [(first, receipt.approvals), *((claimed.get(segment, -1), told[segment]) for segment in told)]
    found: dict[str, int] = {}
    for place, records in places:
        for record in records:
            found[record.approver] = max(place, found.get(record.approver, place))
    return found


def _stopped(opened: Opened, entries: Sequence[Entry]) -> Iterator[Check]:
    """An execution that says it was stopped by a revocation has one in the log, before its end."""
    if opened.receipt is not None and opened.receipt.abort_reason == "APPROVAL_REVOKED":
        kinds = [entry.kind for entry in entries]
        end = kinds.index(EXECUTION_ENDED) if EXECUTION_ENDED in kinds else len(kinds)
        yield check("what stopped it is in the log", REVOKED in kinds[:end], opened.receipt.abort_reason)


def _in_order(entries: Sequence[Entry]) -> Check:
    """A mission is claimed, then carried out, then ended; and time does not run backwards meanwhile.

    What people do while it is carried out comes from other threads: its order is the log's, and not to the microsecond
    that of its times.
    """
    between = (EVENTS_RECORDED, CONTROL, EFFECT_CLAIMED, EFFECT_SETTLED)
    ranks = {CLAIMED: 1, **dict.fromkeys(between, 2), EXECUTION_ENDED: 3}
    carried_out = [entry for entry in entries if entry.kind in ranks]
    steps = [2 if entry.value.get("segment", 0) else ranks[entry.kind] for entry in carried_out]
    own = (CLAIMED, EVENTS_RECORDED, EXECUTION_ENDED)
    times = [entry.value["at_us"] for entry in carried_out if entry.kind in own and not entry.value.get("segment", 0)]
    fine = steps == sorted(steps) and times == sorted(times)
    return check("executor leaves follow each other", fine, " → ".join(dict.fromkeys(entry.kind for entry in entries)))


def _title(entry: Entry) -> str:
    return f"executor leaf {entry.index} {entry.kind}"


def _agree(title: str, entry: Entry, **expected: object) -> Check:
    different = [name for name, value in expected.items() if entry.value[name] != value]
    if not different:
        return check(title, True, "says what the documents say")
    name = different[0]
    return check(title, False, f"{name} is {entry.value[name]!r}, the documents say {expected[name]!r}")


def _signed_by(document: SealedText) -> str:
    """Return how a leaf names a document's signature."""
    if len(document.sealed.signatures) != 1:
        return ""
    [signature] = document.sealed.signatures
    return framed_digest((signature.key_id.encode(), signature.signature))
