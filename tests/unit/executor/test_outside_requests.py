"""Requests with effects: what is said before, what is sent, and what is known afterwards."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, StepBlockedError
from executor.domain.plan import HttpRequest, RunSql
from executor.domain.receipt import EffectState
from executor.outside.exchange import Answer, Exchange
from executor.outside.requests import Requests
from executor.runner.outside import Performed
from tests.unit.executor.fetch_house import LOOPBACK, FetchHouse, fetch_house, post
from tests.unit.executor.hostile_server import HostileServer, authority, hostile_server
from tests.unit.executor.outside_house import TOKEN

KEY = "e-1-s1"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[FetchHouse]:
    """What reaches loopback, without bubblewrap."""
    with fetch_house(tmp_path) as found:
        yield found


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """The server."""
    with hostile_server() as found:
        yield found


def perform(house: FetchHouse, action: HttpRequest, **how: object) -> Performed:
    """Declare a request and send it."""
    setting = house.setting(action, execution_id="e-1", **how)  # type: ignore[arg-type]  # as setting takes them
    return house.world.perform(action, house.world.declare(action, setting), setting, KEY)


def blocked(house: FetchHouse, action: HttpRequest, **how: object) -> ExecutorError:
    """What a declaration is refused with."""
    with pytest.raises(StepBlockedError) as caught:
        house.world.declare(action, house.setting(action, **how))  # type: ignore[arg-type]  # as setting takes them
    return caught.value


def test_a_dry_run_asks_nobody(house: FetchHouse, server: HostileServer) -> None:
    """A declaration says method and address, that nobody has seen what it comes to, and sends nothing."""
    action = post(f"http://ok.test:{server.port}/echo")
    declared = house.world.declare(action, house.setting(action))
    assert declared.evidence.target == f"POST http://ok.test:{server.port}/echo"  # type: ignore[union-attr]  # it is live
    assert "not" not in declared.digest
    assert "a request with effects" in declared.not_simulated
    assert server.connections == 0


def test_the_digest_is_over_all_that_is_sent(house: FetchHouse) -> None:
    """Any change of what would be sent is another digest; a secret is in it by its reference."""
    first = post("http://ok.test/a", ("X-A", "1"), ("Authorization", "secret://token"), key="Idempotency-Key")
    others = (
        first,
        replace(first, method="PUT"),
        replace(first, url="http://ok.test/b"),
        replace(first, content=b"{ }"),
        replace(first, content=None),
        replace(first, headers=first.headers[:1]),
        replace(first, headers=tuple(reversed(first.headers))),
        replace(first, success_codes=(201,)),
        replace(first, idempotency_header=""),
    )
    digests = {house.world.declare(one, house.setting(one)).digest for one in others}
    assert len(digests) == len(others)


def test_what_is_sent(house: FetchHouse, server: HostileServer) -> None:
    """Method, headers, key and body arrive as declared, and the answer is told."""
    action = post(
        f"http://ok.test:{server.port}/echo?a=%20",
        ("Content-Type", "application/json"),
        ("User-Agent", "mine"),
        content=b'{"n": 1}',
        key="Idempotency-Key",
    )
    performed = perform(house, action)
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/echo?a=%20", b'{"n": 1}')
    assert seen.headers["idempotency-key"] == KEY
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"] == "mine"
    assert seen.headers["content-length"] == "8"
    assert (performed.state, performed.fault) == (EffectState.DONE, None)
    assert performed.answer is not None
    assert performed.answer_digest == performed.answer.digest
    assert "status 200" in performed.summary


@pytest.mark.parametrize(("value", "sent"), [("secret://token", TOKEN), ("Bearer secret://token", f"Bearer {TOKEN}")])
def test_secrets_are_sent_and_never_told(house: FetchHouse, server: HostileServer, value: str, sent: str) -> None:
    """The far side gets the value; what it says back is without it."""
    performed = perform(house, post(f"http://ok.test:{server.port}/echo", ("Authorization", value)))
    assert server.seen[0].headers["authorization"] == sent
    assert performed.answer is not None
    assert TOKEN not in performed.answer.head + performed.summary
    assert "authorization" in performed.answer.head


def test_a_secret_in_a_redirect_is_not_cut_in_two(house: FetchHouse) -> None:
    """Where what is shown of an address ends in the middle of a secret, none of it is shown."""

    class Redirecting(Exchange):
        """Sends whoever asks to log in, with what they showed."""

        def send(self, *_given: object, **_how: object) -> Answer:
            to = "https://ok.test/" + "x" * (300 - 16 - 10) + TOKEN
            return Answer(status=302, content_type="", location=to, retry_after="", body=b"", text=None, cut=False)

    asked = house.world.handlers[HttpRequest]
    assert isinstance(asked, Requests)
    requests = replace(asked, exchange=Redirecting(confinement=None))
    action = post("http://ok.test/")
    setting = house.setting(action, execution_id="e-1")
    performed = requests.perform(action, requests.declare(action, setting), setting, KEY)
    assert performed.fault is not None
    assert "it sends on to https://ok.test/xxx" in performed.fault.message
    assert TOKEN[:4] not in performed.fault.message


@pytest.mark.parametrize(
    "value", ["xsecret://token", "a secret://token b", "secret://token secret://token", "secret://"]
)
def test_references_among_other_text(house: FetchHouse, value: str) -> None:
    """A reference stands alone or behind a scheme; nothing else is pieced together."""
    assert blocked(house, post("http://ok.test/", ("Authorization", value))).fault.reason in {
        "NETWORK_REFUSED",
        "SECRET_UNAVAILABLE",
    }


def test_a_secret_that_is_not_there(house: FetchHouse) -> None:
    """A secret that this workspace may not use blocks the dry run already."""
    error = blocked(house, post("http://ok.test/", ("Authorization", "secret://other")))
    assert error.fault.reason == "SECRET_UNAVAILABLE"


def test_a_secrets_value_in_the_plan(house: FetchHouse) -> None:
    """A plan that holds a secret's value itself is not declared, wherever the value stands."""
    for action in (
        post(f"http://ok.test/{TOKEN}"),
        post("http://ok.test/", ("X-Token", TOKEN)),
        post("http://ok.test/", content=f"token={TOKEN}".encode()),
    ):
        assert blocked(house, action).fault.reason == "SECRET_IN_PLAN"


