"""Reading pages: GET and HEAD, redirects one by one, each looked at like the address that the plan names."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from executor.domain.errors import StepBlockedError, StepFailedError
from executor.domain.plan import FetchUrl, Plan
from executor.domain.policy import Trust
from executor.domain.redaction import Redactor
from executor.domain.report import FetchEvidence
from executor.outside.addresses import Lookup, Url, check_named, parse_url, pin, redirected, system_lookup
from executor.outside.answers import told
from executor.outside.bodies import Bodies, Page
from executor.outside.exchange import Answer, Bounds, Exchange, Request, check_installed
from executor.runner.outside import Setting
from executor.workspace.objects import Batch

MOST_REDIRECTS: Final = 5
AGENT: Final = "gonogo"
HEADERS: Final = (("User-Agent", AGENT), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate"))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_WELL: Final = range(200, 300)


def check_no_secret(sent: str | bytes, redactor: Redactor) -> None:
    """Refuse to send what holds a secret's value as it is.

    Raises:
        StepBlockedError: names the secret, not its value.
    """
    data = sent if isinstance(sent, bytes) else sent.encode("utf-8", "surrogatepass")
    secret = redactor.find(data) if redactor else None
    if secret is not None:
        raise StepBlockedError(
            "SECRET_IN_PLAN", f"what would be sent holds the value of secret {secret}", "refer to it by secret://"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """The port `executor.outside.far_sides.Fetching`."""

    trust: Callable[[], Trust]
    exchange: Exchange
    bodies: Bodies
    lookup: Lookup = system_lookup

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        """Read a page, unless this is a dry run and the executor's operator wants none read there."""
        check_installed()
        trust, url = self.trust(), parse_url(action.url)
        check_named(url, setting.plan.scope, trust)
        _check_pages(setting.plan)
        check_no_secret(action.url, setting.redactor)
        if not setting.execution_id and not trust.network.fetch_in_dry_run:
            return FetchEvidence(url=str(url), fetched=False)
        found, answer, redirects = self._read(action, url, setting, trust)
        evidence = FetchEvidence(
            url=setting.redactor.text(str(found)),
            fetched=True,
            status_code=answer.status,
            content_type=setting.redactor.text(answer.content_type),
            redirects=tuple(setting.redactor.text(str(one)) for one in redirects),
        )
        return evidence if action.head else self._with_body(evidence, action, answer, setting, batch)

    def _read(self, action: FetchUrl, url: Url, setting: Setting, trust: Trust) -> tuple[Url, Answer, tuple[Url, ...]]:
        """Follow redirects to the answer; return whose it is, it, and where it went on the way."""
        scope = setting.plan.scope
        bounds = Bounds(
            deadline=time.monotonic() + scope.max_duration_seconds,
            body_bytes=_most_bytes(action, setting.plan, trust),
            cancel=setting.cancel,
        )
        request = Request(method="HEAD" if action.head else "GET", headers=HEADERS, extract=action.extract_text)
        redirects: list[Url] = []
        while True:
            to = pin(
                url, trust.network.private_addresses, lookup=self.lookup, cancel=bounds.cancel, seconds=bounds.left
            )
            answer = self.exchange.send(to, request, bounds, ca_file=trust.network.ca_file)
            if answer.status not in _REDIRECTS or not answer.location:
                _check_status(url, answer)
                return url, answer, tuple(redirects)
            url = redirected(url, answer.location)
            redirects.append(url)
            if len(redirects) > MOST_REDIRECTS:
                raise _failed(f"{redirects[0]} was redirected more than {MOST_REDIRECTS} times")
            check_named(url, scope, trust)

    def _with_body(
        self, evidence: FetchEvidence, action: FetchUrl, answer: Answer, setting: Setting, batch: Batch
    ) -> FetchEvidence:
        """Keep what was read, without secrets, and let it be found."""
        body = setting.redactor.data(answer.body)
        text = None if answer.text is None else setting.redactor.data(answer.text)
        digest = batch.put_bytes(body)
        text_digest = batch.put_bytes(text) if text is not None and action.extract_text else ""
        if text is not None:
            page = Page(workspace_id=setting.workspace.workspace_id, url=evidence.url, digest=text_digest or digest)
            self.bodies.keep(page, text)
        return FetchEvidence(
            url=evidence.url,
            fetched=True,
            status_code=evidence.status_code,
            content_type=evidence.content_type,
            digest=digest,
            size=len(body),
            text_digest=text_digest,
            preview=None if text is None else told(text, setting.redactor)[0],
            redirects=evidence.redirects,
        )


def _most_bytes(action: FetchUrl, plan: Plan, trust: Trust) -> int:
    asked = (action.max_bytes, plan.scope.max_bytes, trust.network.max_fetch_bytes)
    return min(one for one in asked if one is not None)


def _check_pages(plan: Plan) -> None:
    pages = sum(isinstance(step.action, FetchUrl) for step in plan.steps)
    if pages > plan.scope.max_pages:
        raise StepBlockedError(
            "NETWORK_REFUSED",
            f"the plan reads {pages} pages; its scope allows {plan.scope.max_pages}",
            "raise scope.max_pages, or read fewer",
        )


def _check_status(url: Url, answer: Answer) -> None:
    if answer.status not in _WELL:
        raise _failed(f"{url} answered with status {answer.status}")


def _failed(message: str) -> StepFailedError:
    return StepFailedError("FETCH_FAILED", message, "correct the address, or try again later")
