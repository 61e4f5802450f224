"""One request with effects: said in full before it is approved, sent once, never sent on to anywhere else."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from executor.domain.errors import ExecutorError, Fault, StepBlockedError
from executor.domain.plan import HttpHeader, HttpRequest
from executor.domain.policy import Trust
from executor.domain.receipt import EffectState
from executor.domain.redaction import Secret
from executor.domain.report import LiveEvidence
from executor.outside.addresses import Lookup, Pinned, Url, check_named, parse_url, pin, system_lookup
from executor.outside.answers import canonical, told
from executor.outside.exchange import Answer, Bounds, BrokenOffError, Exchange, Request, check_installed
from executor.outside.far_sides import not_done, unknown
from executor.outside.fetching import HEADERS, check_no_secret
from executor.runner.outside import Declared, Performed, Setting
from gonogo.digests import digest
from gonogo.safe_text import excerpt, safe_line
from gonogo.secret_shapes import REFERENCE

NOT_SIMULATED: Final = "a request with effects; it is sent once, after approval"
UNENCRYPTED: Final = "it names a secret, which would be sent without encryption"
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_NO_METHODS: Final = frozenset(("CONNECT", "TRACE"))
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_OURS: Final = frozenset(
    (
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("keep-alive", "accept-encoding", "proxy-connection", "proxy-authorization", "proxy-authenticate"),
    )
)
_SHOWN: Final = 300
_REDIRECTS: Final = range(300, 400)
_WELL: Final = range(200, 300)

SecretOf = Callable[[str, str], Secret]
"""Returns the secret that a workspace's step refers to; raises ExecutorError where there is none for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The port `executor.outside.far_sides.LiveHandler` for `http_request`."""

    trust: Callable[[], Trust]
    exchange: Exchange
    secret: SecretOf
    lookup: Lookup = system_lookup

    def declare(self, action: HttpRequest, setting: Setting) -> Declared:
        """Check the request and say what it will be; nobody is asked, not even for the host's addresses."""
        check_installed()
        trust, url = self.trust(), parse_url(action.url)
        check_named(url, setting.plan.scope, trust)
        _check(action, setting)
        headers = tuple(self._headers(action, setting, ""))
        if _refers(action) and url.scheme != "https" and not trust.network.private_addresses:
            raise _blocked(UNENCRYPTED, "use https")
        for name, value in headers:
            _check_value(name, value)
        whole = digest(_described(action, url))
        return Declared(
            evidence=LiveEvidence(target=f"{action.method} {url}", digest=whole, not_simulated=NOT_SIMULATED),
            not_simulated=NOT_SIMULATED,
            digest=whole,
        )

    def perform(self, action: HttpRequest, expected: Declared, setting: Setting, key: str) -> Performed:
        """Send it, once."""
        if self.declare(action, setting).digest != expected.digest:
            return not_done(_changed())
        trust, url = self.trust(), parse_url(action.url)
        bounds = Bounds(
            deadline=time.monotonic() + setting.plan.scope.max_duration_seconds,
            body_bytes=trust.network.max_fetch_bytes,
            cancel=setting.cancel,
        )
        to = pin(url, trust.network.private_addresses, lookup=self.lookup, cancel=bounds.cancel, seconds=bounds.left)
        request = self._request(action, setting, key, to)
        try:
            answer = self.exchange.send(to, request, bounds, ca_file=trust.network.ca_file)
        except BrokenOffError as error:
            return unknown(f"{action.method} {url}: {error.fault.message}")
        return _performed(action, url, answer, setting)

    def _request(self, action: HttpRequest, setting: Setting, key: str, to: Pinned) -> Request:
        if _refers(action) and to.url.scheme != "https" and not to.is_private:
            raise _blocked(UNENCRYPTED, "use https")
        headers = tuple((name, value.decode("latin-1")) for name, value in self._headers(action, setting, key))
        return Request(method=action.method, headers=headers, content=action.content, cut=True)

    def _headers(self, action: HttpRequest, setting: Setting, key: str) -> Iterator[tuple[str, bytes]]:
        """Yield the executor's headers that the plan does not set, the plan's with secrets, and the key."""
        named = {header.name.lower() for header in action.headers}
        yield from ((name, value.encode()) for name, value in HEADERS if name.lower() not in named)
        for header in action.headers:
            before, reference = _split(header)
            value = self._secret(setting, reference) if reference else b""
            yield header.name, before.encode("ascii") + value
        if action.idempotency_header:
            yield action.idempotency_header, key.encode()

    def _secret(self, setting: Setting, reference: str) -> bytes:
        try:
            return self.secret(setting.workspace.workspace_id, reference).value
        except ExecutorError as error:
            fault = error.fault
            raise StepBlockedError(fault.reason, fault.message, fault.remedy) from None


