"""A dry run's report on its way to the person who asked for it."""

from client.changes import net_changes
from client.documents import digest_of, dry_run_json
from client.errors import ResultError
from client.exit_codes import ExitCode, for_report
from client.json_form import short_name
from client.output import Output
from client.render.reports import report_text, summary
from client.verification import check_media_type, check_signature, open_document, require_about
from gonogo import sealing
from gonogo.signatures import PublicKey
from gonogo.v1 import evidence_pb2, sealed_pb2

UNPROPOSED = frozenset(
    {
        "read_file",
        "list_directory",
        "search_files",
        "fetch_url",
        "search_bodies",
        "http_request",
        "run_live",
        "call_tool",
        "run_sql",
    }
)
"""Kinds of steps without which the rules that propose repairs have no plan."""


def open_report(sealed: sealed_pb2.Sealed, executor_key: PublicKey, mission_id: str) -> evidence_pb2.Report:
    """Read a mission's report, which carries the pinned executor's signature.

    Raises:
        EvidenceError: it does not, is not a report, or is another mission's.
    """
    check_media_type(sealed, sealing.REPORT)
    check_signature(sealed, executor_key, what="report")
    report = open_document(sealed, evidence_pb2.Report, what="report")
    require_about(mission_id, report.mission_id, what="report")
    return report


def show_report(output: Output, sealed: sealed_pb2.Sealed, executor_key: PublicKey, mission_id: str) -> None:
    """Show a mission's report.

    Raises:
        EvidenceError: it is none of this mission by this executor.
        ResultError: after showing it, where it is not a success.
    """
    report = open_report(sealed, executor_key, mission_id)
    digest = digest_of(sealed)
    output.emit(dry_run_json(report, digest), lambda: report_text(report, digest))
    error = report_error(report)
    if error is not None:
        raise error
    if not output.machine:
        changed = summary(net_changes(step.changes for step in report.steps))
        mission = report.mission_id
        output.note(f"{changed}; gonogo diff {mission} shows it, gonogo approve {mission} signs it")


def report_error(report: evidence_pb2.Report) -> ResultError | None:
    """Return the error that a dry run's status is, None for a success."""
    status = short_name(report, "status")
    code = for_report(status)
    if code is ExitCode.DONE:
        return None
    first = report.problems[0] if report.problems else evidence_pb2.Problem()
    message = f"the dry run is {status}: {first.message}" if first.message else f"the dry run is {status}"
    remedy = first.remedy or "change the plan and propose it again"
    if status == "failed":
        remedy += f"; gonogo repair {report.mission_id} {_repaired_by(report, first.step_id)}"
    return ResultError(f"SIMULATION_{status.upper()}", message, remedy, exit_code=code)


def _repaired_by(report: evidence_pb2.Report, step_id: str) -> str:
    """Say what a repair comes to: of what reaches outside nobody but a person can tell what else to do."""
    kind = next((step.kind for step in report.steps if step.step_id == step_id), "")
    if kind in UNPROPOSED:
        return "-f FILE gives it another plan"
    return "proposes a plan without what failed"