def test_no_secret_without_encryption(tmp_path: Path) -> None:
    """A secret goes over plain HTTP to the operator's own networks alone."""
    with fetch_house(tmp_path, network="") as house:
        error = blocked(house, post("http://ok.test/", ("Authorization", "secret://token")))
        assert "encryption" in error.fault.message
        house.world.declare(post("http://ok.test/"), house.setting(post("http://ok.test/")))


@pytest.mark.parametrize(
    "action",
    [
        *(post("http://ok.test/", (name, "x")) for name in ("Host", "content-length", "Transfer-Encoding", "a b", "")),
        *(post("http://ok.test/", (name, "x")) for name in ("Proxy-Authorization", "Connection", "Upgrade", "X:", "ä")),
        *(post("http://ok.test/", ("X", value)) for value in ("a\r\nHost: evil", "a\nb", "a\0b", " a", "ä", "\x7f")),
        *(post("http://ok.test/", method=method) for method in ("", "post", "CONNECT", "TRACE", "GET /x", "P\r\n")),
        post("http://ok.test/", key="Host"),
        post("http://ok.test/", ("Idempotency-Key", "x"), key="idempotency-key"),
        post("http://evil.test/"),
        post("http://a:b@ok.test/"),
        post("ftp://ok.test/"),
    ],
)
def test_requests_that_are_not_sent(house: FetchHouse, action: HttpRequest) -> None:
    """What would smuggle something in, or go where it may not, is refused in the dry run."""
    assert blocked(house, action).fault.reason == "NETWORK_REFUSED"


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 409, 429, 500, 503])
def test_an_answer_that_is_no_success(house: FetchHouse, server: HostileServer, status: int) -> None:
    """The far side took it and said that it is not well: done, with a fault; a redirect is told and not followed."""
    performed = perform(house, post(f"http://ok.test:{server.port}/status/{status}"))
    assert performed.state is EffectState.DONE
    assert performed.fault is not None
    assert performed.fault.reason == "EFFECT_FAILED"
    assert str(status) in performed.fault.message
    assert ("/elsewhere" in performed.fault.message) is (status < 400)
    assert server.connections == 1


def test_codes_that_count_as_success(house: FetchHouse, server: HostileServer) -> None:
    """The plan says which answers are well; then no other is."""
    action = post(f"http://ok.test:{server.port}/status/409", success_codes=(409,))
    assert perform(house, action).fault is None
    other = replace(action, url=f"http://ok.test:{server.port}/status/200")
    assert perform(house, other).fault is not None


