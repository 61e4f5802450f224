"""Reading pages from a server that means no good."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from executor.domain.errors import ExecutorError
from executor.domain.plan import FetchUrl
from executor.outside import worker
from executor.outside.installed import INSTALL
from executor.outside.worker import Confinement, View
from executor.runner.outside import Setting, kept
from gonogo.digests import digest
from tests.unit.executor.fetch_house import FetchHouse, fetch_house
from tests.unit.executor.hostile_server import PAGE, HostileServer, authority, hostile_server
from tests.unit.executor.outside_house import TOKEN


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


def refusal(house: FetchHouse, url: str, **how: object) -> ExecutorError:
    """What a fetch is refused with."""
    with pytest.raises(ExecutorError) as caught:
        house.fetch(url, **how)  # type: ignore[arg-type]  # as fetch takes them
    return caught.value


def test_a_page_is_kept_with_its_text(house: FetchHouse, server: HostileServer) -> None:
    """The body is kept by digest, the readable text by its own, and a preview shows the text."""
    found = house.fetch(f"http://ok.test:{server.port}/page?x=%20y", text=True)
    assert (found.url, found.fetched, found.status_code) == (f"http://ok.test:{server.port}/page?x=%20y", True, 200)
    assert (found.digest, found.size) == (digest(PAGE), len(PAGE))
    assert house.content(found.digest) == PAGE
    text = house.content(found.text_digest).decode()
    assert "tabby sleeps" in text
    assert "scripted" not in text
    assert found.preview is not None
    assert found.preview.head == text
    assert kept(found, house.batch)
    assert not kept(replace(found, digest=digest(b"another")), house.batch)


def test_what_the_server_is_told(house: FetchHouse, server: HostileServer) -> None:
    """The request names the host of the URL and the target as the plan wrote it, and says nothing of this machine."""
    house.fetch(f"http://ok.test:{server.port}/echo/../echo?q=a%2Fb")
    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("GET", "/echo/../echo?q=a%2Fb", b"")
    assert seen.headers == {
        "host": f"ok.test:{server.port}",
        "user-agent": "gonogo",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "connection": "close",
    }


def test_head_reads_no_body(house: FetchHouse, server: HostileServer) -> None:
    """HEAD tells status and kind, and nothing is kept."""
    found = house.fetch(f"http://ok.test:{server.port}/page", head=True)
    assert (found.status_code, found.content_type, found.digest) == (200, "text/html; charset=utf-8", "")
    assert server.seen[0].method == "HEAD"
    assert kept(found, house.batch)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("gzip", PAGE),
        ("members", b"one two"),
        ("deflate", b"deflated"),
        ("raw-deflate", b"deflated"),
        ("binary", bytes(range(256))),
        ("empty", b""),
        ("long", b"only"),
    ],
)
def test_bodies_are_decoded(house: FetchHouse, server: HostileServer, path: str, body: bytes) -> None:
    """What is kept is the body as it was before it was packed for the way, and no more than it said there is."""
    found = house.fetch(f"http://ok.test:{server.port}/{path}")
    assert house.content(found.digest) == body
    assert found.size == len(body)


def test_text_of_another_charset(house: FetchHouse, server: HostileServer) -> None:
    """The preview is read as the answer says, whatever its bytes are."""
    found = house.fetch(f"http://ok.test:{server.port}/latin")
    assert found.preview is not None
    assert found.preview.head == "Käse und Brötchen"
    assert house.fetch(f"http://ok.test:{server.port}/binary").preview is None


@pytest.mark.parametrize(
    "path",
    [
        *("cut-gzip", "no-gzip", "brotli", "twice", "short", "garbage", "nothing", "two-lengths", "negative"),
        *("header-flood", "status/404", "status/500", "status/304", "nowhere"),
    ],
)
def test_answers_that_are_none(house: FetchHouse, server: HostileServer, path: str) -> None:
    """A broken, cut or refusing answer fails the step, and nothing of it is kept."""
    error = refusal(house, f"http://ok.test:{server.port}/{path}")
    assert error.fault.reason == "FETCH_FAILED", error.fault
    assert not house.batch.small


@pytest.mark.parametrize("path", ["endless", "bomb", "informational"])
def test_answers_without_end(house: FetchHouse, server: HostileServer, path: str) -> None:
    """What grows beyond its limit, on the wire or unpacked, is dropped where the limit is, within moments."""
    began = time.monotonic()
    error = refusal(house, f"http://ok.test:{server.port}/{path}", most=100_000)
    assert error.fault.reason == "TOO_LARGE", error.fault
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["slow-body", "slow-headers", "silent"])
def test_answers_that_take_their_time(house: FetchHouse, server: HostileServer, path: str) -> None:
    """The step's time counts all of it: a byte now and then buys nothing."""
    began = time.monotonic()
    error = refusal(house, f"http://ok.test:{server.port}/{path}", max_duration_seconds=1)
    assert error.fault.reason == "FETCH_FAILED"
    assert time.monotonic() - began < 6


