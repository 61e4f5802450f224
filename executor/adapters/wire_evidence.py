"""What a dry run saw of each step, between the contract and the domain."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from executor.adapters.wire_changes import node_from_proto, node_to_proto, path_from_proto, snapshot_to_proto
from executor.adapters.wire_enums import VERDICTS
from executor.adapters.wire_excerpts import (
    cases_from_proto,
    cases_to_proto,
    excerpt_from_proto,
    excerpt_to_proto,
)
from executor.adapters.wire_outside import (
    fetch_from_proto,
    fetch_to_proto,
    live_from_proto,
    live_to_proto,
    sql_from_proto,
    sql_to_proto,
    tool_from_proto,
    tool_to_proto,
)
from executor.domain.report import (
    CommandEvidence,
    Evidence,
    FetchEvidence,
    ListEvidence,
    LiveEvidence,
    ReadEvidence,
    SearchEvidence,
    SearchMatch,
    SqlEvidence,
    TestEvidence,
    ToolEvidence,
)
from gonogo.v1 import evidence_pb2


def set_evidence(message: evidence_pb2.StepReport, evidence: Evidence) -> None:
    """Write what a step saw into its report."""
    match evidence:
        case ReadEvidence():
            message.read.CopyFrom(_read_to_proto(evidence))
        case ListEvidence():
            message.listing.CopyFrom(_listing_to_proto(evidence))
        case SearchEvidence():
            message.search.CopyFrom(_search_to_proto(evidence))
        case CommandEvidence():
            message.command.CopyFrom(_command_to_proto(evidence))
        case TestEvidence():
            message.tests.CopyFrom(_tests_to_proto(evidence))
        case FetchEvidence():
            message.fetch.CopyFrom(fetch_to_proto(evidence))
        case LiveEvidence():
            message.live.CopyFrom(live_to_proto(evidence))
        case ToolEvidence():
            message.tool.CopyFrom(tool_to_proto(evidence))
        case SqlEvidence():
            message.sql.CopyFrom(sql_to_proto(evidence))


def evidence_from_proto(message: evidence_pb2.StepReport) -> Evidence | None:
    """Return what a step saw; None where it has nothing to show."""
    kind = message.WhichOneof("evidence")
    return None if kind is None else READERS[kind](getattr(message, kind))


def _read_to_proto(evidence: ReadEvidence) -> evidence_pb2.ReadEvidence:
    return evidence_pb2.ReadEvidence(node=node_to_proto(evidence.node), preview=excerpt_to_proto(evidence.preview))


def _read_from_proto(message: evidence_pb2.ReadEvidence) -> ReadEvidence:
    return ReadEvidence(node=node_from_proto(message.node), preview=excerpt_from_proto(message.preview))


def _listing_to_proto(evidence: ListEvidence) -> evidence_pb2.ListEvidence:
    return evidence_pb2.ListEvidence(
        entries=[snapshot_to_proto(path, node) for path, node in evidence.entries],
        count=evidence.count,
        digest=evidence.digest,
    )


def _listing_from_proto(message: evidence_pb2.ListEvidence) -> ListEvidence:
    return ListEvidence(
        entries=tuple(
            (path_from_proto(entry.path, entry.raw_path), node_from_proto(entry.node)) for entry in message.entries
        ),
        count=message.count,
        digest=message.digest,
    )


def _search_to_proto(evidence: SearchEvidence) -> evidence_pb2.SearchEvidence:
    return evidence_pb2.SearchEvidence(
        count=evidence.count,
        matches=[
            evidence_pb2.SearchMatch(path=match.path, line=match.line, text=match.text) for match in evidence.matches
        ],
        digest=evidence.digest,
    )


def _search_from_proto(message: evidence_pb2.SearchEvidence) -> SearchEvidence:
    return SearchEvidence(
        count=message.count,
        matches=tuple(SearchMatch(path=match.path, line=match.line, text=match.text) for match in message.matches),
        digest=message.digest,
    )


def _command_to_proto(evidence: CommandEvidence) -> evidence_pb2.CommandEvidence:
    return evidence_pb2.CommandEvidence(
        exit_code=evidence.exit_code,
        signal=evidence.signal,
        timed_out=evidence.timed_out,
        stdout=excerpt_to_proto(evidence.stdout),
        stderr=excerpt_to_proto(evidence.stderr),
    )


def _command_from_proto(message: evidence_pb2.CommandEvidence) -> CommandEvidence:
    return CommandEvidence(
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal,
        timed_out=message.timed_out,
        stdout=excerpt_from_proto(message.stdout),
        stderr=excerpt_from_proto(message.stderr),
    )


def _tests_to_proto(evidence: TestEvidence) -> evidence_pb2.TestEvidence:
    return evidence_pb2.TestEvidence(
        verdict=VERDICTS.to_wire(evidence.verdict),
        command=_command_to_proto(evidence.command),
        tests=evidence.tests,
        failures=evidence.failures,
        errors=evidence.errors,
        skipped=evidence.skipped,
        cases=cases_to_proto(evidence.cases),
    )


def _tests_from_proto(message: evidence_pb2.TestEvidence) -> TestEvidence:
    return TestEvidence(
        verdict=VERDICTS.from_wire(message.verdict),
        command=_command_from_proto(message.command),
        tests=message.tests,
        failures=message.failures,
        errors=message.errors,
        skipped=message.skipped,
        cases=cases_from_proto(message.cases),
    )


READERS: Final[Mapping[str, Callable[[Any], Evidence]]] = {
    "read": _read_from_proto,
    "listing": _listing_from_proto,
    "search": _search_from_proto,
    "command": _command_from_proto,
    "tests": _tests_from_proto,
    "fetch": fetch_from_proto,
    "live": live_from_proto,
    "tool": tool_from_proto,
    "sql": sql_from_proto,
}