def _split(header: HttpHeader) -> tuple[str, str]:
    """Return what stands before a secret's reference, and the reference; a scheme such as Bearer may stand there."""
    if REFERENCE not in header.value:
        return header.value, ""
    before, found, name = header.value.rpartition(REFERENCE)
    if (before and not before.endswith(" ")) or REFERENCE in before or " " in name:
        raise _blocked(
            f"header {header.name} holds a secret's reference among other text",
            f"write {REFERENCE} and the name alone, or behind one word and a blank",
        )
    return before, found + name


def _refers(action: HttpRequest) -> bool:
    return any(REFERENCE in header.value for header in action.headers)


def _check(action: HttpRequest, setting: Setting) -> None:
    if not _METHOD.fullmatch(action.method) or action.method in _NO_METHODS:
        raise _blocked(f"{action.method[:40]!a} is no method of a request", "write POST, PUT, PATCH or DELETE")
    names = [header.name for header in action.headers]
    names += [action.idempotency_header] if action.idempotency_header else []
    for name in names:
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise _blocked(f"{name[:80]!a} is no header that a plan sets", "leave it out, or correct its name")
    if action.idempotency_header.lower() in {header.name.lower() for header in action.headers}:
        raise _blocked(f"{action.idempotency_header} is set twice", "leave it out of headers")
    for header in action.headers:
        if not header.value.isascii():
            raise _blocked(f"the value of header {header.name} is not ASCII", "encode it as its reader expects")
    for text in (action.url, *(header.value for header in action.headers)):
        check_no_secret(text, setting.redactor)
    check_no_secret(action.content or b"", setting.redactor)


def _check_value(name: str, value: bytes) -> None:
    if not _VALUE.fullmatch(value):
        raise _blocked(f"the value of header {name} can not be sent", "write one line of plain characters")


def _described(action: HttpRequest, url: Url) -> bytes:
    """Return the one text of all that is sent, secrets by reference."""
    return canonical(
        {
            "kind": "http_request",
            "method": action.method,
            "url": str(url),
            "headers": [[header.name, header.value] for header in action.headers],
            "content": None if action.content is None else digest(action.content),
            "success_codes": list(action.success_codes),
            "idempotency_header": action.idempotency_header,
        }
    )


def _performed(action: HttpRequest, url: Url, answer: Answer, setting: Setting) -> Performed:
    """Say what came of it: the far side took the request and answered, so it is done, well or not."""
    kept, answer_digest = told(answer.body, setting.redactor)
    cut = ", of which only the beginning was read" if answer.cut else ""
    return Performed(
        state=EffectState.DONE,
        summary=f"{action.method} {url} was answered with status {answer.status}, {len(answer.body)} bytes{cut}",
        answer=kept,
        answer_digest=answer_digest,
        fault=None if answer.status in (action.success_codes or _WELL) else _refused(url, answer, setting),
    )


def _refused(url: Url, answer: Answer, setting: Setting) -> Fault:
    to = safe_line(excerpt(setting.redactor.text(answer.location), _SHOWN))  # a secret that was cut in two is not found
    where = f"; it sends on to {to}, which is not followed" if answer.status in _REDIRECTS else ""
    again = f" after {answer.retry_after}" if answer.retry_after else ""
    return Fault(
        reason="EFFECT_FAILED",
        message=f"{url.authority} answered with status {answer.status}{where}",
        remedy=f"read its answer in the receipt, then stop, or repair with another request{again}",
    )


def _changed() -> Fault:
    return Fault(
        reason="PLAN_MISMATCH",
        message="the request is not the one that the report describes",
        remedy="give it a repair plan: gonogo repair MISSION -f FILE",
    )


def _blocked(message: str, remedy: str) -> StepBlockedError:
    return StepBlockedError("NETWORK_REFUSED", message, remedy)
