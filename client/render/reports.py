"""A report as the person who decides must see it: the summary first, then what each step did."""

from collections import Counter
from collections.abc import Sequence

from client.changes import NetChange, besides, metadata_kind, net_changes, size_of, target_text
from client.json_form import short_name
from client.render.evidence import evidence_text
from client.render.layout import byte_count, fields, indented, table
from gonogo.policy import Requirement, shown
from gonogo.safe_text import safe_line
from gonogo.v1 import evidence_pb2

VERBS = {
    "create": "created",
    "modify": "modified",
    "delete": "deleted",
    "move": "moved",
    "type_change": "replaced by another type",
    "permissions": "with other permissions",
    "attributes": "with other attributes",
    "modification time": "with another modification time",
}
MARKS = {"create": "+", "modify": "~", "delete": "-", "move": ">", "type_change": "!", "metadata": "m"}


def proposer_text(proposer: evidence_pb2.Proposer) -> str:
    """Return who proposed, as far as the executor found it proven; empty in a document that does not say."""
    if proposer.kind == evidence_pb2.PROPOSER_KIND_UNKNOWN:
        return "unknown: the plan has no signature of anybody whom the executor knows"
    if proposer.kind == evidence_pb2.PROPOSER_KIND_AGENT:
        return f"{proposer.person}, an agent of {proposer.sponsor}, who signed the plan"
    return f"{proposer.person}, who signed the plan" if proposer.person else ""


def report_text(report: evidence_pb2.Report, digest: str) -> str:
    """Return a report."""
    net = net_changes(step.changes for step in report.steps)
    head = fields(
        [
            ("report", f"{report.report_id}  {digest}"),
            ("status", short_name(report, "status")),
            ("risk", short_name(report.risk, "level")),
            ("summary", summary(net)),
            ("isolation", short_name(report, "ladder_level").upper()),
            ("proposer", proposer_text(report.proposer)),
            ("approvals", _asked_for(report.demand)),
            ("self-approval", short_name(report, "self_approval")),
            ("base", report.base_fingerprint),
            ("after", report.after_fingerprint),
        ]
    )
    parts = [head]
    if report.risk.facts:
        parts.append("risk\n" + indented(_facts(report.risk)))
    if report.problems:
        parts.append("problems\n" + indented(problems_text(report.problems)))
    if report.notices:
        parts.append("notices\n" + indented(notices_text(report.notices)))
    parts.append("steps\n" + indented("\n".join(step_report_text(step) for step in report.steps)))
    if net:
        parts.append("changes\n" + indented(changes_text(net)))
    return "\n\n".join(parts)


def _asked_for(demand: evidence_pb2.Demand) -> str:
    """Return what the policy asks of the approvals."""
    if demand.refused:
        return f"refused, whoever approves: {demand.refused}"
    parts = [shown(Requirement(count=one.count, group=one.group)) for one in demand.requirements]
    parts += ["with hardware keys"] if demand.hardware_key else []
    parts += [f"by rules {', '.join(demand.rules)}"] if demand.rules else []
    parts += [f"again for {', '.join(demand.approve_steps)} alone"] if demand.approve_steps else []
    return "; ".join(parts)


def summary(net: Sequence[NetChange]) -> str:
    """Return how many paths change in which way, in one line."""
    if not net:
        return "nothing changes"
    counts = Counter(metadata_kind(change) if change.kind == "metadata" else change.kind for change in net)
    return ", ".join(f"{counts[kind]} {verb}" for kind, verb in VERBS.items() if counts[kind])


def changes_text(net: Sequence[NetChange]) -> str:
    """Return net changes as a table; no path is left out."""
    rows = [_change_row(change) for change in net]
    if any(row[-1] for row in rows):
        return table(("", "path", "mode", "size", "besides"), rows)
    return table(("", "path", "mode", "size"), [row[:-1] for row in rows])


def notices_text(notices: Sequence[evidence_pb2.Notice]) -> str:
    """Return what a report says besides."""
    return table(("notice", "path", "what"), [(notice.kind, notice.path, notice.message) for notice in notices])


def problems_text(problems: Sequence[evidence_pb2.Problem]) -> str:
    """Return what keeps a report from being a success."""
    lines: list[str] = []
    for problem in problems:
        place = " ".join(part for part in (problem.step_id, problem.path) if part)
        lines.append(safe_line(f"{place}: {problem.message} [{problem.reason}]" if place else problem.message))
        if problem.remedy:
            lines.append(f"  → {safe_line(problem.remedy)}")
    return "\n".join(lines)


def _change_row(change: NetChange) -> tuple[str, str, str, str, str]:
    path = change.shown_path
    if change.moved_from:
        path = f"{change.as_json()['moved_from']} → {path}"
    node = change.new or change.old
    if node is not None and node.type == evidence_pb2.NODE_TYPE_DIRECTORY:
        path += "/"
    if node is not None and node.type == evidence_pb2.NODE_TYPE_SYMLINK:
        path += f" → {target_text(node)}"
    modes = [node.mode for node in (change.old, change.new) if node is not None]
    sizes = [byte_count(size_of(node)) for node in (change.old, change.new) if size_of(node) is not None]
    aside = ["modification time"] if change.kind == "metadata" and metadata_kind(change) == "modification time" else []
    return (
        MARKS[change.kind],
        path,
        " → ".join(dict.fromkeys(modes)),
        " → ".join(dict.fromkeys(sizes)),
        ", ".join([*aside, *besides(change)]),
    )


def _facts(risk: evidence_pb2.Risk) -> str:
    rows = [(short_name(fact, "level"), fact.kind, fact.path, fact.detail) for fact in risk.facts]
    return table(("level", "fact", "path", "detail"), rows)


def step_report_text(step: evidence_pb2.StepReport) -> str:
    """Return what the dry run of one step found."""
    verdict = "ok" if step.success else "FAILED"
    marks = [
        *(["not simulated"] if step.not_simulated else []),
        *(["IRREVERSIBLE"] if step.irreversible else []),
        *(["needs a signature of its own"] if step.needs_approval else []),
    ]
    title = f"{safe_line(step.step_id)}  {safe_line(step.kind)}  {verdict}  {step.duration_ms} ms"
    lines = [f"{title}  {', '.join(marks)}" if marks else title]
    changed = net_changes([step.changes])
    parts = [f"changes: {summary(changed)}"] if changed else []
    parts += [text for text in (evidence_text(step), _compensation(step)) if text]
    return "\n".join([*lines, *(indented(part, "    ") for part in parts)])


def _compensation(step: evidence_pb2.StepReport) -> str:
    if not step.HasField("compensation"):
        return "nothing takes its effect back" if step.irreversible else ""
    said = step.compensation
    what = f"compensation: {said.kind} {said.target}" + (f" ({said.description})" if said.description else "")
    return safe_line(f"{what}; not simulated: {said.not_simulated}" if said.not_simulated else what)
