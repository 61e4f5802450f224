"""What steps must be that reach outside of the workspace, as far as the plan alone tells.

The executor judges again, with its own trust file. Here a person hears of a slip before a mission is proposed, and what
the plan leaves open is filled in.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar

from gonogo.secret_shapes import REFERENCE
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.plan import (
    Action,
    CallTool,
    FetchUrl,
    HttpRequest,
    LiveAccess,
    NetworkAccess,
    Outside,
    ReadinessCheck,
    RunLive,
    RunSql,
    Scope,
    SearchBodies,
)

DEFAULT_MATCHES: Final = 20
DEFAULT_READY_SECONDS: Final = 10
NO_ARGUMENTS: Final = "{}"
MAX_URL: Final = 8_192
MAX_HEADERS: Final = 100
MAX_HEADER_VALUE: Final = 8_192
MAX_QUERY: Final = 4_096
MAX_MATCHES: Final = 100
MAX_ARGUMENTS: Final = 4_096
MAX_STATEMENT_BYTES: Final = 64 * 1024
MAX_PARAMETERS: Final = 1_000
MAX_READY_SECONDS: Final = 300
MAX_READY_TEXT: Final = 1_000
MAX_PORT: Final = 65_535
MAX_HOST: Final = 253
MAX_DEPTH: Final = 100
OWN_HEADERS: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""What belongs to the connection, and is the executor's own business."""
OWN_METHODS: Final = frozenset({"GET", "HEAD", "CONNECT", "TRACE"})

_TARGET: Final = r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_URL: Final = re.compile(
    rf"https?://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@%\s\\/?#]+))(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    rf"(?:[/?]{_TARGET})?",
    re.IGNORECASE | re.ASCII,
)
_LABEL: Final = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?|_[\w-]{0,62}")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_NAME: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_SCHEME: Final = re.compile(rf"\A[A-Za-z][A-Za-z0-9-]{{0,31}} (?={REFERENCE})")
_BYTES: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

A = TypeVar("A", bound=Action)


def completed_action(action: A) -> A:
    """Fill in what an action outside of the workspace leaves open; any other is as it was."""
    if isinstance(action, SearchBodies):
        return replace(action, limit=action.limit or DEFAULT_MATCHES)
    if isinstance(action, CallTool):
        return replace(action, arguments=action.arguments or NO_ARGUMENTS)
    if isinstance(action, RunLive) and action.keep_running is not None:
        check = action.keep_running
        return replace(action, keep_running=replace(check, seconds=check.seconds or DEFAULT_READY_SECONDS))
    return action


def check_domain(domain: str) -> None:
    """Refuse an entry of the scope's domains that is neither a host nor `*.` and the name that hosts end in."""
    name = domain.removeprefix("*.")
    if not _is_host(name) or (name != domain and _is_address(name)):
        _refuse(
            Reason.NETWORK_REFUSED,
            f"{domain[:80]!a} is no name of a host",
            "List hosts such as example.org, or *.example.org for all below it.",
        )


def check_outside(where: str, action: Outside | SearchBodies, scope: Scope, limit: int) -> None:
    """Refuse a step, or a compensation, that could be understood in two ways or leaves the scope.

    Raises:
        RequestRefusedError: PLAN_INVALID, NETWORK_REFUSED, TOO_LARGE, UNSUPPORTED for a secret where none is given.
    """
    _CHECKS[type(action)](where, action, scope, limit)


def _fetch(where: str, action: FetchUrl, scope: Scope, _limit: int) -> None:
    _check_url(where, action.url, scope)
    if action.max_bytes and not _BYTES.fullmatch(action.max_bytes):
        _invalid(f"{where}: max_bytes is not a positive whole number", 'Write it as text, such as "1048576".')


def _search(where: str, action: SearchBodies, _scope: Scope, _limit: int) -> None:
    if not action.query.strip() or len(action.query) > MAX_QUERY or "\0" in action.query:
        _invalid(f"{where}: the query is empty or too long", f"Use 1 to {MAX_QUERY:,} characters.")
    if not 1 <= action.limit <= MAX_MATCHES:
        _invalid(f"{where}: the limit is out of range", f"Ask for 1 to {MAX_MATCHES} matches.")


