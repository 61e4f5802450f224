"""From the text of a URL to addresses: every known way to make one mean two things."""

import ipaddress
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from executor.domain.cancel import Cancel
from executor.domain.errors import StepFailedError
from executor.domain.hosts import HostError, allows, canonical_host, canonical_pattern
from executor.domain.plan import NetworkAccess
from executor.outside import addresses
from executor.outside.addresses import NetworkRefusedError, Url, check_named, parse_url, pin, redirected
from tests.unit.executor.network_house import a_scope, a_trust

LOOPBACK = ("127.0.0.0/8", "::1/128")


def url(host: str, *, scheme: str = "http", port: int = 80, target: str = "/") -> Url:
    """A URL of which only what matters is said."""
    return Url(scheme=scheme, host=host, port=port, target=target)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org.", "example.org"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("a_b.example", "a_b.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::FFFF:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_hosts_have_one_form(text: str, host: str) -> None:
    """Case, a dot at the end, other scripts and long addresses all come to the form that is compared."""
    assert canonical_host(text) == host.replace("::ffff:127.0.0.1", ipaddress.IPv6Address("::ffff:7f00:1").compressed)
    assert canonical_host(canonical_host(text)) == canonical_host(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".example.org", "example.org..", "-a.example", "a-.example", "a b.example"),
        *("0x7f000001", "0x7f.1", "127.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "1.2.3.4.5"),
        *("256.0.0.1", "example.1", "example.0x", "127.0.0.1..", "999"),
        *(
            "example。org",
            "example\uff0eorg",
            "example｡org",
            "\uff45xample.org",
            "\uff11\uff12\uff17.0.0.1",
            "127.0.0.\uff11",
            "\u2460.example",
        ),
        *("straße.example", "ς.example", "a\u200db.example", "a\u00adb.example", "e\u0301.example"),
        *("fe80::1%eth0", "::1%1", ":::1", "1:2", "[::1]", "a:b"),
        *("a%2e.example", "a/b", "a@b", "a\\b", "a\nb", "a\0b", "*.example.org", "a" * 64, "a." * 130),
    ],
)
def test_what_is_no_host(text: str) -> None:
    """Numbers that some take for an address, dots of other scripts, and letters with two spellings are refused."""
    with pytest.raises(HostError):
        canonical_host(text)


