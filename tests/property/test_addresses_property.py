"""URLs and addresses, whatever they are made of."""

import ipaddress
import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from executor.domain.hosts import HostError, allows, canonical_host
from executor.outside.addresses import NetworkRefusedError, is_reachable, parse_url

PIECES = st.sampled_from(
    [
        *(
            "http://",
            "https://",
            "HTTP://",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "#",
            "?",
            "%",
            "%00",
            "%2e",
            "%40",
            "[",
            "]",
            ".",
        ),
        *("ok.test", "OK.TEST.", "evil.test", "127.0.0.1", "127.1", "0x7f000001", "::1", "[::1]", "[::ffff:127.0.0.1]"),
        *(":80", ":0", ":65536", "。", "\uff0e", "ß", "ü", "xn--", "\u200d", "\t", "\n", " ", "\0", "*", "a", "-", "_"),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=10).map("".join), st.text(max_size=40).map("http://".__add__))


@given(TEXTS)
def test_what_is_read_is_read_the_same_by_everybody(text: str) -> None:
    """A URL that is taken has one form, which another reader takes apart in the same way."""
    try:
        url = parse_url(text)
    except NetworkRefusedError:
        return
    assert parse_url(str(url)) == url
    other = urllib.parse.urlsplit(str(url))
    assert (other.scheme, other.hostname, other.username, other.password) == (url.scheme, url.host, None, None)
    assert (other.port or {"http": 80, "https": 443}[url.scheme]) == url.port
    assert other.fragment == ""
    assert str(url).isascii()
    assert str(url).isprintable()
    assert 0 < url.port < 65536


@given(TEXTS)
def test_only_a_named_host_is_allowed(text: str) -> None:
    """Whatever an address is made of, a list of one host lets nothing through but that host."""
    try:
        url = parse_url(text)
    except NetworkRefusedError:
        return
    assert allows(["ok.test"], url.host) is (url.host == "ok.test")


@given(st.text(max_size=30))
def test_a_canonical_host_is_its_own_form(text: str) -> None:
    """A host's form is that of its form, in ASCII, small letters, and nothing that a URL could misread."""
    try:
        host = canonical_host(text)
    except HostError:
        return
    assert canonical_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    assert not set(host) & set("/\\@?#%[] \t\r\n\0*")


@given(st.ip_addresses(v=4))
def test_wrapping_changes_nothing(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address that may not be reached may not be in any wrapping."""
    number, reachable = int(address), is_reachable(address, ())
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert is_reachable(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number), ()) is reachable
    for wrapped in (
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
        ipaddress.IPv6Address(number),
    ):
        assert not is_reachable(wrapped, ())
    isatap = ipaddress.IPv6Address(int(ipaddress.IPv6Address("2606:4700::5efe:0:0")) | number)
    assert is_reachable(isatap, ()) is reachable


@given(st.ip_addresses())
def test_nothing_private_is_reached(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """What the standard library calls private, loopback, link-local or multicast is never reached."""
    never = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    assert not (never and not mapped and is_reachable(address, ()))
