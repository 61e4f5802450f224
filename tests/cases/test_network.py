"""There is no network: not for commands, whatever kind of socket they try, and not for plans that ask for one."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from client.planfile import parse
from executor.domain.errors import RequestMalformedError
from gonogo.v1 import plan_pb2
from tests.cases.case import case
from tests.cases.case_house import SUCCESS, CaseHouse, command, python, shell

pytestmark = pytest.mark.sandbox
DENIED = [
    "EPERM",
    "EACCES",
    "ENOSYS",
    "EAFNOSUPPORT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "EINVAL",
    "ENODEV",
    "killed",
]
UNREACHABLE = ["ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL", "ENOENT"]

# Each line inside: the name of a trial, and what came of it.
TRIALS = """
import errno, os, socket
def trial(name, work):
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(name, 'killed' if code < 0 else 'open' if code == 255 else errno.errorcode.get(code, code), sep='|')
        return
    try: work()
    except socket.gaierror: os._exit(errno.ENETUNREACH)
    except TimeoutError: os._exit(errno.EHOSTUNREACH)
    except OSError as error: os._exit(error.errno)
    os._exit(255)
def connect(family, kind, address, proto=0):
    one = socket.socket(family, kind, proto)
    one.settimeout(2)
    one.connect(address)
    one.send(b'x')
"""


def tried(house: CaseHouse, trials: dict[str, str]) -> dict[str, str]:
    """What came of some network calls made inside."""
    script = TRIALS + "\n".join(f"trial({name!r}, lambda: {work})" for name, work in trials.items())
    said = house.worked(python(script)).said()
    return dict(line.split("|") for line in said.splitlines())


@pytest.fixture
def servers(house: CaseHouse) -> Iterator[dict[str, object]]:
    """Servers of this machine that nobody inside may reach: TCP over both families, UDP, abstract and named sockets."""
    with ExitStack() as opened:
        tcp = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = opened.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0gonogo-case-{tcp.getsockname()[1]}")
        abstract.listen()
        for place in (house.site, house.outside):
            named = opened.enter_context(socket.socket(socket.AF_UNIX))
            named.bind(str(place / "s"))
            named.listen()
        found: dict[str, object] = {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1]}
        found["abstract"] = abstract.getsockname()
        if socket.has_ipv6:
            six = opened.enter_context(socket.socket(socket.AF_INET6))
            six.bind(("::1", 0))
            six.listen()
            found["tcp6"] = six.getsockname()[1]
        yield found


@case("S58")
def test_no_socket_reaches_anything(house: CaseHouse, servers: dict[str, object]) -> None:
    """TCP, UDP, IPv6, DNS, link-local metadata, abstract sockets, and raw, packet, netlink and vsock families."""
    stream, datagram = "socket.SOCK_STREAM", "socket.SOCK_DGRAM"
    answers = tried(
        house,
        {
            "loopback of the host": f"connect(socket.AF_INET, {stream}, ('127.0.0.1', {servers['tcp']}))",
            "udp of the host": f"connect(socket.AF_INET, {datagram}, ('127.0.0.1', {servers['udp']})) or os._exit(111)",
            "ipv6 loopback of the host": f"connect(socket.AF_INET6, {stream}, ('::1', {servers.get('tcp6', 9)}))",
            "direct": f"connect(socket.AF_INET, {stream}, ('1.1.1.1', 443))",
            "direct udp": f"connect(socket.AF_INET, {datagram}, ('1.1.1.1', 53))",
            "direct ipv6": f"connect(socket.AF_INET6, {stream}, ('2606:4700:4700::1111', 443))",
            "metadata service": f"connect(socket.AF_INET, {stream}, ('169.254.169.254', 80))",
            "dns": "socket.getaddrinfo('example.com', 80)",
            "abstract": f"connect(socket.AF_UNIX, {stream}, {servers['abstract']!r})",
            "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
            "raw ipv6": "socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)",
            "ping": "connect(socket.AF_INET, socket.SOCK_DGRAM, ('1.1.1.1', 0), 1)",
            "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)",
            "vsock": "socket.socket(40, socket.SOCK_STREAM)",
            "vsock to the host": "connect(40, socket.SOCK_STREAM, (2, 22))",
            "netlink route": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
            "netlink audit": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
            "netlink netfilter": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)",
            "netlink generic": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)",
            "alg": "socket.socket(38, socket.SOCK_SEQPACKET)",
            "bluetooth": "socket.socket(31, socket.SOCK_RAW, 1)",
            "tipc": "socket.socket(30, socket.SOCK_STREAM)",
            "rds": "socket.socket(21, socket.SOCK_SEQPACKET)",
            "xdp": "socket.socket(44, socket.SOCK_RAW)",
            "can": "socket.socket(29, socket.SOCK_RAW, 1)",
            "qipcrtr": "socket.socket(42, socket.SOCK_DGRAM)",
            "smc": "socket.socket(43, socket.SOCK_STREAM)",
            "kcm": "socket.socket(41, socket.SOCK_DGRAM)",
        },
    )
    assert len(answers) == 28
    del answers[
        "netlink route"
    ]  # of a network namespace that has a loopback and nothing else; the C library asks there
    assert {name: said for name, said in answers.items() if said not in {*DENIED, *UNREACHABLE}} == {}
    by_filter = {
        "raw",
        "raw ipv6",
        "packet",
        "vsock",
        "vsock to the host",
        "netlink audit",
        "netlink netfilter",
        "alg",
        "xdp",
    }
    assert {name: answers[name] for name in by_filter if answers[name] not in DENIED} == {}


@case("S58", "X30")
def test_a_socket_that_lies_in_the_workspace_leads_nowhere(house: CaseHouse, servers: dict[str, object]) -> None:
    """A server's named socket inside the workspace is not the server inside the sandbox; nor is one outside seen."""
    answers = tried(
        house,
        {
            "inside": "connect(socket.AF_UNIX, socket.SOCK_STREAM, 's')",
            "outside": f"connect(socket.AF_UNIX, socket.SOCK_STREAM, {str(house.outside / 's')!r})",
        },
    )
    assert set(answers.values()) <= {*DENIED, *UNREACHABLE}