def test_stopping_it(house: FetchHouse, server: HostileServer) -> None:
    """A wish to end ends a fetch at once."""
    threading.Timer(0.5, house.base.cancel.request).start()
    began = time.monotonic()
    error = refusal(house, f"http://ok.test:{server.port}/slow-body")
    assert "stopped" in error.fault.message
    assert time.monotonic() - began < 5


def test_the_least_limit_holds(house: FetchHouse, server: HostileServer) -> None:
    """Of the step's, the scope's and the operator's limits the least one holds; exactly as much is no more."""
    url = f"http://ok.test:{server.port}/page"
    assert house.fetch(url, most=len(PAGE)).size == len(PAGE)
    assert refusal(house, url, most=len(PAGE) - 1).fault.reason == "TOO_LARGE"
    assert refusal(house, url, max_bytes=10).fault.reason == "TOO_LARGE"


def test_redirects_are_followed_and_told(house: FetchHouse, server: HostileServer) -> None:
    """Every address on the way is in the evidence; the last one is the page's."""
    last = f"http://a.ok.test:{server.port}/text"
    found = house.fetch(f"http://ok.test:{server.port}/redirect?{last}")
    assert (found.url, found.redirects) == (last, (last,))
    assert [seen.headers["host"] for seen in server.seen] == [
        f"{name}:{server.port}" for name in ("ok.test", "a.ok.test")
    ]


@pytest.mark.parametrize(
    "to",
    [
        *("http://evil.test/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://localhost/"),
        *(
            "http://127.1/",
            "http://0x7f000001/",
            "http://ok.test@evil.test/",
            "file:///etc/passwd",
            "gopher://ok.test/",
        ),
        *("//evil.test/", "http://ok.test%2eevil.test/", "http://ok.test\\@evil.test/", "http://ok.test:0/"),
    ],
)
def test_redirects_lead_nowhere_else(house: FetchHouse, server: HostileServer, to: str) -> None:
    """A redirect is looked at like the plan's own address: nothing is connected to that is not allowed."""
    where = f"http://ok.test:{server.port}/redirect?{quote(to)}"
    assert refusal(house, where).fault.reason == "NETWORK_REFUSED"
    assert server.connections == 1


def test_redirects_end(house: FetchHouse, server: HostileServer) -> None:
    """After five there is an end."""
    error = refusal(house, f"http://ok.test:{server.port}/loop")
    assert error.fault.reason == "FETCH_FAILED"
    assert "more than 5" in error.fault.message
    assert server.connections == 6


def test_hosts_that_are_not_named(house: FetchHouse, server: HostileServer) -> None:
    """What scope or trust file does not name is not even connected to."""
    assert refusal(house, f"http://evil.test:{server.port}/").fault.reason == "NETWORK_REFUSED"
    assert refusal(house, f"http://b.ok.test:{server.port}/", domains=("ok.test",)).fault.reason == "NETWORK_REFUSED"
    assert server.connections == 0


@pytest.mark.parametrize("host", ["ok.test", "127.0.0.1"])
def test_loopback_is_private(tmp_path: Path, server: HostileServer, host: str) -> None:
    """Without the operator's exception nothing on loopback is reached, neither by a name nor by its address."""
    with fetch_house(tmp_path, network="") as house:
        error = refusal(house, f"http://{host}:{server.port}/page")
    assert error.fault.reason == "NETWORK_REFUSED"
    assert "private_addresses" in error.fault.remedy
    assert server.connections == 0


def test_dry_runs_may_be_kept_from_reading(tmp_path: Path, server: HostileServer) -> None:
    """Where the operator wants no reads in dry runs nothing is asked then, and the execution reads."""
    network = 'fetch_in_dry_run = false\nprivate_addresses = ["127.0.0.0/8"]'
    with fetch_house(tmp_path, network=network) as house:
        url = f"http://ok.test:{server.port}/text"
        found = house.fetch(url)
        assert (found.url, found.fetched, server.connections) == (url, False, 0)
        assert not kept(found, house.batch)
        assert refusal(house, "http://evil.test/").fault.reason == "NETWORK_REFUSED"
        assert house.fetch(url, execution_id="e-1").fetched
        assert server.connections == 1


def test_more_pages_than_the_scope_has(house: FetchHouse, server: HostileServer) -> None:
    """A plan with more fetches than `max_pages` reads none."""
    action = FetchUrl(url=f"http://ok.test:{server.port}/text", head=False, extract_text=False, max_bytes=None)
    setting = _with_two_fetches(house.setting(action))
    with pytest.raises(ExecutorError, match="reads 2 pages") as caught:
        house.world.fetch(action, setting, house.batch)
    assert caught.value.fault.reason == "NETWORK_REFUSED"
    assert server.connections == 0