@pytest.mark.parametrize(
    ("pattern", "host", "named"),
    [
        ("example.org", "example.org", True),
        ("EXAMPLE.ORG.", "example.org", True),
        ("example.org", "www.example.org", False),
        ("example.org", "example.org.evil.test", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*.münchen.example", "a.xn--mnchen-3ya.example", True),
        ("*", "example.org", False),
        ("*.", "example.org", False),
        ("**.example.org", "a.example.org", False),
        ("a.*.example.org", "a.b.example.org", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("*.0.0.1", "127.0.0.1", False),
        ("::1", "::1", True),
        ("", "example.org", False),
    ],
)
def test_patterns(pattern: str, host: str, named: bool) -> None:
    """A name means itself, `*.` all names below it, and what can not be read means nothing."""
    assert allows([pattern], host) is named


@pytest.mark.parametrize("text", ["*", "*.", "*.127.0.0.1", "a.*.b", "http://example.org", "example.org:80"])
def test_what_is_no_pattern(text: str) -> None:
    """A list's entry is a name, or `*.` and one."""
    with pytest.raises(HostError):
        canonical_pattern(text)


@pytest.mark.parametrize(
    ("text", "parsed", "written"),
    [
        ("http://ok.test", url("ok.test"), "http://ok.test/"),
        ("HTTP://OK.test:80/", url("ok.test"), "http://ok.test/"),
        ("https://ok.test/a?b=%20#"[:-1], url("ok.test", scheme="https", port=443, target="/a?b=%20"), None),
        ("https://ok.test:8443?q", url("ok.test", scheme="https", port=8443, target="/?q"), "https://ok.test:8443/?q"),
        ("http://[::1]:8080/x", url("::1", port=8080, target="/x"), None),
        ("http://ok.test./", url("ok.test"), "http://ok.test/"),
        ("http://ok.test/a/../b//c", url("ok.test", target="/a/../b//c"), None),
    ],
)
def test_urls(text: str, parsed: Url, written: str | None) -> None:
    """A URL is taken apart once; what is sent is the very text behind the host."""
    assert parse_url(text) == parsed
    assert str(parsed) == (written or text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "ok.test", "//ok.test", "ftp://ok.test", "file:///etc/passwd", "http:ok.test", "http:///x", "http://"),
        *("javascript://ok.test", "http://ok.test@evil.test/", "http://ok.test:80@evil.test/", "http://@ok.test/"),
        *("http://a:b@ok.test/", "http://ok.test%40evil.test/", "http://%6fk.test/", "http://ok.test%00.evil.test/"),
        *("http://ok.test:0/", "http://ok.test:/", "http://ok.test:080/", "http://ok.test:65536/", "http://ok.test:x/"),
        *("http://ok.test:80:90/", "http://ok.test:-1/", "http://ok.test:٨٠/", "http://0x7f000001/", "http://127.1/"),
        *("http://2130706433/", "http://0/", "http://[::1", "http://::1/", "http://[127.0.0.1]/", "http://[ok.test]/"),
        *("http://[fe80::1%25eth0]/", "http://[::1]x/", "http://ok.test\\@evil.test/", "http://ok.test\\evil.test/"),
        *("http://ok.test/ x", "http://ok.test/\r\nHost: evil.test", "http://ok.test/\t", "http://ok.test/\0"),
        *(
            "http://ok.test/#x",
            "http://ok.test#@evil.test/",
            "http://ok.test/%",
            "http://ok.test/%zz",
            "http://ok.test/ü",
        ),
        *(" http://ok.test/", "http://ok.test/ ", "http://ok.test/[x]", "http://ok.test/<x>", 'http://ok.test/"'),
        *("http://ok。test/", "http://ⓞk.test/", "http://ok.test/" + "a" * 9000, "http://ok.test\n/"),
    ],
)
def test_what_is_no_url(text: str) -> None:
    """Whatever two programs could read differently is refused, before anything is looked up."""
    with pytest.raises(NetworkRefusedError):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        *((one, True) for one in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")),
        *((one, False) for one in ("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1")),
        *(
            (one, False)
            for one in ("169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "168.63.129.16")
        ),
        *(
            (one, False)
            for one in ("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1", "198.51.100.1")
        ),
        *((one, False) for one in ("::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1")),
        *((one, False) for one in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1")),
        *((one, False) for one in ("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::")),
        *((one, False) for one in ("2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::8.8.8.8")),
        *((one, False) for one in ("2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:a00:1", "3fff::1", "5f00::1")),
        *((one, False) for one in ("100::1", "2001:2::1", "2001:10::1", "2001:20::1")),
    ],
)
def test_only_public_addresses(text: str, allowed: bool) -> None:
    """An address is public only where every address that is wrapped in it is, too."""
    assert addresses.is_reachable(ipaddress.ip_address(text), ()) is allowed


@pytest.mark.parametrize("text", ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "::1"])
def test_the_operators_networks(text: str) -> None:
    """What the operator wrote out is allowed beside the public addresses, wrapped or not, and nothing else is."""
    allowed = [ipaddress.ip_network(one) for one in LOOPBACK]
    assert addresses.is_reachable(ipaddress.ip_address(text), allowed)
    assert not addresses.is_reachable(ipaddress.ip_address("10.0.0.1"), allowed)


def test_one_bad_address_is_enough() -> None:
    """A host with one public and one private address is refused as a whole."""
    with pytest.raises(NetworkRefusedError, match=r"10\.0\.0\.1"):
        pin(url("ok.test"), (), lookup=lambda _host, _port: ["8.8.8.8", "10.0.0.1"])