@case("X30")
def test_a_fifo_that_lies_in_the_workspace_is_another_one_inside(house: CaseHouse) -> None:
    """What a command writes into a FIFO of the workspace does not reach a reader on the machine."""
    import os
    import select

    os.mkfifo(house.site / "pipe")
    reader = os.open(house.site / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    house.tried(shell("timeout 1 sh -c 'echo leaked > pipe'; true"))
    ready, _, _ = select.select([reader], [], [], 0.1)
    assert not ready or os.read(reader, 100) == b""
    os.close(reader)


@case("S58")
def test_only_an_own_loopback_is_there(house: CaseHouse) -> None:
    """One interface, no route, no neighbour, and no resolver configuration of the machine."""
    said = house.worked(
        shell(
            "ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route; "
            "cat /etc/resolv.conf 2>/dev/null; true"
        )
    ).said()
    assert said.split() == ["lo"]


@case("S58")
def test_programs_inside_can_still_talk_to_each_other(house: CaseHouse) -> None:
    """A test server on the sandbox's own loopback, and socket pairs, are ordinary tools of tests."""
    script = """
import socket, threading
server = socket.create_server(('127.0.0.1', 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b'hi')).start()
print(socket.create_connection(server.getsockname()).recv(9), len(socket.socketpair()))
"""
    assert house.worked(python(script)).said() == "b'hi' 2\n"


LISTED = plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS
REBOUND = ["rebound.example", "127.0.0.1", "169.254.169.254", "[::1]", "localhost"]


@case("S60")
@pytest.mark.parametrize("host", REBOUND)
def test_a_host_that_the_operator_does_not_list_is_refused_before_it_is_resolved(house: CaseHouse, host: str) -> None:
    """A plan's own list opens nothing: whatever a name resolves to, first or later, nobody asks."""
    domain = host.strip("[]")
    for step in (
        plan_pb2.Step(fetch_url=plan_pb2.FetchUrl(url=f"http://{host}/")),
        plan_pb2.Step(http_request=plan_pb2.HttpRequest(method="POST", url=f"http://{host}/")),
    ):
        assert house.why_not(step, scope=plan_pb2.Scope(network=LISTED, domains=[domain])) == "NETWORK_REFUSED"
        assert house.why_not(step, scope=plan_pb2.Scope(network=LISTED, domains=["other.example"])) == "NETWORK_REFUSED"


@case("S60", "S62")
@pytest.mark.parametrize(
    "url", ["https://user:password@a.example/", "file:///etc/passwd", "gopher://x", "http://a.example#@b.example/"]
)
def test_an_address_that_could_mean_another_host_is_no_address(house: CaseHouse, url: str) -> None:
    """With credentials, another scheme or a fragment it is refused as it stands, before anything is asked."""
    scope = plan_pb2.Scope(network=LISTED, domains=["a.example", "b.example"])
    for step in (
        plan_pb2.Step(fetch_url=plan_pb2.FetchUrl(url=url)),
        plan_pb2.Step(http_request=plan_pb2.HttpRequest(method="POST", url=url)),
    ):
        assert house.why_not(step, scope=scope) in {"PLAN_INVALID", "SECRET_IN_PLAN"}


@case("S62")
def test_a_redirect_leads_nowhere_in_the_sandbox(house: CaseHouse, servers: dict[str, object]) -> None:
    """Programs that follow redirects and carry credentials get no connection at all, by name or by address."""
    script = f"""
import urllib.request
for place in ('127.0.0.1:{servers["tcp"]}', 'a.example', 'localhost:{servers["tcp"]}'):
    try: urllib.request.urlopen('http://user:password@' + place + '/redirect', timeout=2); print('open')
    except OSError: print('closed')
    except Exception as error: print(type(error).__name__)
"""
    assert set(house.worked(python(script)).said().split()) <= {"closed", "InvalidURL"}


@case("S64")
def test_an_empty_and_a_missing_list_of_domains_both_deny(house: CaseHouse) -> None:
    """An empty list is no wildcard: with the network asked for it is refused, without one there is none."""
    with pytest.raises(RequestMalformedError) as caught:
        house.tried(command("true"), scope=plan_pb2.Scope(network=LISTED, domains=[]))
    assert caught.value.fault.reason == "PLAN_INVALID"
    for network in (plan_pb2.NETWORK_ACCESS_NONE, plan_pb2.NETWORK_ACCESS_UNSPECIFIED):
        plan = house.plan(python("import socket; socket.create_connection(('1.1.1.1', 53), 2)"))
        plan.scope.network = network
        assert "Network is unreachable" in house.dry_run(plan).complaint


@case("S64")
@pytest.mark.parametrize("scope", [{}, {"network": "none"}, {"network": "none", "domains": []}, {"domains": []}])
def test_a_plan_file_without_domains_has_no_network(scope: dict[str, object]) -> None:
    """However the absence is written down, no network comes of it."""
    import json

    draft = parse(
        json.dumps(
            {"objective": "o", "workspace": "w", "scope": scope, "steps": [{"read_file": {"path": "a"}}]}
        ).encode()
    )
    assert draft.scope.network in {plan_pb2.NETWORK_ACCESS_NONE, plan_pb2.NETWORK_ACCESS_UNSPECIFIED}
    assert list(draft.scope.domains) == []


@case("X31")
def test_proxies_of_the_executors_environment_are_not_inherited(tmp_path: Path) -> None:
    """Proxy settings and secrets of the executor's own process are no variables inside."""
    program = (
        "import sys; from pathlib import Path; from tests.cases.case_house import *\n"
        "with case_house(Path(sys.argv[1])) as house: print(house.worked(shell('env')).said())"
    )
    import os

    secrets = {
        "http_proxy": "http://proxy.example:1",
        "AWS_SECRET_ACCESS_KEY": "TOP-SECRET",
        "SSH_AUTH_SOCK": "/tmp/agent",
    }
    environment = {**os.environ, **secrets, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    names = {line.split("=")[0] for line in done.stdout.splitlines() if line}
    assert names == {"PATH", "HOME", "LANG", "TERM", "PWD"} | ({"SHLVL", "_", "OLDPWD"} & names)
    assert SUCCESS