def test_a_secret_goes_nowhere(house: FetchHouse, server: HostileServer) -> None:
    """An address that holds a secret's value is refused before anything is sent."""
    error = refusal(house, f"http://ok.test:{server.port}/text?{TOKEN}")
    assert error.fault.reason == "SECRET_IN_PLAN"
    assert TOKEN not in error.fault.message + error.fault.remedy
    assert server.connections == 0


def test_nobody_listens(house: FetchHouse) -> None:
    """A refused connection is the far side's fault, in the system's words."""
    with hostile_server() as gone:
        port = gone.port
    error = refusal(house, f"http://ok.test:{port}/")
    assert error.fault.reason == "FETCH_FAILED"
    assert "refused" in error.fault.message


def test_certificates_are_verified(tmp_path: Path) -> None:
    """TLS is verified against the name, by the system's authorities or the operator's; nothing is sent without."""
    made = authority(tmp_path)
    known = f'private_addresses = ["127.0.0.0/8"]\nca_file = "{made.ca_file}"'
    with hostile_server(tls=made.server("ok.test")) as good, hostile_server(tls=made.server("ok.test", days=-1)) as old:
        with fetch_house(tmp_path, network=known) as house:
            assert house.fetch(f"https://ok.test:{good.port}/text").status_code == 200
            for url in (f"https://a.ok.test:{good.port}/text", f"https://ok.test:{old.port}/text"):
                error = refusal(house, url)
                assert error.fault.reason == "FETCH_FAILED"
                assert "certificate" in error.fault.message.lower(), error.fault
            plain = f"http://ok.test:{good.port}/text"
            assert refusal(house, f"https://ok.test:{good.port}/redirect?{plain}").fault.reason == "NETWORK_REFUSED"
        with fetch_house(tmp_path) as house:
            assert refusal(house, f"https://ok.test:{good.port}/text").fault.reason == "FETCH_FAILED"
        assert len(good.seen) == 2
        assert not old.seen


def test_plain_text_where_tls_should_be(house: FetchHouse, server: HostileServer) -> None:
    """A server that speaks no TLS gets nothing of the request."""
    error = refusal(house, f"https://ok.test:{server.port}/text", max_duration_seconds=1)
    assert error.fault.reason == "FETCH_FAILED"
    assert not any(seen.target for seen in server.seen)


def test_without_the_extra(house: FetchHouse, server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what reads pages is not installed the step is blocked, with what to install, and nobody is asked."""
    monkeypatch.setattr("executor.outside.exchange.find_spec", lambda _name: None)
    error = refusal(house, f"http://ok.test:{server.port}/text")
    assert (error.fault.reason, error.fault.remedy) == ("UNSUPPORTED", INSTALL)
    assert INSTALL.startswith("pip install gonogo[live]")
    assert server.connections == 0


def test_without_the_extra_a_dry_run_that_reads_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known before the approval, not in the execution; and before anybody lists hosts for nothing."""
    monkeypatch.setattr("executor.outside.exchange.find_spec", lambda _name: None)
    with fetch_house(tmp_path, network="fetch_in_dry_run = false") as house:
        assert refusal(house, "http://ok.test/text").fault.reason == "UNSUPPORTED"
        assert refusal(house, "http://not-listed.test/").fault.reason == "UNSUPPORTED"


@pytest.mark.sandbox
def test_in_a_sandbox(tmp_path: Path, server: HostileServer) -> None:
    """In bubblewrap the child has no network but the one connection, and reads as well."""
    with fetch_house(tmp_path, confined=True) as house:
        found = house.fetch(f"http://ok.test:{server.port}/page", text=True)
        assert found.text_digest
        assert refusal(house, f"http://ok.test:{server.port}/bomb").fault.reason == "TOO_LARGE"


@pytest.mark.sandbox
def test_what_the_child_reaches(tmp_path: Path, server: HostileServer) -> None:
    """In bubblewrap a child that was taken over finds no network and none of the executor's state."""
    code = f"""
import os, socket
print(os.path.exists({str(tmp_path / "state" / "token")!r}), os.path.exists("/etc/passwd"))
try:
    socket.create_connection(("127.0.0.1", {server.port}), 2)
except OSError:
    print("no network")
"""
    with fetch_house(tmp_path, confined=True) as house:
        before = house.base.confinement.arguments(View(offline=True))
        told = subprocess.run([*before, sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout.split("\n")[:2] == ["False True", "no network"]
    assert server.connections == 0


def _with_two_fetches(setting: Setting) -> Setting:
    (step,) = setting.plan.steps
    return replace(setting, plan=replace(setting.plan, steps=(step, replace(step, step_id="s2"))))


def test_a_child_sees_the_packages_wherever_they_were_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the images they lie beside the interpreter's own directories; a directory that holds none is not shown."""
    (tmp_path / "packages/httpx-1.dist-info").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path / "packages"), str(tmp_path / "other")])
    worker._code.cache_clear()
    words = Confinement(launcher="bwrap", covered=()).arguments(View())
    worker._code.cache_clear()
    assert (str(tmp_path / "packages") in words, str(tmp_path / "other") in words) == (True, False)