def test_a_host_is_looked_up_once() -> None:
    """What comes back the first time is all that is ever connected to."""
    answers = iter([["8.8.8.8", "8.8.8.8", "2606:4700::1"], ["127.0.0.1"]])
    pinned = pin(url("ok.test"), (), lookup=lambda _host, _port: next(answers))
    assert pinned.addresses == ("8.8.8.8", "2606:4700::1")


def test_an_address_is_not_looked_up() -> None:
    """Where the plan names an address nobody is asked, and it still has to be a public one."""
    assert pin(url("8.8.8.8"), (), lookup=_unexpected).addresses == ("8.8.8.8",)
    with pytest.raises(NetworkRefusedError):
        pin(url("127.0.0.1"), (), lookup=_unexpected)


@pytest.mark.parametrize("found", [[], ["8.8.8.8"] * 0, [f"8.8.{n}.8" for n in range(65)]])
def test_no_answer_and_far_too_many(found: list[str]) -> None:
    """A host without an address, or with more than anybody has, is not reached."""
    with pytest.raises(StepFailedError) as caught:
        pin(url("ok.test"), (), lookup=lambda _host, _port: found)
    assert caught.value.fault.reason == "FETCH_FAILED"


def test_an_answer_that_is_no_address() -> None:
    """Whatever the system answers is an address, or it is refused."""
    with pytest.raises(NetworkRefusedError):
        pin(url("ok.test"), (), lookup=lambda _host, _port: ["localhost"])


def test_a_name_that_is_not_there() -> None:
    """The system's own words stand in the error."""

    def nothing(_host: str, _port: int) -> Iterable[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(StepFailedError, match="Name or service not known"):
        pin(url("ok.test"), (), lookup=nothing)


def test_a_slow_name_server() -> None:
    """Nobody waits for a name server longer than the step may take, or than somebody wishes."""
    waiting, cancel = threading.Event(), Cancel()

    def slow(_host: str, _port: int) -> Iterable[str]:
        waiting.wait(20)
        return ["8.8.8.8"]

    began = time.monotonic()
    with pytest.raises(StepFailedError, match="in time"):
        pin(url("ok.test"), (), lookup=slow, seconds=0.1)
    cancel.request()
    with pytest.raises(StepFailedError, match="stopped"):
        pin(url("ok.test"), (), lookup=slow, cancel=cancel)
    assert time.monotonic() - began < 5
    waiting.set()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b", "https://ok.test/b"),
        ("b?c", "https://ok.test/x/b?c"),
        ("//other.test/b", "https://other.test/b"),
        ("https://other.test:8443/b#part", "https://other.test:8443/b"),
        ("/a b/ü", "https://ok.test/a%20b/%C3%BC"),
        (" /b", "https://ok.test/b"),
    ],
)
def test_redirects(location: str, expected: str) -> None:
    """A redirect is read relative to where it came from; blanks and other letters are encoded, as everybody does."""
    assert str(redirected(parse_url("https://ok.test/x/y"), location)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://ok.test/",
        "ftp://ok.test/",
        "https://a@evil.test/",
        "https://127.1/",
        "https://[::1",
        "javascript:x",
    ],
)
def test_refused_redirects(location: str) -> None:
    """A redirect never leaves encryption, and is no way around the grammar."""
    with pytest.raises(NetworkRefusedError):
        redirected(parse_url("https://ok.test/"), location)


def test_scope_and_trust_file_both_name_the_host() -> None:
    """A host has to stand in the plan's scope and in the trust file; where one does not name it, that one is told."""
    scope, trust = a_scope(("*.ok.test",)), a_trust(domains=("a.ok.test",))
    check_named(url("a.ok.test"), scope, trust)
    with pytest.raises(NetworkRefusedError, match="trust file"):
        check_named(url("b.ok.test"), scope, trust)
    with pytest.raises(NetworkRefusedError, match="scope"):
        check_named(url("evil.test"), scope, a_trust(domains=("evil.test",)))
    with pytest.raises(NetworkRefusedError, match="no network"):
        check_named(url("a.ok.test"), replace(scope, network=NetworkAccess.NONE), trust)


def _unexpected(_host: str, _port: int) -> Iterable[str]:
    raise AssertionError("nothing had to be looked up")
