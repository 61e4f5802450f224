"""What the receipt says that the seven gates saw, compared with the documents."""

import re
from collections.abc import Iterator, Mapping

from client.bundle import Bundle
from client.json_form import short_name
from client.proving.checks import Check, check, labelled
from client.proving.opened import Opened
from client.proving.segments import segments
from gonogo.v1 import evidence_pb2

NAMES = (
    *("report_exists", "simulation_succeeded", "approved", "plan_matches"),
    *("mission_matches", "no_drift", "once"),
)
"""The gates in their order; the first has the number 1."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def gate_checks(bundle: Bundle, opened: Opened) -> Iterator[Check]:
    """Check the gates of a receipt, segment by segment: all of them held, and what they saw is what is here."""
    for one in segments(bundle, opened):
        yield from labelled(one.label, _segment_checks(one.opened))


def _segment_checks(opened: Opened) -> Iterator[Check]:
    receipt, report = opened.receipt, opened.report
    if receipt is None or report is None:
        return
    named = tuple((record.gate, record.name) for record in receipt.gates)
    shown = ", ".join(record.name for record in receipt.gates)
    yield check("receipt names the seven gates", named == tuple(enumerate(NAMES, 1)), shown)
    known = _known_digests(opened, receipt)
    wanted = _wanted(receipt, report)
    for record in receipt.gates:
        strange = [found for found in DIGEST.findall(record.detail) if found not in known]
        strange += [text for text in wanted.get(record.name, ()) if text not in record.detail]
        detail = f"{strange[0]!r} is where it should not be, or not where it should" if strange else record.detail
        yield check(f"gate {record.gate} {record.name} saw these documents", not strange, detail)


def _wanted(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> Mapping[str, tuple[str, ...]]:
    """Return what each gate must have seen."""
    return {
        "report_exists": (report.report_id, receipt.report_digest, report.ledger_epoch),
        "simulation_succeeded": (short_name(report, "status"),),
        "approved": (
            receipt.policy_digest,
            *(text for record in receipt.approvals for text in (record.approver, record.key_id, record.scheme)),
        ),
        "plan_matches": (receipt.plan_id, receipt.plan_digest),
        "mission_matches": (receipt.mission_id, receipt.intent_id, receipt.workspace_id, receipt.executor_id),
        "no_drift": (report.base_fingerprint,),
        "once": (receipt.mission_id, receipt.execution_id),
    }


def _known_digests(opened: Opened, receipt: evidence_pb2.Receipt) -> set[str]:
    found = {opened.plan_digest, opened.report_digest, receipt.policy_digest, receipt.base_fingerprint}
    found |= {one.digest for one in opened.approvals}
    if opened.report is not None:
        found |= {opened.report.base_fingerprint, opened.report.after_fingerprint, opened.report.manifest_digest}
    return found
