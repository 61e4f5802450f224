"""The proxy of sandboxed commands: real programs in a real sandbox, a real server outside of it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from executor.domain.cancel import Cancel
from executor.outside.addresses import Pinned, Url, check_named, pin
from executor.outside.proxy import Proxy, ProxyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.gateway import PORT
from executor.sandbox.sandbox import CommandResult, CommandSpec, SandboxSession, SessionRequest
from tests.conformance.sandbox_commands import LIMITS, said
from tests.unit.executor.network_house import HOSTS, a_scope, a_trust, server

__all__ = ["server"]  # the fixture


def lookup(host: str, _port: int) -> Sequence[str]:
    if host not in HOSTS:
        raise OSError("no such name")
    return (HOSTS[host],)


def a_proxy(port: int, *, limits: ProxyLimits | None = None) -> Proxy:
    trust = a_trust(domains=("listed.test", "inner.test", "gone.test"), private=("127.0.0.1/32",))
    scope = a_scope(("listed.test", "inner.test", "gone.test"))

    def reach(url: Url, cancel: Cancel) -> Pinned:
        check_named(url, scope, trust)
        return pin(url, trust.network.private_addresses, lookup=lookup, cancel=cancel)

    return Proxy(reach, limits=limits or ProxyLimits(), ports=frozenset((80, 443, port)))


@contextlib.contextmanager
def served(proxy: Proxy) -> Iterator[tuple[str, int]]:
    """The proxy on a port of this machine, as if it were the sandbox's."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with proxy.serve(listener):
        yield address