def _request(where: str, action: HttpRequest, scope: Scope, limit: int) -> None:
    if not _METHOD.fullmatch(action.method) or action.method in OWN_METHODS:
        _invalid(
            f"{where}: {action.method[:40]!a} is no method of a request with effects",
            "Use POST, PUT, PATCH, DELETE or another one in capitals; reading is fetch_url.",
        )
    _check_url(where, action.url, scope)
    _check_headers(where, action)
    if any(not 100 <= code <= 599 for code in action.success_codes):  # noqa: PLR2004 - what a status code can be
        _invalid(f"{where}: a success code is no status code", "Status codes go from 100 to 599.")
    body = (action.content or "").encode() if action.data is None else action.data
    if action.content is not None and action.data is not None:
        _invalid(f"{where}: two bodies", "Give at most one of `content` and `data`.")
    if REFERENCE.encode() in body:
        _secret(where, "the body", "headers, variables and arguments of tools")
    _check_size(where, body, limit)


def _check_url(where: str, url: str, scope: Scope) -> None:
    found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    host = "" if found is None else (found["v6"] or found["name"]).lower().removesuffix(".")
    if found is None or int(found["port"] or 0) > MAX_PORT or not _is_host(host):
        _invalid(
            f"{where}: {url[:120]!a} is no address that means one thing only",
            "Write http:// or https://, a host and a path of plain or percent-encoded characters, without a user, a"
            " password or a fragment.",
        )
    if REFERENCE in url:
        _secret(where, "an address", "headers, variables and arguments of tools")
    if scope.network is not NetworkAccess.LISTED_DOMAINS or not names(scope.domains, host):
        _refuse(
            Reason.NETWORK_REFUSED,
            f"{where}: the plan's scope does not name {host}",
            "Set `scope.network: listed_domains` and add the host to `scope.domains`, or change the step.",
        )


def names(domains: tuple[str, ...], host: str) -> bool:
    """Tell whether a scope's domains name a host."""
    for domain in (entry.lower().removesuffix(".") for entry in domains):
        if domain.startswith("*."):
            if host.endswith(domain[1:]) and not _is_address(host):
                return True
        elif _same_host(domain, host):
            return True
    return False


