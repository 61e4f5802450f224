"""What a plan may say about the outside: both services judge it, each by itself, and they judge alike.

The orchestrator's word comes first, to spare a person a dry run; the executor's counts. So whatever the orchestrator
lets pass the executor must let pass, too, and what either refuses here both refuse, for the same reason.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.adapters.wire import WireDocuments
from executor.domain.errors import RequestMalformedError
from executor.domain.plan_rules import check_plan
from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.domain import plan as plans
from orchestrator.domain.errors import RequestRefusedError
from orchestrator.domain.plan_rules import completed

URL = "https://example.org/a"
SCOPE = plans.Scope(
    network=plans.NetworkAccess.LISTED_DOMAINS,
    domains=("example.org", "*.example.net", "127.0.0.1", "::1", "xn--bcher-kva.example"),
    max_pages=3,
)
OPEN = plans.Scope()
POST = plans.HttpRequest(method="POST", url=URL)
LIVE = plans.RunLive(argv=("true",), env={}, access=plans.LiveAccess.HOST)
TOOL = plans.CallTool(server="mail", tool="send")
SQL = plans.RunSql(database="shop", statement="DELETE FROM t")


def header(name: str, value: str) -> plans.HttpRequest:
    return replace(POST, headers=(plans.HttpHeader(name=name, value=value),))


def ready(**values: Any) -> plans.RunLive:
    return replace(LIVE, keep_running=plans.ReadinessCheck(**values))


def draft(*steps: plans.Step | plans.Action, scope: plans.Scope = SCOPE, **values: Any) -> plans.PlanDraft:
    made = tuple(one if isinstance(one, plans.Step) else plans.Step(action=one) for one in steps)
    return plans.PlanDraft(objective="x", workspace="site", scope=scope, steps=made, **values)


def sealed(wanted: plans.PlanDraft) -> bytes:
    """Seal a draft as it is, its gaps filled in as the orchestrator fills them."""
    plan = plans.Plan(
        plan_id="p",
        mission_id="m",
        intent_id="i",
        message_id="",
        transcription_id="",
        cloned_from="",
        objective=wanted.objective,
        workspace_id=wanted.workspace,
        executor_id="e",
        proposer="ann",
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        scope=wanted.scope or OPEN,
        failure_policy=wanted.failure_policy or plans.FailurePolicy.PAUSE,
        steps=tuple(replace(step, step_id=f"s{n}", stage=plans.Stage.EDIT) for n, step in enumerate(wanted.steps, 1)),
        pause=wanted.pause,
    )
    return SealedDocuments().seal_plan(plan).body


def orchestrators_word(wanted: plans.PlanDraft) -> str:
    """Return the orchestrator's reason against a draft; empty where it has none."""
    try:
        completed(wanted, max_content_bytes=1000)
    except RequestRefusedError as error:
        return error.reason.value if error.remedy else "no remedy"
    return ""


def executors_word(wanted: plans.PlanDraft) -> str:
    """Return the executor's reason against a plan that somebody sealed without asking the orchestrator's rules."""
    try:
        plan = WireDocuments().open_plan(sealed(wanted))
        check_plan(plan, executor_id="e", workspaces={"site"}, max_content_bytes=1000)
    except RequestMalformedError as error:
        fault = error.fault
        reason = "PLAN_INVALID" if fault.reason == "MALFORMED" else fault.reason
        return reason if fault.remedy else "no remedy"
    return ""


