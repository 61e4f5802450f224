"""What steps must be that reach outside of the workspace, before anything of a plan runs.

What a far side makes of them is not known here. These rules see to it that a step means one thing only: one address,
one header of a name, one JSON value. They look at the plan alone; what the trust file allows is judged when the step
is dry-run.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from executor.domain.errors import RequestMalformedError
from executor.domain.hosts import HostError, allows, canonical_host, canonical_pattern
from executor.domain.plan import (
    CallTool,
    FetchUrl,
    HttpRequest,
    LiveAccess,
    NetworkAccess,
    Outside,
    Plan,
    ReadinessCheck,
    RunLive,
    RunSql,
    Scope,
    SearchBodies,
)
from gonogo.secret_shapes import REFERENCE

MOST_URL: Final = 8192
MOST_DOMAINS: Final = 1000
MOST_HEADERS: Final = 100
MOST_HEADER_VALUE: Final = 8192
MOST_QUERY: Final = 4096
MOST_MATCHES: Final = 100
MOST_ARGUMENTS: Final = 4096
MOST_STATEMENT_BYTES: Final = 64 * 1024
MOST_PARAMETERS: Final = 1000
MOST_READY_SECONDS: Final = 300
MOST_READY_TEXT: Final = 1000
MOST_DEPTH: Final = 100
MOST_PORT: Final = 65535
MOST_EXIT_CODE: Final = 255
STATUS_CODES: Final = range(100, 600)
OWN_HEADERS: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""What belongs to the connection, and is the executor's own business."""
OWN_METHODS: Final = frozenset({"GET", "HEAD", "CONNECT", "TRACE"})
"""Reading is `fetch_url`; the other two are about the way, not about what is at its end."""

_TARGET: Final = r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_URL: Final = re.compile(
    rf"https?://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@%\s\\/?#]+))(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    rf"(?:[/?]{_TARGET})?",
    re.IGNORECASE | re.ASCII,
)
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_NAME: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_SCHEME: Final = re.compile(rf"\A[A-Za-z][A-Za-z0-9-]{{0,31}} (?={REFERENCE})")


def check_network(plan: Plan) -> None:
    """Refuse a scope that names what it does not open, and more pages than it allows.

    Raises:
        RequestMalformedError: PLAN_INVALID, or NETWORK_REFUSED for what is no name of a host.
    """
    scope = plan.scope
    listed = scope.network is NetworkAccess.LISTED_DOMAINS
    if listed != bool(scope.domains):
        raise _invalid(
            "the plan's scope lists domains without a network, or opens one without listing any",
            "set network to listed_domains together with domains, or leave both out",
        )
    if len(scope.domains) > MOST_DOMAINS:
        raise _invalid(f"the plan's scope lists {len(scope.domains)} domains", f"list at most {MOST_DOMAINS}")
    for domain in scope.domains:
        _host(canonical_pattern, domain, "the plan's scope")
    pages = sum(isinstance(step.action, FetchUrl) for step in plan.steps)
    if pages > scope.max_pages:
        raise _invalid(
            f"the plan reads {pages} pages; its scope's max_pages is {scope.max_pages}",
            "raise max_pages, or read fewer pages",
        )


def check_outside(where: str, action: Outside | SearchBodies, scope: Scope) -> None:
    """Refuse a step, or a compensation, that could be understood in two ways or leaves the scope.

    Raises:
        RequestMalformedError: PLAN_INVALID, NETWORK_REFUSED, UNSUPPORTED for a secret where none is given.
    """
    _CHECKS[type(action)](where, action, scope)


def _fetch(where: str, action: FetchUrl, scope: Scope) -> None:
    _check_url(where, action.url, scope)
    if action.max_bytes == 0:
        raise _invalid(f"{where}: max_bytes is 0", "leave it out, or ask for one byte or more")


def _search(where: str, action: SearchBodies, _scope: Scope) -> None:
    if not action.query.strip() or len(action.query) > MOST_QUERY or "\0" in action.query:
        raise _invalid(f"{where}: the query is empty or too long", f"use 1 to {MOST_QUERY} characters")
    if not 1 <= action.limit <= MOST_MATCHES:
        raise _invalid(f"{where}: the limit is out of range", f"ask for 1 to {MOST_MATCHES} matches")