@pytest.mark.parametrize("path", ["nothing", "garbage", "short", "silent", "slow-headers", "slow-body", "header-flood"])
def test_broken_off_is_unknown(house: FetchHouse, server: HostileServer, path: str) -> None:
    """Where sending had begun and no whole answer came, nobody knows whether it happened."""
    performed = perform(house, post(f"http://ok.test:{server.port}/{path}"), max_duration_seconds=1)
    assert performed.state is EffectState.UNKNOWN
    assert performed.fault is not None
    assert performed.fault.reason == "EFFECT_UNKNOWN"
    assert len(server.seen) == 1


def test_a_long_answer_is_cut(tmp_path: Path, server: HostileServer) -> None:
    """An answer that has no end does not make an effect unknown: its beginning tells that it was done."""
    with fetch_house(tmp_path, network=f"{LOOPBACK}\nmax_fetch_bytes = 1000") as house:
        performed = perform(house, post(f"http://ok.test:{server.port}/endless"))
    assert performed.state is EffectState.DONE
    assert performed.answer is not None
    assert performed.answer.total_bytes == 1000
    assert "only the beginning" in performed.summary


def test_nothing_sent_is_not_done(house: FetchHouse, server: HostileServer) -> None:
    """No connection, no TLS, another host by now or another request: not done, for certain."""
    with hostile_server() as gone:
        port = gone.port
    unreached = perform(house, post(f"http://ok.test:{port}/"))
    assert (unreached.state, unreached.fault and unreached.fault.reason) == (EffectState.NOT_DONE, "EFFECT_FAILED")
    assert unreached.fault is not None
    assert "it did not happen: no connection to" in unreached.fault.message
    assert "gonogo retry" in unreached.fault.remedy
    plain = post(f"https://ok.test:{server.port}/")
    assert perform(house, plain, max_duration_seconds=1).state is EffectState.NOT_DONE
    action = post(f"http://ok.test:{server.port}/echo")
    setting = house.setting(action, execution_id="e-1")
    declared = house.world.declare(action, setting)
    changed = house.world.perform(replace(action, content=b"more"), declared, setting, KEY)
    assert (changed.state, changed.fault and changed.fault.reason) == (EffectState.NOT_DONE, "PLAN_MISMATCH")
    narrowed = replace(setting, plan=replace(setting.plan, scope=replace(setting.plan.scope, domains=())))
    assert house.world.perform(action, declared, narrowed, KEY).state is EffectState.NOT_DONE
    assert not server.seen


def test_a_private_address_is_not_done(tmp_path: Path, server: HostileServer) -> None:
    """Without the operator's exception nothing is sent to loopback."""
    with fetch_house(tmp_path, network="") as house:
        performed = perform(house, post(f"http://ok.test:{server.port}/echo"))
    assert (performed.state, server.connections) == (EffectState.NOT_DONE, 0)
    assert performed.fault is not None
    assert performed.fault.reason == "NETWORK_REFUSED"


def test_stopped_while_it_waits(house: FetchHouse, server: HostileServer) -> None:
    """A stop after sending began leaves an effect that nobody knows, at once."""
    threading.Timer(0.7, house.base.cancel.request).start()
    began = time.monotonic()
    performed = perform(house, post(f"http://ok.test:{server.port}/silent"))
    assert performed.state is EffectState.UNKNOWN
    assert time.monotonic() - began < 5


def test_over_tls(tmp_path: Path) -> None:
    """A secret goes out over TLS that was verified."""
    made = authority(tmp_path)
    known = f'{LOOPBACK}\nca_file = "{made.ca_file}"'
    with hostile_server(tls=made.server("ok.test")) as server, fetch_house(tmp_path, network=known) as house:
        action = post(f"https://ok.test:{server.port}/echo", ("Authorization", "secret://token"))
        assert perform(house, action).fault is None
        assert server.seen[0].headers["authorization"] == TOKEN


@pytest.mark.sandbox
def test_sent_from_a_sandbox(tmp_path: Path, server: HostileServer) -> None:
    """The child in bubblewrap sends over the connection it was given."""
    with fetch_house(tmp_path, confined=True) as house:
        assert perform(house, post(f"http://ok.test:{server.port}/echo")).state is EffectState.DONE


def test_kinds_that_nobody_handles(house: FetchHouse) -> None:
    """A kind of step without a handler is blocked in a dry run and not done in an execution."""
    action = RunSql(database="d", statement="SELECT 1", parameters=())
    setting = house.setting(action)
    with pytest.raises(StepBlockedError, match="run_sql"):
        house.world.declare(action, setting)
    request = post("http://ok.test/")
    declared = house.world.declare(request, house.setting(request))
    assert house.world.perform(action, declared, setting, KEY).state is EffectState.NOT_DONE
