"""From the text of a URL to the very addresses that are connected to, each part looked at once and used as it was seen.

A URL is read by a grammar that is narrower than any program's, so that there is nothing two programs could read
differently. Its host must be on the list of the plan's scope and on that of the trust file. The name is looked up once;
every address that comes back must be a public one, also what is wrapped in it, and the connection goes to one of
these and to nothing else. So a name that means another address a moment later changes nothing.
"""

import ipaddress
import queue
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from executor.domain.cancel import NEVER, Cancel
from executor.domain.errors import StepBlockedError, StepFailedError
from executor.domain.hosts import Address, HostError, allows, canonical_host, literal
from executor.domain.plan import NetworkAccess, Scope
from executor.domain.policy import Trust

MOST_URL: Final = 8192
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MOST_ADDRESSES: Final = 64
LOOKUP_SECONDS: Final = 10.0

_TARGET: Final = r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_URL: Final = re.compile(rf"(https?)://([^/?#]+)((?:[/?]{_TARGET})?)", re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@%\s\\]+))(?::([1-9][0-9]{0,4}))?")
_MOST_PORT: Final = 65535
_PLAIN: Final = "/?:@!$&'()*+,;=%-._~"
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset((0x00005EFE, 0x02005EFE))
_NEVER_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "168.63.129.16/32"),
        *(
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2002::/16",
            "3fff::/20",
            "5f00::/16",
            "fec0::/10",
        ),
    )
)
"""Shared, locally translated, tunnelled (6to4, Teredo), for benchmarks or retired: no public host is reached by one.

One is public by all registries: in Azure it is the host's own agent, which tells a machine its secrets.
"""

Lookup = Callable[[str, int], Iterable[str]]
"""Returns the addresses of a host as text; raises OSError."""
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkRefusedError(StepBlockedError):
    """Scope, trust file or the kind of address does not allow it; nothing was sent."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("NETWORK_REFUSED", message, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A URL of which every part is known."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, as they are sent."""

    @property
    def authority(self) -> str:
        """What stands in the request's Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whose it is."""
        return (self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A URL that may be reached, and where."""

    url: Url
    addresses: tuple[str, ...]

    @property
    def is_private(self) -> bool:
        """Whether none of them is a public one."""
        return not any(is_reachable(ipaddress.ip_address(one), ()) for one in self.addresses)


def parse_url(text: str) -> Url:
    """Read a URL.

    Raises:
        NetworkRefusedError: it is none of http or https, or one that could be read in two ways.
    """
    if len(text) > MOST_URL:
        raise _no_url(text, f"it has more than {MOST_URL} characters")
    found = _URL.fullmatch(text)
    if found is None:
        raise _no_url(text, "it is not http:// or https://, a host and a path of plain or percent-encoded characters")
    scheme, authority, target = found[1].lower(), found[2], found[3]
    host, port = _host_and_port(text, authority)
    target = target if target.startswith("/") else f"/{target}"
    return Url(scheme=scheme, host=host, port=port or DEFAULT_PORTS[scheme], target=target)


def redirected(url: Url, location: str) -> Url:
    """Return where an answer sends a reader.

    Raises:
        NetworkRefusedError: to what is no URL, or from https to http.
    """
    try:
        encoded = urllib.parse.quote(location.strip(" \t"), safe=_PLAIN + "#[]")
        joined = urllib.parse.urldefrag(urllib.parse.urljoin(str(url), encoded)).url
    except ValueError:
        raise _no_url(location, "the redirect can not be read") from None
    new = parse_url(joined)
    if url.scheme == "https" and new.scheme != "https":
        raise NetworkRefusedError(f"{url} redirects to {new}, without encryption", "name the final address in the plan")
    return new


def check_named(url: Url, scope: Scope, trust: Trust) -> None:
    """Refuse a host that the plan's scope or the trust file does not name.

    Raises:
        NetworkRefusedError: says which of them.
    """
    if scope.network is not NetworkAccess.LISTED_DOMAINS:
        raise NetworkRefusedError(
            f"the plan's scope allows no network, and {url.host} is on one",
            "set scope.network to listed_domains and name the host in scope.domains",
        )
    if not allows(scope.domains, url.host):
        raise NetworkRefusedError(
            f"the plan's scope does not name {url.host}", "add it to scope.domains, or change the step"
        )
    if not allows(trust.domains, url.host):
        raise NetworkRefusedError(
            f"the executor's trust file does not name {url.host}",
            "have the executor's operator add it to domains in the trust file",
        )


def system_lookup(host: str, port: int) -> Iterator[str]:
    """Ask the system for a host's addresses."""
    for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP):
        yield str(entry[4][0])


