"""The child that speaks to one server of tools, for one step.

First it connects, lists the tools and says what the one that is asked for looks like. Only when it is told to does it
call, and then once. What a server asks of its client (a model's answer, a person's, folders) is refused.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import anyio
import anyio.to_thread
import httpx2
from jsonschema import SchemaError, ValidationError  # type: ignore[import-untyped]  # it has no types of its own
from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # as above
from mcp import Client, ClientSession, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    METHOD_NOT_FOUND,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    RequestParamsMeta,
    Tool,
)
from pydantic import TypeAdapter
from referencing import Registry

from executor.outside.child import Answer, Conversation, converse, fault

MOST_PAGES: Final = 100
MOST_TOOLS: Final = 5000
MOST_TEXT: Final = 4 << 20
MOST_BODY: Final = 32 << 20
IDEMPOTENCY_KEY: Final = "gonogo/idempotency-key"

_CLIENT: Final = Implementation(name="gonogo", version="1")
_RESULT: Final = TypeAdapter[CallToolResult | InputRequiredResult](CallToolResult | InputRequiredResult)
_NOT_RUN: Final = frozenset({METHOD_NOT_FOUND})
"""What nobody answers who has begun. Of arguments that do not suit them, tools complain in the middle of their work."""


class _Refusal(Exception):  # noqa: N818 - it is how a fault leaves the depths of the connection
    def __init__(self, reason: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.answer = fault(reason, message, remedy)


class _PinnedTransport(httpx2.AsyncHTTPTransport):
    """Reaches one host at the addresses that were judged, and nothing else."""

    def __init__(self, url: httpx2.URL, addresses: list[str], ca_file: str) -> None:
        super().__init__(verify=httpx2.create_ssl_context(verify=ca_file or True, trust_env=False), trust_env=False)
        self._host = url.host
        self._port = url.port
        self._addresses = addresses

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if (request.url.host, request.url.port) != (self._host, self._port):
            raise httpx2.ConnectError("it leads to another host")
        if request.url.scheme == "https":
            request.extensions["sni_hostname"] = self._host
        for address in self._addresses[:-1]:
            try:
                return await self._at(request, address)
            except httpx2.ConnectError:
                continue
        return await self._at(request, self._addresses[-1])

    async def _at(self, request: httpx2.Request, address: str) -> httpx2.Response:
        pinned = httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers.raw,
            stream=request.stream,
            extensions=request.extensions,
        )
        response = await super().handle_async_request(pinned)
        response.headers.pop("location", None)  # a call that was redirected would be sent again, to wherever it says
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A body of bounded length."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_BODY
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError("the answer is too long")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _serve(conversation: Conversation) -> None:
    request = conversation.hear()
    if request is not None:
        anyio.run(_converse, conversation, request)


async def _converse(conversation: Conversation, request: dict[str, Any]) -> None:
    called = False
    try:
        async with _connected(request["server"]) as session:
            conversation.say(await _described(session, request))
            order = await anyio.to_thread.run_sync(conversation.hear)
            if order is not None:
                called = True
                conversation.say(await _called(session, request, order))
    except Exception as error:  # noqa: BLE001 - whatever a server does to the connection has one meaning
        refusal = _refusal_in(error)
        if not called:
            conversation.say(refusal or fault("FETCH_FAILED", f"it does not answer as it should: {_words(error)}", ""))


@asynccontextmanager
async def _connected(server: Mapping[str, Any]) -> AsyncIterator[ClientSession]:
    """Connect, by the newest protocol that both sides know."""
    if "command" in server:
        program, *arguments = server["command"]
        parameters = StdioServerParameters(command=program, args=arguments, env=server["env"], cwd="/")
        async with Client(parameters, client_info=_CLIENT) as client:
            yield client.session
        return
    url = httpx2.URL(server["url"])
    transport = _PinnedTransport(url, server["addresses"], server["ca_file"])
    timeout = httpx2.Timeout(server["seconds"])
    headers = server["headers"]
    http = httpx2.AsyncClient(transport=transport, timeout=timeout, headers=headers, trust_env=False)
    async with http, Client(streamable_http_client(server["url"], http_client=http), client_info=_CLIENT) as client:
        yield client.session


async def _described(session: ClientSession, request: Mapping[str, Any]) -> Answer:
    tool = await _find(session, request["tool"])
    _validate(tool.input_schema, request["arguments"])
    about = session.server_info
    server = "" if about is None else f"{about.name} {about.version}"
    return {"server_version": server, "tool": tool.model_dump(by_alias=True, mode="json", exclude_none=True)}


async def _find(session: ClientSession, name: str) -> Tool:
    """Look for the tool on every page: one that is listed twice is nobody's to choose."""
    found: list[Tool] = []
    count, cursor = 0, None
    for _ in range(MOST_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found += [tool for tool in page.tools if tool.name == name]
        count += len(page.tools)
        cursor = page.next_cursor
        if cursor is None or count > MOST_TOOLS:
            break
    if cursor is not None:
        raise _Refusal("TOO_LARGE", "its list of tools has no end", "ask whoever runs the server")
    if len(found) != 1:
        what = "does not have the tool" if not found else "has two tools of the name"
        raise _Refusal("PLAN_INVALID", f"it {what} {name!r}", "name one of its tools, as the server lists it")
    return found[0]


def _validate(schema: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    try:
        kind = validator_for(schema)
        kind.check_schema(schema)
        kind(schema, registry=Registry()).validate(arguments)
    except ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the arguments"
        raise _Refusal(
            "PLAN_INVALID", f"{place}: {error.message[:500]}", "correct the arguments; the tool's schema says how"
        ) from None
    except SchemaError as error:
        raise _Refusal("FETCH_FAILED", f"the tool's schema is none: {error.message[:500]}", "") from None
    except Exception as error:  # noqa: BLE001 - a reference that leads nowhere, a pattern that is none
        raise _Refusal("FETCH_FAILED", f"the tool's schema can not be used: {_words(error)}", "") from None


async def _called(session: ClientSession, request: Mapping[str, Any], order: Mapping[str, Any]) -> Answer:
    """Call the tool; the request goes out once, whatever comes back."""
    meta = cast("RequestParamsMeta", {IDEMPOTENCY_KEY: order["key"]})
    parameters = CallToolRequestParams(name=request["tool"], arguments=order["arguments"], _meta=meta)
    try:
        result = await session.send_request(CallToolRequest(params=parameters), _RESULT)
    except MCPError as error:
        return {"refused": _words(error)} if error.code in _NOT_RUN else {"unknown": _words(error)}
    except Exception as error:  # noqa: BLE001 - the request may have arrived
        return {"unknown": _words(error)}
    if isinstance(result, InputRequiredResult):
        return {"unknown": "the tool asks for input, which nobody can give it"}
    return _outcome(result)


def _outcome(result: CallToolResult) -> Answer:
    """Return what may be shown of an answer: its texts. All else is counted."""
    texts, left, others = [], MOST_TEXT, dict[str, int]()
    for block in result.content:
        if block.type == "text":
            texts.append(block.text[:left])
            left -= len(texts[-1])
        else:
            others[block.type] = others.get(block.type, 0) + 1
    structured = result.structured_content
    large = structured is not None and len(json.dumps(structured)) > MOST_TEXT
    return {
        "is_error": bool(result.is_error),
        "texts": texts,
        "others": others,
        "structured": None if large else structured,
        "cut": left <= 0 or large,
    }


def _refusal_in(error: BaseException) -> Answer | None:
    if isinstance(error, _Refusal):
        return error.answer
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_refusal_in, error.exceptions)), None)
    return None


def _words(error: BaseException) -> str:
    """Return what an error says, in few words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    converse(_serve)