TAKEN: dict[str, plans.PlanDraft] = {
    "fetch": draft(plans.FetchUrl(url=URL)),
    "fetch below a domain": draft(plans.FetchUrl(url="http://a.b.example.net/?q=%20#"[:-1])),
    "fetch with a port": draft(plans.FetchUrl(url="HTTP://EXAMPLE.org:8080")),
    "fetch from an address": draft(plans.FetchUrl(url="http://127.0.0.1/x"), plans.FetchUrl(url="http://[::1]:1/")),
    "fetch from a name in punycode": draft(plans.FetchUrl(url="https://xn--bcher-kva.example/")),
    "as many pages as allowed": draft(*[plans.FetchUrl(url=URL)] * 3),
    "search": draft(plans.SearchBodies(query="a OR b", limit=100), scope=OPEN),
    "request": draft(POST, replace(POST, method="X-MERGE", success_codes=(100, 599), content="{}")),
    "request with bytes": draft(replace(POST, data=b"\x00", idempotency_header="Idempotency-Key")),
    "header": draft(header("X-A", "b c\td"), header("X-Empty", "")),
    "secret in a header": draft(header("Authorization", "secret://a"), header("Authorization", "Bearer secret://a")),
    "program on the host": draft(LIVE, replace(LIVE, env={"A": "secret://a"}, success_codes=(255,)), scope=OPEN),
    "program with a network": draft(replace(LIVE, access=plans.LiveAccess.NETWORK, cwd="sub")),
    "kept running": draft(ready(), ready(port=65535), ready(output="listening", seconds=300), scope=OPEN),
    "deep arguments": draft(replace(TOOL, arguments='{"a":' + "[" * 99 + "]" * 99 + "}"), scope=OPEN),
    "tool": draft(TOOL, replace(TOOL, arguments='{"a":[1,null,"secret://a"]}'), scope=OPEN),
    "statement": draft(SQL, replace(SQL, parameters=("1", '"a"', "null", '{"a":[]}', "1.5e3")), scope=OPEN),
    "compensation": draft(plans.Step(action=POST, compensation=plans.Compensation(action=TOOL))),
    "needs approval": draft(plans.Step(action=plans.ReadFile(path="a"), needs_approval=True), scope=OPEN),
    "pauses": draft(TOOL, pause=plans.PauseRules(deadline_seconds=2_592_000, step_approval_seconds=1)),
}
REFUSED: dict[str, tuple[str, plans.PlanDraft]] = {
    "host not in the scope": ("NETWORK_REFUSED", draft(plans.FetchUrl(url="https://example.com/"))),
    "the domain that others are below": ("NETWORK_REFUSED", draft(plans.FetchUrl(url="https://example.net/"))),
    "a name that ends alike": ("NETWORK_REFUSED", draft(plans.FetchUrl(url="https://xexample.net/"))),
    "no network": ("NETWORK_REFUSED", draft(plans.FetchUrl(url=URL), scope=OPEN)),
    "request without network": ("NETWORK_REFUSED", draft(POST, scope=OPEN)),
    "program without network": ("NETWORK_REFUSED", draft(replace(LIVE, access=plans.LiveAccess.NETWORK), scope=OPEN)),
    "too many pages": ("PLAN_INVALID", draft(*[plans.FetchUrl(url=URL)] * 4)),
    "user in the address": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://ann@example.org/"))),
    "fragment": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org/#a"))),
    "control character": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org/\n"))),
    "blank": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org/a b"))),
    "backslash": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org\\@evil.example/"))),
    "other scheme": ("PLAN_INVALID", draft(plans.FetchUrl(url="file:///etc/passwd"))),
    "relative": ("PLAN_INVALID", draft(plans.FetchUrl(url="//example.org/"))),
    "half an escape": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org/%2"))),
    "port out of range": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org:65536/"))),
    "port of nothing": ("PLAN_INVALID", draft(plans.FetchUrl(url="https://example.org:0/"))),
    "long address": ("PLAN_INVALID", draft(plans.FetchUrl(url=URL + "a" * 8192))),
    "secret in the address": ("UNSUPPORTED", draft(plans.FetchUrl(url=URL + "?k=secret://a"))),
    "no bytes": ("PLAN_INVALID", draft(plans.FetchUrl(url=URL, max_bytes="0"))),
    "empty query": ("PLAN_INVALID", draft(plans.SearchBodies(query=" "))),
    "too many matches": ("PLAN_INVALID", draft(plans.SearchBodies(query="a", limit=101))),
    "reading method": ("PLAN_INVALID", draft(replace(POST, method="GET"))),
    "tunnelling method": ("PLAN_INVALID", draft(replace(POST, method="CONNECT"))),
    "small method": ("PLAN_INVALID", draft(replace(POST, method="post"))),
    "split method": ("PLAN_INVALID", draft(replace(POST, method="POST /x HTTP/1.1\r\nA:"))),
    "split header value": ("PLAN_INVALID", draft(header("A", "b\r\nC: d"))),
    "split header name": ("PLAN_INVALID", draft(header("A: b\r\nC", "d"))),
    "header with a blank at its end": ("PLAN_INVALID", draft(header("A", "b "))),
    "header of other letters": ("PLAN_INVALID", draft(header("A", "ü"))),
    "host header": ("PLAN_INVALID", draft(header("HOST", "evil.example"))),
    "length header": ("PLAN_INVALID", draft(header("Content-Length", "1"))),
    "transfer header": ("PLAN_INVALID", draft(header("Transfer-Encoding", "chunked"))),
    "connection header": ("PLAN_INVALID", draft(header("Connection", "close"))),
    "header twice": (
        "PLAN_INVALID",
        draft(replace(header("Idempotency-Key", "a"), idempotency_header="idempotency-key")),
    ),
    "secret within a header": ("PLAN_INVALID", draft(header("Authorization", "a Bearer secret://a"))),
    "secret in a body": ("UNSUPPORTED", draft(replace(POST, content="k=secret://a"))),
    "status out of range": ("PLAN_INVALID", draft(replace(POST, success_codes=(99,)))),
    "large body": ("TOO_LARGE", draft(replace(POST, content="a" * 1001))),
    "no program": ("PLAN_INVALID", draft(replace(LIVE, argv=()))),
    "empty program": ("PLAN_INVALID", draft(replace(LIVE, argv=("",)))),
    "NUL in an argument": ("PLAN_INVALID", draft(replace(LIVE, argv=("a", "\0")))),
    "secret in an argument": ("UNSUPPORTED", draft(replace(LIVE, argv=("a", "--k=secret://a")))),
    "variable's name": ("PLAN_INVALID", draft(replace(LIVE, env={"A=B": "c"}))),
    "secret within a variable": ("PLAN_INVALID", draft(replace(LIVE, env={"A": "x secret://a"}))),
    "secret without a name": ("PLAN_INVALID", draft(replace(LIVE, env={"A": "secret://"}))),
    "exit code": ("PLAN_INVALID", draft(replace(LIVE, success_codes=(256,)))),
    "no access": ("PLAN_INVALID", draft(replace(LIVE, access=None))),
    "ready by two": ("PLAN_INVALID", draft(ready(port=1, output="a"))),
    "ready by no port": ("PLAN_INVALID", draft(ready(port=65536))),
    "ready too late": ("PLAN_INVALID", draft(ready(seconds=301))),
    "no server": ("PLAN_INVALID", draft(replace(TOOL, server=""))),
    "tool with a blank": ("PLAN_INVALID", draft(replace(TOOL, tool="a b"))),
    "arguments that are no object": ("PLAN_INVALID", draft(replace(TOOL, arguments="[]"))),
    "arguments that are no JSON": ("PLAN_INVALID", draft(replace(TOOL, arguments="{'a': 1}"))),
    "an argument twice": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a":1,"a":2}'))),
    "an argument that is no number": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a":NaN}'))),
    "deeper arguments": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a":' + "[" * 100 + "]" * 100 + "}"))),
    "arguments without an end": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a":' * 150 + "1" + "}" * 149))),
    "endless parameter": ("PLAN_INVALID", draft(replace(SQL, parameters=("[" * 5000 + "]" * 5000,)))),
    "secret within an argument": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a":"x secret://b"}'))),
    "secret as an argument's name": ("PLAN_INVALID", draft(replace(TOOL, arguments='{"a secret://b":1}'))),
    "large arguments": ("TOO_LARGE", draft(replace(TOOL, arguments='{"a":"' + "b" * 1001 + '"}'))),
    "no database": ("PLAN_INVALID", draft(replace(SQL, database=""))),
    "no statement": ("PLAN_INVALID", draft(replace(SQL, statement="\n"))),
    "long statement": ("TOO_LARGE", draft(replace(SQL, statement="a" * 65_537))),
    "NUL in a statement": ("PLAN_INVALID", draft(replace(SQL, statement="a\0"))),
    "secret in a statement": ("UNSUPPORTED", draft(replace(SQL, statement="SET a = 'secret://b'"))),
    "secret in a parameter": ("UNSUPPORTED", draft(replace(SQL, parameters=('"secret://b"',)))),
    "parameter that is no JSON": ("PLAN_INVALID", draft(replace(SQL, parameters=("a",)))),
    "compensation of an edit": (
        "PLAN_INVALID",
        draft(plans.Step(action=plans.DeletePath(path="a"), compensation=plans.Compensation(action=TOOL))),
    ),
    "compensation of a fetch": (
        "PLAN_INVALID",
        draft(plans.Step(action=plans.FetchUrl(url=URL), compensation=plans.Compensation(action=TOOL))),
    ),
    "compensation outside the scope": (
        "NETWORK_REFUSED",
        draft(plans.Step(action=TOOL, compensation=plans.Compensation(action=POST)), scope=OPEN),
    ),
    "compensation that is wrong": (
        "PLAN_INVALID",
        draft(plans.Step(action=TOOL, compensation=plans.Compensation(action=replace(TOOL, tool="")))),
    ),
    "network without domains": ("PLAN_INVALID", draft(TOOL, scope=replace(SCOPE, domains=()))),
    "domains without network": ("PLAN_INVALID", draft(TOOL, scope=replace(SCOPE, network=None))),
    "domain that is no name": ("NETWORK_REFUSED", draft(TOOL, scope=replace(SCOPE, domains=("*",)))),
    "domain with a path": ("NETWORK_REFUSED", draft(TOOL, scope=replace(SCOPE, domains=("example.org/a",)))),
    "domain with a star within": ("NETWORK_REFUSED", draft(TOOL, scope=replace(SCOPE, domains=("a.*.org",)))),
    "domain below an address": ("NETWORK_REFUSED", draft(TOOL, scope=replace(SCOPE, domains=("*.127.0.0.1",)))),
    "domain that may be an address": ("NETWORK_REFUSED", draft(TOOL, scope=replace(SCOPE, domains=("127.1",)))),
    "long pause": ("PLAN_INVALID", draft(TOOL, pause=plans.PauseRules(deadline_seconds=2_592_001))),
    "long wait for an approval": ("PLAN_INVALID", draft(TOOL, pause=plans.PauseRules(step_approval_seconds=2_592_001))),
}