def asked(address: tuple[str, int], request: bytes) -> bytes:
    """What the proxy answers, to its end."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                answer += chunk
    return answer


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxSession]:
    root = tmp_path_factory.mktemp("ws")
    root.chmod(0o755)
    request = SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)
    with Bubblewrap.on_this_machine().open(request) as session:
        yield session


def run(session: SandboxSession, proxy: Proxy | None, *argv: str) -> CommandResult:
    return session.run(CommandSpec(argv=argv, timeout_seconds=20, gateway=proxy))


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


PYTHON_GET: Final = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.mark.sandbox
class TestInTheSandbox:
    def test_a_listed_host_is_reached_by_curl_and_python(self, session: SandboxSession, server: int) -> None:
        """Programs find the proxy by their variables; a plain request and a tunnel both come through."""
        proxy = a_proxy(server)
        url = f"http://listed.test:{server}/page?x=1"
        by_curl = run(session, proxy, "curl", "-sS", url)
        assert said(by_curl) == f"GET /page?x=1 listed.test:{server}\n"
        tunnelled = run(session, proxy, "curl", "-sS", "--proxytunnel", url)
        assert said(tunnelled) == f"GET /page?x=1 listed.test:{server}\n"
        by_python = run(session, proxy, "/usr/bin/python3", "-c", PYTHON_GET, url)
        assert f"GET /page?x=1 listed.test:{server}\n" in said(by_python)
        posted = run(session, proxy, "curl", "-sS", "-d", "a=b", url)
        assert said(posted) == "a=b"
        (line,) = proxy.diary.lines()
        assert line.startswith(f"reached listed.test:{server}: 4 connections, ")

    def test_there_is_no_other_way(self, session: SandboxSession, server: int) -> None:
        """Neither the machine's loopback nor any address has a route; without a gateway not even the port is there."""
        proxy = a_proxy(server)
        assert run(session, proxy, "curl", "-sS", "--noproxy", "*", f"http://127.0.0.1:{server}/").exit_code == 7
        assert run(session, proxy, "curl", "-sS", "--noproxy", "*", "http://192.0.2.1/").exit_code == 7
        refused = run(session, None, "curl", "-sS", "-x", f"http://127.0.0.1:{PORT}", f"http://listed.test:{server}/")
        assert refused.exit_code == 7
        assert proxy.diary.lines() == ()

    def test_what_is_not_listed_is_refused_and_told(self, session: SandboxSession, server: int) -> None:
        """The program sees 403 and the reason, the report a line."""
        proxy = a_proxy(server)
        shown = run(session, proxy, "curl", "-s", f"http://unlisted.test:{server}/")
        assert "does not name unlisted.test" in said(shown)
        tunnel = run(session, proxy, "curl", "-sS", "https://unlisted.test/")
        assert (tunnel.exit_code, "403" in said(tunnel)) == (56, True)
        (line,) = proxy.diary.lines()
        assert line.startswith("refused, 2 times: the plan's scope does not name unlisted.test")

    def test_it_ends_with_the_command(self, session: SandboxSession, server: int) -> None:
        """No thread, connection or descriptor is left, also where the command ends in the middle of a tunnel."""
        before = held()
        hold = f"curl -s --proxytunnel -T - http://listed.test:{server}/ & sleep 0.3; exit 3"
        assert run(session, a_proxy(server), "/bin/sh", "-c", hold).exit_code == 3
        time.sleep(0.2)
        assert held() == before

    def test_a_later_command_without_one_has_no_network(self, session: SandboxSession, server: int) -> None:
        """The port belongs to one command's own namespace."""
        run(session, a_proxy(server), "true")
        assert run(session, None, "/bin/sh", "-c", "env | grep -i proxy").exit_code == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("CONNECT 127.0.0.1:443 HTTP/1.1", "an address, not a name"),
        ("CONNECT [::1]:443 HTTP/1.1", "an address, not a name"),
        ("CONNECT 0x7f000001:443 HTTP/1.1", "no name of a host"),
        ("CONNECT 2130706433:443 HTTP/1.1", "no name of a host"),
        ("CONNECT listed.test:22 HTTP/1.1", "is not at port"),
        ("CONNECT listed.test HTTP/1.1", "names no host with a port"),
        ("CONNECT listed.test@evil.test:443 HTTP/1.1", "names no host with a port"),
        ("CONNECT evil.test\x00.listed.test:443 HTTP/1.1", "no request to a proxy"),
        ("CONNECT evil.test#.listed.test:443 HTTP/1.1", "names no host with a port"),
        ("CONNECT evil.test:443 HTTP/1.1", "does not name evil.test"),
        ("CONNECT sub.listed.test:443 HTTP/1.1", "does not name sub.listed.test"),
        ("CONNECT inner.test:443 HTTP/1.1", "not a public one"),
        ("GET http://user:pw@listed.test/ HTTP/1.1", "more than a host and a port"),
        ("GET http://listed.test\\@evil.test/ HTTP/1.1", "can not be reached"),
        ("GET /relative HTTP/1.1", "no whole http:// address"),
        ("GET https://listed.test/ HTTP/1.1", "no whole http:// address"),
        ("get http://listed.test/ HTTP/1.1", "no request to a proxy"),
        ("GET  http://listed.test/ HTTP/1.1", "no request to a proxy"),
        ("GET http://listed.test/ HTTP/2", "no request to a proxy"),
        ("GET http://listed.test/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", "no clear Content-Length"),
        ("POST http://listed.test/ HTTP/1.1\r\nTransfer-Encoding: chunked", "unknown length"),
        ("GET http://listed.test/ HTTP/1.1\r\n folded: x", "malformed header"),
        ("GET http://listed.test/ HTTP/1.1\nX: y", "no request to a proxy"),
    ],
)
def test_a_request_that_is_not_clear_is_refused(line: str, why: str) -> None:
    """Nothing is sent anywhere; the answer is 403 with the reason, and the reason is written down."""
    proxy = a_proxy(1)
    with served(proxy) as address:
        answer = asked(address, line.encode("latin-1") + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert why in answer.decode()
    (line,) = proxy.diary.lines()
    assert why in line or "refused, 1 times" in line


def test_spelling_of_a_name_does_not_matter(server: int) -> None:
    """Capitals and the dot at the end are the same host, and that is what the server is told."""
    with served(a_proxy(server)) as address:
        answer = asked(address, f"GET http://LISTED.test.:{server}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode())
    assert answer.endswith(f"GET / listed.test:{server}\n".encode())


def test_nothing_follows_a_request(server: int) -> None:
    """A second request on the connection does not reach the server of the first."""
    one = f"GET http://listed.test:{server}/one HTTP/1.1\r\n\r\n"
    two = f"GET http://listed.test:{server}/two HTTP/1.1\r\nHost: other.test\r\n\r\n"
    with served(a_proxy(server)) as address:
        answer = asked(address, (one + two).encode())
    assert (answer.count(b"HTTP/1.1 200"), b"/two" in answer) == (1, False)


def test_a_host_that_does_not_answer_is_told_as_such() -> None:
    """No name, or nobody at the port: 502, and a line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = a_proxy(port)
    with served(proxy) as address:
        assert asked(address, b"CONNECT gone.test:443 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 502")
        assert asked(address, f"CONNECT listed.test:{port} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 502")
    assert len(proxy.diary.lines()) == 2


def test_limits_hold(server: int) -> None:
    """More bytes than a run may carry end the connection and all later ones; so do more connections."""
    proxy = a_proxy(server, limits=ProxyLimits(bytes_carried=300, connections=3))
    request = f"POST http://listed.test:{server}/ HTTP/1.1\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 1000
    with served(proxy) as address:
        asked(address, request)
        assert b"the most" in asked(address, request)
        asked(address, request)
        assert asked(address, request) == b""
    assert any("more connections than" in line for line in proxy.diary.lines())


def test_a_slow_head_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not say what they want in time is refused."""
    monkeypatch.setattr("executor.outside.proxy_request._HEAD_SECONDS", 0.2)
    with served(a_proxy(1)) as address:
        assert b"too slowly" in asked(address, b"CONNECT listed.test:443")


def test_both_ways_are_carried_at_once(server: int) -> None:
    """A tunnel whose ends both send much and read late does not stand still."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = far.getsockname()[1]
        much = b"m" * (8 << 20)

        def answer() -> None:
            connection, _ = far.accept()
            with connection:
                sending = threading.Thread(target=connection.sendall, args=(much,))
                sending.start()
                received = sum(len(chunk) for chunk in iter(partial(connection.recv, 65536), b""))
                sending.join()
                results.append(received)

        results: list[int] = []
        thread = threading.Thread(target=answer)
        thread.start()
        with served(a_proxy(port)) as address, socket.create_connection(address, timeout=20) as client:
            client.sendall(f"CONNECT listed.test:{port} HTTP/1.1\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):  # what follows is the tunnel's
                head += client.recv(1)
            assert head.startswith(b"HTTP/1.1 200")
            client.sendall(much)
            client.shutdown(socket.SHUT_WR)
            received = sum(len(chunk) for chunk in iter(partial(client.recv, 65536), b""))
            thread.join()
    assert (received, results) == (len(much), [len(much)])