def pin(
    url: Url,
    private: Sequence[str],
    *,
    lookup: Lookup = system_lookup,
    cancel: Cancel = NEVER,
    seconds: float = LOOKUP_SECONDS,
) -> Pinned:
    """Look a host up, once, and return where it may be connected to.

    Args:
        url: what to reach.
        private: the operator's networks that are allowed beside the public ones.
        lookup: what knows addresses.
        cancel: ends the waiting.
        seconds: how long it may take.

    Raises:
        NetworkRefusedError: one of its addresses is neither public nor in those networks.
        StepFailedError: it has none.
    """
    found = (
        (url.host,) if literal(url.host) is not None else _looked_up(url, lookup, cancel, min(seconds, LOOKUP_SECONDS))
    )
    allowed = tuple(ipaddress.ip_network(network) for network in private)
    for text in found:
        if not is_reachable(_address(url, text), allowed):
            raise NetworkRefusedError(
                f"{url.host} has the address {text}, which is not a public one",
                "reach it by a public address, or have the operator add its network to private_addresses in the "
                "trust file's table [network]",
            )
    return Pinned(url=url, addresses=tuple(dict.fromkeys(found)))


def is_reachable(address: Address, allowed: Collection[IpNetwork]) -> bool:
    """Tell whether an address, or the one that its packets end at, is public or in an allowed network."""
    if any(address in network for network in allowed):
        return True
    meant = _meant(address)
    return _is_public(address) if meant is None else is_reachable(meant, allowed)


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in _NEVER_PUBLIC)
        and all(_is_public(one) for one in _tunnelled(address))
    )


def _meant(address: Address) -> Address | None:
    """Return the IPv4 address that an IPv6 address only is another spelling of, or is translated into."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return _last_four(address) if address in _NAT64 else address.ipv4_mapped


def _tunnelled(address: Address) -> Iterator[Address]:
    if isinstance(address, ipaddress.IPv6Address) and (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        yield _last_four(address)


def _last_four(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _host_and_port(text: str, authority: str) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _no_url(text, "before its path stands more than a host and a port")
    bracketed, name, port = found[1], found[2], int(found[3] or 0)
    if port > _MOST_PORT:
        raise _no_url(text, "there is no such port")
    try:
        host = canonical_host(bracketed or name)
    except HostError as error:
        raise NetworkRefusedError(error.fault.message, error.fault.remedy) from None
    if bool(bracketed) != (":" in host):
        raise _no_url(text, "brackets belong around an IPv6 address, and around nothing else")
    return host, port


def _looked_up(url: Url, lookup: Lookup, cancel: Cancel, seconds: float) -> tuple[str, ...]:
    """Ask in a thread of its own: the system's own way to look names up knows no limit of time."""
    answers: queue.SimpleQueue[tuple[str, ...] | str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(tuple(dict.fromkeys(lookup(url.host, url.port))))
        except (OSError, UnicodeError) as error:
            answers.put(getattr(error, "strerror", None) or str(error))

    threading.Thread(target=ask, name="lookup", daemon=True).start()
    try:
        with cancel.calling(lambda: answers.put("it was stopped")):
            found = answers.get(timeout=max(seconds, 0))
    except queue.Empty:
        found = "no answer in time"
    if isinstance(found, str) or not 0 < len(found) <= MOST_ADDRESSES:
        why = found if isinstance(found, str) else f"{len(found)} addresses"
        raise StepFailedError(
            "FETCH_FAILED", f"{url.host} can not be looked up: {why}", "correct the name, or try again"
        )
    return found


def _address(url: Url, text: str) -> Address:
    address = literal(text.partition("%")[0])
    if address is None:
        raise NetworkRefusedError(f"{url.host} has the address {text[:80]!a}, which is none", "try again")
    return address


def _no_url(text: str, why: str) -> NetworkRefusedError:
    return NetworkRefusedError(
        f"{text[:200]!a} can not be reached: {why}", "write the whole URL, such as https://example.org/page"
    )