def _check_headers(where: str, action: HttpRequest) -> None:
    if len(action.headers) > MAX_HEADERS:
        _invalid(f"{where}: {len(action.headers)} headers", f"Send at most {MAX_HEADERS}.")
    seen: set[str] = set()
    keys = [action.idempotency_header] if action.idempotency_header else []
    for name in (*(header.name for header in action.headers), *keys):
        if not _HEADER.fullmatch(name) or name.lower() in OWN_HEADERS:
            _invalid(f"{where}: {name[:80]!a} is no header that a step may set", "Leave it out.")
        if name.lower() in seen:
            _invalid(f"{where}: two headers are called {name}", "Send each header once.")
        seen.add(name.lower())
    for header in action.headers:
        if len(header.value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(header.value):
            _invalid(
                f"{where}: the value of header {header.name} is too long or no plain line",
                "Write it in ASCII on one line, without blanks at its ends.",
            )
        _check_reference(f"{where}: header {header.name}", _without_scheme(header.value))


def _program(where: str, action: RunLive, scope: Scope, _limit: int) -> None:
    if not (action.argv and action.argv[0]) or len(action.argv) > MAX_ARGUMENTS:
        _invalid(f"{where}: argv names no program", "Give the program and its arguments as a list.")
    if any("\0" in text for text in (*action.argv, *action.env.values())):
        _invalid(f"{where}: a NUL in an argument or variable", "Leave NUL characters out.")
    if any(REFERENCE in word for word in action.argv):
        _secret(where, "an argument", "headers, variables and arguments of tools")
    for name, value in action.env.items():
        if not _VARIABLE.fullmatch(name):
            _invalid(f"{where}: {name[:80]!a} is no variable name", "Use letters, digits and '_'.")
        _check_reference(f"{where}: variable {name}", value)
    if any(not 0 <= code <= 255 for code in action.success_codes):  # noqa: PLR2004 - what a process can exit with
        _invalid(f"{where}: a success code is out of range", "Exit codes go from 0 to 255.")
    if action.access is None:
        _invalid(f"{where}: it does not say what it may reach", "Set `access` to `network` or `host`.")
    if action.access is LiveAccess.NETWORK and scope.network is not NetworkAccess.LISTED_DOMAINS:
        _refuse(
            Reason.NETWORK_REFUSED,
            f"{where} reaches a network, and the plan's scope opens none",
            "Set `scope.network: listed_domains` and name the hosts in `scope.domains`.",
        )
    if action.keep_running is not None:
        _check_readiness(where, action.keep_running)


def _check_readiness(where: str, check: ReadinessCheck) -> None:
    if check.port and check.output:
        _invalid(f"{where}: it is ready by a port and by its output", "Give one of `port` and `output`.")
    if not 0 <= check.port <= MAX_PORT or len(check.output) > MAX_READY_TEXT or "\0" in check.output:
        _invalid(f"{where}: what it is ready by is out of range", "Give a port, or a short text.")
    if not 1 <= check.seconds <= MAX_READY_SECONDS:
        _invalid(f"{where}: {check.seconds} seconds to become ready", f"Allow 1 to {MAX_READY_SECONDS} seconds.")


def _tool(where: str, action: CallTool, _scope: Scope, limit: int) -> None:
    for what, name in (("server", action.server), ("tool", action.tool)):
        if not _NAME.fullmatch(name):
            _invalid(f"{where}: {name[:80]!a} is no name of a {what}", "Use printable ASCII without blanks.")
    _check_size(where, action.arguments.encode(), limit)
    arguments = _json(where, "arguments", action.arguments)
    if not isinstance(arguments, dict):
        _invalid(f"{where}: the arguments are no JSON object", "Write them as names and values.")
    for _, part in _parts(arguments):
        if isinstance(part, str):
            _check_reference(f"{where}: an argument", part)


def _statement(where: str, action: RunSql, _scope: Scope, _limit: int) -> None:
    if not _NAME.fullmatch(action.database):
        _invalid(f"{where}: {action.database[:80]!a} is no name of a database", "Use printable ASCII.")
    if not action.statement.strip() or "\0" in action.statement:
        _invalid(f"{where}: there is no statement", "Write one statement.")
    _check_size(where, action.statement.encode(), MAX_STATEMENT_BYTES)
    if len(action.parameters) > MAX_PARAMETERS:
        _invalid(f"{where}: {len(action.parameters)} parameters", f"Use at most {MAX_PARAMETERS:,}.")
    if any(REFERENCE in text for text in (action.statement, *action.parameters)):
        _secret(where, "a statement or its parameters", "headers, variables and arguments of tools")
    for parameter in action.parameters:
        _json(where, "a parameter", parameter)


def _json(where: str, what: str, text: str) -> object:
    """Read a JSON value of which every reader thinks the same."""
    try:
        value: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        _invalid(f"{where}: {what} can not be read as JSON", "Write one JSON value, each key once.")
    if any(depth > MAX_DEPTH for depth, _ in _parts(value)):
        _invalid(f"{where}: {what} is nested deeper than {MAX_DEPTH} levels", "Nest less.")
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
        _invalid(
            f"{where} holds {REFERENCE} within another text", "Make the reference all of it, and the secret the rest."
        )


def _check_size(where: str, content: bytes, limit: int) -> None:
    if len(content) > limit:
        _refuse(
            Reason.TOO_LARGE,
            f"{where}: what it carries has {len(content):,} bytes; the most is {limit:,}",
            "Carry less, or in several steps.",
        )


def _is_host(name: str) -> bool:
    """Tell whether a text is an address or a name of plain labels; the executor knows its canonical form."""
    if _is_address(name):
        return True
    labels = name.removesuffix(".").split(".")
    plain = len(name) <= MAX_HOST and all(_LABEL.fullmatch(label) for label in labels)
    return plain and not re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1])


def _is_address(name: str) -> bool:
    return _address(name) is not None


def _same_host(domain: str, host: str) -> bool:
    address = _address(host)
    return domain == host if address is None else _address(domain) == address


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _invalid(message: str, remedy: str) -> NoReturn:
    _refuse(Reason.PLAN_INVALID, message, remedy)


def _secret(where: str, what: str, instead: str) -> NoReturn:
    _refuse(
        Reason.UNSUPPORTED, f"{where} names a secret in {what}", f"Secrets are given in {instead} of live steps only."
    )


def _refuse(reason: Reason, message: str, remedy: str) -> NoReturn:
    raise RequestRefusedError(reason, message, remedy)


_CHECKS: Final[Mapping[type[Outside | SearchBodies], Callable[[str, Any, Scope, int], None]]] = {
    FetchUrl: _fetch,
    SearchBodies: _search,
    HttpRequest: _request,
    RunLive: _program,
    CallTool: _tool,
    RunSql: _statement,
}