def _request(where: str, action: HttpRequest, scope: Scope) -> None:
    if not _METHOD.fullmatch(action.method) or action.method in OWN_METHODS:
        raise _invalid(
            f"{where}: {action.method[:40]!r} is no method of a request with effects",
            "use POST, PUT, PATCH, DELETE or another one in capitals; reading is fetch_url",
        )
    _check_url(where, action.url, scope)
    _check_headers(where, action)
    if any(code not in STATUS_CODES for code in action.success_codes):
        raise _invalid(f"{where}: a success code is no status code", "status codes go from 100 to 599")
    if action.content is not None and REFERENCE.encode() in action.content:
        raise _secret(where, "the body", "headers, variables and arguments of tools")


def _check_url(where: str, url: str, scope: Scope) -> None:
    found = _URL.fullmatch(url) if len(url) <= MOST_URL else None
    if found is None or int(found["port"] or 0) > MOST_PORT:
        raise _invalid(
            f"{where}: {url[:120]!a} is no address that means one thing only",
            "write http:// or https://, a host and a path of plain or percent-encoded characters, without a user, a"
            " password or a fragment",
        )
    if REFERENCE in url:
        raise _secret(where, "an address", "headers, variables and arguments of tools")
    host = _host(canonical_host, found["v6"] or found["name"], where)
    if scope.network is not NetworkAccess.LISTED_DOMAINS or not allows(scope.domains, host):
        raise RequestMalformedError(
            "NETWORK_REFUSED",
            f"{where}: the plan's scope does not name {host}",
            "set scope.network to listed_domains and add the host to scope.domains, or change the step",
        )


def _check_headers(where: str, action: HttpRequest) -> None:
    if len(action.headers) > MOST_HEADERS:
        raise _invalid(f"{where}: it has {len(action.headers)} headers", f"send at most {MOST_HEADERS}")
    seen: set[str] = set()
    keys = [action.idempotency_header] if action.idempotency_header else []
    for name in (*(header.name for header in action.headers), *keys):
        if not _HEADER.fullmatch(name) or name.lower() in OWN_HEADERS:
            raise _invalid(f"{where}: {name[:80]!a} is no header that a step may set", "leave it out")
        if name.lower() in seen:
            raise _invalid(f"{where}: two headers are called {name}", "send each header once")
        seen.add(name.lower())
    for header in action.headers:
        if len(header.value) > MOST_HEADER_VALUE or not _HEADER_VALUE.fullmatch(header.value):
            raise _invalid(
                f"{where}: the value of header {header.name} is too long or no plain line",
                "write it in ASCII on one line, without blanks at its ends",
            )
        _check_reference(f"{where}: header {header.name}", _without_scheme(header.value))


def _program(where: str, action: RunLive, scope: Scope) -> None:
    if not (action.argv and action.argv[0]) or len(action.argv) > MOST_ARGUMENTS:
        raise _invalid(f"{where} names no program", "put the program first in argv")
    if any("\0" in text for text in (*action.argv, *action.env.values(), action.cwd)):
        raise _invalid(f"{where}: a NUL in an argument or variable", "leave NUL characters out")
    if any(REFERENCE in word for word in action.argv):
        raise _secret(where, "an argument", "headers, variables and arguments of tools")
    for name, value in action.env.items():
        if not _VARIABLE.fullmatch(name):
            raise _invalid(f"{where}: {name[:80]!r} is no name of a variable", "use letters, digits and _")
        _check_reference(f"{where}: variable {name}", value)
    if any(code > MOST_EXIT_CODE for code in action.success_codes):
        raise _invalid(f"{where}: a success code is out of range", "exit codes go from 0 to 255")
    if action.access is LiveAccess.NETWORK and scope.network is not NetworkAccess.LISTED_DOMAINS:
        raise RequestMalformedError(
            "NETWORK_REFUSED",
            f"{where} reaches a network, and the plan's scope opens none",
            "set scope.network to listed_domains and name the hosts in scope.domains",
        )
    if action.keep_running is not None:
        _check_readiness(where, action.keep_running)