@pytest.mark.parametrize("name", TAKEN)
def test_both_take_what_is_plain(name: str) -> None:
    """What a plan may say, neither of the two refuses."""
    assert (orchestrators_word(TAKEN[name]), executors_word(TAKEN[name])) == ("", "")


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_what_is_not(name: str) -> None:
    """An executor that is asked past the orchestrator refuses for the same reason as the orchestrator."""
    reason, wanted = REFUSED[name]
    assert (orchestrators_word(wanted), executors_word(wanted)) == (reason, reason)


@pytest.mark.parametrize(
    "changed",
    [
        {"segment": 1},
        {"segment": 1, "execution_id": "x-1"},
        {"execution_id": "x-1", "journal_digest": "sha256:0"},
        {"segment": 1, "execution_id": "x 1", "journal_digest": "sha256:0"},
    ],
)
def test_half_a_repair_plan_is_refused(changed: dict[str, Any]) -> None:
    """A plan goes on with an execution and says which, or it does not."""
    plan = replace(WireDocuments().open_plan(sealed(draft(TOOL))), **changed)
    with pytest.raises(RequestMalformedError):
        check_plan(plan, executor_id="e", workspaces={"site"}, max_content_bytes=1000)
    whole = replace(plan, segment=1, execution_id="x-1", journal_digest="sha256:0")
    check_plan(whole, executor_id="e", workspaces={"site"}, max_content_bytes=1000)


NEAR_URLS = st.lists(
    st.sampled_from(
        [
            *("https://", "http://", "example.org", "EXAMPLE.ORG", "a.example.net", "127.0.0.1", "[::1]", "0x7f.1"),
            *(":80", ":", "@", "/", "?", "#", "%41", "%", "..", ".", " ", "\\", "a", "ü", "ß", "-", "_", "xn--", "\t"),
        ]
    ),
    max_size=6,
).map("".join)


@settings(max_examples=400)
@given(NEAR_URLS)
def test_the_executor_takes_no_address_less_than_the_orchestrator(url: str) -> None:
    """A person who was told that a plan is fine is not told otherwise by the executor, and hosts are read alike."""
    wanted = draft(plans.FetchUrl(url=url))
    word = orchestrators_word(wanted)
    if word != executors_word(wanted):
        assert word == "PLAN_INVALID" or not url.isascii()
