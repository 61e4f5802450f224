"""Steps that reach outside of the workspace, from the contract into the domain."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from executor.adapters.wire_enums import LIVE_ACCESSES
from executor.adapters.wire_texts import invalid, number_from_text
from executor.domain.plan import (
    CallTool,
    Compensation,
    FetchUrl,
    HttpHeader,
    HttpRequest,
    Live,
    Outside,
    ReadinessCheck,
    RunLive,
    RunSql,
    SearchBodies,
)
from gonogo.v1 import plan_pb2

# The defaults that the contract documents.
SEARCH_LIMIT, READY_SECONDS, NO_ARGUMENTS = 20, 10, "{}"


def compensation_from_proto(message: plan_pb2.Compensation, step_id: str) -> Compensation:
    """Map what makes up for a step's effect; raises RequestMalformedError where it says no action."""
    kind = message.WhichOneof("action")
    if kind is None:
        raise invalid(f"the compensation of step {step_id[:80]!r} has no action", "name a live kind of the contract")
    return Compensation(description=message.description, action=LIVE[kind](getattr(message, kind)))


def _fetch_url(message: plan_pb2.FetchUrl) -> FetchUrl:
    return FetchUrl(
        url=message.url,
        head=message.head,
        extract_text=message.extract_text,
        max_bytes=number_from_text(message.max_bytes, "max_bytes") if message.max_bytes else None,
    )


def _search_bodies(message: plan_pb2.SearchBodies) -> SearchBodies:
    return SearchBodies(query=message.query, limit=message.limit or SEARCH_LIMIT)


def _http_request(message: plan_pb2.HttpRequest) -> HttpRequest:
    return HttpRequest(
        method=message.method,
        url=message.url,
        headers=tuple(HttpHeader(name=header.name, value=header.value) for header in message.headers),
        content=_content(message),
        success_codes=tuple(message.success_codes),
        idempotency_header=message.idempotency_header,
    )


def _content(message: plan_pb2.HttpRequest) -> bytes | None:
    match message.WhichOneof("body"):
        case "content":
            return message.content.encode()
        case "data":
            return message.data
        case None:
            return None


def _run_live(message: plan_pb2.RunLive) -> RunLive:
    return RunLive(
        argv=tuple(message.argv),
        cwd=message.cwd,
        env=dict(message.env),
        success_codes=tuple(message.success_codes) or (0,),
        access=LIVE_ACCESSES.from_wire(message.access),
        keep_running=_readiness(message.keep_running) if message.HasField("keep_running") else None,
    )


def _readiness(message: plan_pb2.ReadinessCheck) -> ReadinessCheck:
    return ReadinessCheck(port=message.port, output=message.output, seconds=message.seconds or READY_SECONDS)


def _call_tool(message: plan_pb2.CallTool) -> CallTool:
    return CallTool(server=message.server, tool=message.tool, arguments=message.arguments or NO_ARGUMENTS)


def _run_sql(message: plan_pb2.RunSql) -> RunSql:
    return RunSql(database=message.database, statement=message.statement, parameters=tuple(message.parameters))


LIVE: Final[Mapping[str, Callable[[Any], Live]]] = {
    "http_request": _http_request,
    "run_live": _run_live,
    "call_tool": _call_tool,
    "run_sql": _run_sql,
}
OUTSIDE: Final[Mapping[str, Callable[[Any], Outside | SearchBodies]]] = {
    "fetch_url": _fetch_url,
    "search_bodies": _search_bodies,
    **LIVE,
}