def _check_readiness(where: str, check: ReadinessCheck) -> None:
    if check.port and check.output:
        raise _invalid(f"{where}: it is ready by a port and by its output", "give one of the two")
    if check.port > MOST_PORT or len(check.output) > MOST_READY_TEXT or "\0" in check.output:
        raise _invalid(f"{where}: what it is ready by is out of range", "give a port, or a short text")
    if not 1 <= check.seconds <= MOST_READY_SECONDS:
        raise _invalid(
            f"{where}: it may take {check.seconds} seconds to be ready", f"allow 1 to {MOST_READY_SECONDS} seconds"
        )


def _tool(where: str, action: CallTool, _scope: Scope) -> None:
    for what, name in (("server", action.server), ("tool", action.tool)):
        if not _NAME.fullmatch(name):
            raise _invalid(f"{where}: {name[:80]!a} is no name of a {what}", "use printable ASCII without blanks")
    arguments = _json(where, "arguments", action.arguments)
    if not isinstance(arguments, dict):
        raise _invalid(f"{where}: the arguments are no JSON object", 'write them as {"name": value}')
    for _, part in _parts(arguments):
        if isinstance(part, str):
            _check_reference(f"{where}: an argument", part)


def _statement(where: str, action: RunSql, _scope: Scope) -> None:
    if not _NAME.fullmatch(action.database):
        raise _invalid(f"{where}: {action.database[:80]!a} is no name of a database", "use printable ASCII")
    if not action.statement.strip() or "\0" in action.statement:
        raise _invalid(f"{where}: there is no statement", "write one statement")
    if len(action.statement.encode()) > MOST_STATEMENT_BYTES:
        raise RequestMalformedError(
            "TOO_LARGE", f"{where}: the statement is too long", f"use at most {MOST_STATEMENT_BYTES} bytes"
        )
    if len(action.parameters) > MOST_PARAMETERS:
        raise _invalid(f"{where}: it has {len(action.parameters)} parameters", f"use at most {MOST_PARAMETERS}")
    if REFERENCE in action.statement or any(REFERENCE in text for text in action.parameters):
        raise _secret(where, "a statement or its parameters", "headers, variables and arguments of tools")
    for parameter in action.parameters:
        _json(where, "a parameter", parameter)


def _json(where: str, what: str, text: str) -> object:
    """Read a JSON value of which every reader thinks the same."""
    try:
        value: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _invalid(f"{where}: {what} can not be read as JSON", "write one JSON value, each key once") from None
    if any(depth > MOST_DEPTH for depth, _ in _parts(value)):
        raise _invalid(f"{where}: {what} is nested deeper than {MOST_DEPTH} levels", "nest less")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a key stands twice")
    return read


def _no_number(text: str) -> object:
    raise ValueError(text)


def _parts(value: object) -> Iterator[tuple[int, object]]:
    """Yield everything in a JSON value, names included, with how deep it is."""
    left = [(1, value)]
    while left:
        depth, one = left.pop()
        yield depth, one
        inner = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else ()
        left += [(depth + 1, part) for part in inner]


def _without_scheme(value: str) -> str:
    """Return a header's value from its secret on, where nothing but a scheme such as Bearer stands before that."""
    return _SCHEME.sub("", value)


def _check_reference(where: str, text: str) -> None:
    """Refuse a secret's reference inside of another text: it would be sent as it stands."""
    if REFERENCE in text and (not text.startswith(REFERENCE) or not _NAME.fullmatch(text.removeprefix(REFERENCE))):
        raise _invalid(
            f"{where} holds {REFERENCE} within another text", "make the reference all of it, and the secret the rest"
        )


def _host(read: Callable[[str], str], text: str, where: str) -> str:
    try:
        return read(text)
    except HostError as error:
        fault = error.fault
        raise RequestMalformedError(fault.reason, f"{where}: {fault.message}", fault.remedy) from None


def _invalid(message: str, remedy: str) -> RequestMalformedError:
    return RequestMalformedError("PLAN_INVALID", message, remedy)


def _secret(where: str, what: str, instead: str) -> RequestMalformedError:
    return RequestMalformedError(
        "UNSUPPORTED", f"{where} names a secret in {what}", f"secrets are given in {instead} of live steps only"
    )


_CHECKS: Final[Mapping[type[Outside | SearchBodies], Callable[[str, Any, Scope], None]]] = {
    FetchUrl: _fetch,
    SearchBodies: _search,
    HttpRequest: _request,
    RunLive: _program,
    CallTool: _tool,
    RunSql: _statement,
}
