"""What a dry run saw of the world outside of the workspace, between the contract and the domain."""

from executor.adapters.wire_excerpts import excerpt_from_proto, excerpt_to_proto
from executor.adapters.wire_texts import number_from_text
from executor.domain.report import FetchEvidence, LiveEvidence, SqlEvidence, SqlRow, ToolEvidence
from gonogo.v1 import evidence_pb2


def fetch_to_proto(evidence: FetchEvidence) -> evidence_pb2.FetchEvidence:
    """Map what a fetch found; what was not fetched has no size."""
    return evidence_pb2.FetchEvidence(
        url=evidence.url,
        fetched=evidence.fetched,
        status_code=evidence.status_code,
        content_type=evidence.content_type,
        digest=evidence.digest,
        size=str(evidence.size) if evidence.fetched else "",
        text_digest=evidence.text_digest,
        preview=None if evidence.preview is None else excerpt_to_proto(evidence.preview),
        redirects=evidence.redirects,
    )


def fetch_from_proto(message: evidence_pb2.FetchEvidence) -> FetchEvidence:
    """Map what a fetch found."""
    return FetchEvidence(
        url=message.url,
        fetched=message.fetched,
        status_code=message.status_code,
        content_type=message.content_type,
        digest=message.digest,
        size=number_from_text(message.size, "size") if message.size else 0,
        text_digest=message.text_digest,
        preview=excerpt_from_proto(message.preview) if message.HasField("preview") else None,
        redirects=tuple(message.redirects),
    )


def live_to_proto(evidence: LiveEvidence) -> evidence_pb2.LiveEvidence:
    """Map what a request or a program will do."""
    return evidence_pb2.LiveEvidence(
        target=evidence.target, digest=evidence.digest, not_simulated=evidence.not_simulated
    )


def live_from_proto(message: evidence_pb2.LiveEvidence) -> LiveEvidence:
    """Map what a request or a program will do."""
    return LiveEvidence(target=message.target, digest=message.digest, not_simulated=message.not_simulated)


def tool_to_proto(evidence: ToolEvidence) -> evidence_pb2.ToolEvidence:
    """Map a tool as its server describes it."""
    return evidence_pb2.ToolEvidence(
        server=evidence.server,
        tool=evidence.tool,
        description=excerpt_to_proto(evidence.description),
        tool_digest=evidence.tool_digest,
        arguments_digest=evidence.arguments_digest,
        says_read_only=evidence.says_read_only,
        server_version=evidence.server_version,
    )


def tool_from_proto(message: evidence_pb2.ToolEvidence) -> ToolEvidence:
    """Map a tool as its server describes it."""
    return ToolEvidence(
        server=message.server,
        tool=message.tool,
        description=excerpt_from_proto(message.description),
        tool_digest=message.tool_digest,
        arguments_digest=message.arguments_digest,
        says_read_only=message.says_read_only,
        server_version=message.server_version,
    )


def sql_to_proto(evidence: SqlEvidence) -> evidence_pb2.SqlEvidence:
    """Map what a statement would do."""
    return evidence_pb2.SqlEvidence(
        database=evidence.database,
        engine=evidence.engine,
        statement_kind=evidence.statement_kind,
        simulated=evidence.simulated,
        not_simulated=evidence.not_simulated,
        table=evidence.table,
        row_count=evidence.row_count,
        rows_digest=evidence.rows_digest,
        rows=[evidence_pb2.SqlRow(before=row.before, after=row.after) for row in evidence.rows],
    )


def sql_from_proto(message: evidence_pb2.SqlEvidence) -> SqlEvidence:
    """Map what a statement would do."""
    return SqlEvidence(
        database=message.database,
        engine=message.engine,
        statement_kind=message.statement_kind,
        simulated=message.simulated,
        not_simulated=message.not_simulated,
        table=message.table,
        row_count=message.row_count,
        rows_digest=message.rows_digest,
        rows=tuple(SqlRow(before=row.before, after=row.after) for row in message.rows),
    )
