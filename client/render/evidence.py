"""What a dry run saw of each step, as the person who decides must see it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from client.json_form import short_name
from client.render.layout import byte_count, indented
from client.render.plans import bounded_text
from gonogo.safe_text import safe_line
from gonogo.v1 import evidence_pb2

EXCERPT_LINES = 8
SHOWN_CASES = 20
SHOWN_ROWS = 20


def evidence_text(step: evidence_pb2.StepReport) -> str:
    """Return what was seen of one step; empty where there is nothing to show."""
    kind = step.WhichOneof("evidence")
    return "" if kind is None else SHOWN[kind](getattr(step, kind))


def case_lines(cases: Iterable[evidence_pb2.TestCase]) -> list[str]:
    """Return the cases that did not pass, each with what the runner said of it."""
    open_ones = [case for case in cases if case.status != evidence_pb2.TEST_CASE_STATUS_PASSED]
    lines: list[str] = []
    for case in open_ones[:SHOWN_CASES]:
        lines.append(safe_line(f"{short_name(case, 'status')}  {case.name}"))
        lines += [indented(bounded_text(case.message.rstrip("\n")), "    ")] if case.message else []
    left = len(open_ones) - SHOWN_CASES
    return [*lines, f"… {left} more"] if left > 0 else lines


def _read(found: evidence_pb2.ReadEvidence) -> str:
    return f"read {safe_line(found.node.size) if found.HasField('node') else '0'} bytes"


def _listing(found: evidence_pb2.ListEvidence) -> str:
    return f"{found.count} entries"


def _search(found: evidence_pb2.SearchEvidence) -> str:
    lines = [f"{found.count} matching lines"]
    lines += [_match(match) for match in found.matches[:EXCERPT_LINES]]
    left = found.count - len(found.matches[:EXCERPT_LINES])
    lines += [f"… {left} more"] if found.matches and left > 0 else []
    return "\n".join(lines)


def _command(run: evidence_pb2.CommandEvidence) -> str:
    if run.timed_out:
        end = "ended by the time limit"
    elif run.HasField("exit_code"):
        end = f"exit code {run.exit_code}"
    else:
        end = f"ended by signal {run.signal}"
    return "\n".join([end, *excerpt_lines("stdout", run.stdout), *excerpt_lines("stderr", run.stderr)])


def _tests(run: evidence_pb2.TestEvidence) -> str:
    counts = f"{run.tests} tests, {run.failures} failures, {run.errors} errors, {run.skipped} skipped"
    verdict = f"verdict {short_name(run, 'verdict') or 'none'}: {counts}"
    return "\n".join([verdict, *case_lines(run.cases), _command(run.command)])


def _match(match: evidence_pb2.SearchMatch) -> str:
    """Return where something was found; a kept page has no lines, and its text is shown as one."""
    if match.line:
        return safe_line(f"{match.path}:{match.line}: {match.text}")
    return safe_line(f"{match.path}: {' '.join(match.text.split())}")


def excerpt_lines(name: str, text: evidence_pb2.Excerpt) -> list[str]:
    """Return the end of a text below its name, as far as it is shown; nothing where there is none."""
    shown = (text.tail if text.truncated and text.tail else text.head).rstrip("\n")
    if not shown:
        return []
    lines = shown.split("\n")
    title = f"{name}: the last {EXCERPT_LINES} lines" if len(lines) > EXCERPT_LINES else f"{name}:"
    if text.truncated:
        title = f"{name}: the end of {safe_line(text.total_bytes)} bytes"
    return [title, indented(bounded_text("\n".join(lines[-EXCERPT_LINES:])))]


def _fetch(page: evidence_pb2.FetchEvidence) -> str:
    if not page.fetched:
        return safe_line(f"{page.url}: not read by the dry run; it is read once, after approval")
    size = byte_count(int(page.size)) if page.size.isdecimal() else "no body"
    lines = [safe_line(f"{page.url}: status {page.status_code}, {page.content_type or 'no type'}, {size}")]
    lines += [safe_line(f"sent on to {address}") for address in page.redirects]
    lines += [safe_line(f"body {page.digest}")] if page.digest else []
    lines += [safe_line(f"text {page.text_digest}")] if page.text_digest else []
    return "\n".join([*lines, *(excerpt_lines("page", page.preview) if page.HasField("preview") else [])])


def _live(found: evidence_pb2.LiveEvidence) -> str:
    lines = [safe_line(found.target)]
    lines += [safe_line(f"not simulated: {found.not_simulated}")] if found.not_simulated else []
    return "\n".join([*lines, safe_line(f"all that is sent or run: {found.digest}")])


def _tool(found: evidence_pb2.ToolEvidence) -> str:
    says = found.server_version.strip() or "nothing"
    lines = [safe_line(f"tool {found.tool} of {found.server}, which says it is {says}")]
    lines += ["the server says that it only reads"] if found.says_read_only else []
    lines += [safe_line(f"described as {found.tool_digest}"), safe_line(f"arguments {found.arguments_digest}")]
    return "\n".join([*lines, *excerpt_lines("the server's description of it", found.description)])


def _sql(found: evidence_pb2.SqlEvidence) -> str:
    place = f"{found.statement_kind or 'statement'} on {found.database} ({found.engine})"
    lines = [safe_line(f"{place}, table {found.table}" if found.table else place)]
    if not found.simulated:
        return "\n".join([*lines, safe_line(f"not simulated: {found.not_simulated}")])
    verb = "finds" if found.statement_kind == "select" else "changes"
    lines += [f"{verb} {found.row_count} rows  {safe_line(found.rows_digest)}".rstrip()]
    for row in found.rows[:SHOWN_ROWS]:
        lines += [f"- {bounded_text(row.before)}"] if row.before else []
        lines += [f"+ {bounded_text(row.after)}"] if row.after else []
    left = found.row_count - len(found.rows[:SHOWN_ROWS])
    return "\n".join([*lines, *([f"… {left} more rows"] if left > 0 else [])])


SHOWN: Mapping[str, Callable[[Any], str]] = {
    "read": _read,
    "listing": _listing,
    "search": _search,
    "command": _command,
    "tests": _tests,
    "fetch": _fetch,
    "live": _live,
    "tool": _tool,
    "sql": _sql,
}
"""Every kind of evidence that the contract knows."""
