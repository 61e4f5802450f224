"""Names of hosts as plans and the trust file write them, brought to the one form in which they are compared.

A name is compared as ASCII in small letters without a dot at its end. What could be read in two ways is refused: names
that are not in their own canonical spelling, dots and digits of other scripts, numbers that some programs take for an
address (`127.1`, `0x7f000001`). An address is a name only in its usual form, and is allowed only where it is listed.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from executor.domain.errors import ExecutorError

MOST_NAME: Final = 253
ANY_BELOW: Final = "*."
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEVIATIONS: Final = frozenset("\u00df\u03c2\u200c\u200d")
"""ß, final sigma and the two joiners: the two versions of the rules for names make different names of them."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HostError(ExecutorError):
    """It is no name of a host; whoever wrote it must change it."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(
            "NETWORK_REFUSED",
            f"{text[:80]!a} is no name of a host: {why}",
            "write it in small ASCII letters, with punycode (xn--…) where it needs other ones",
        )


def literal(host: str) -> Address | None:
    """Return the address that a canonical name is; None for a name that has to be looked up."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def canonical_host(text: str) -> str:
    """Return a name as it is compared and looked up.

    Args:
        text: a name, an IPv4 address with four numbers, or an IPv6 address without brackets.

    Raises:
        HostError: it is none, or could be read in two ways.
    """
    if ":" in text:
        return _canonical_ipv6(text)
    name = text.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1].lower()):
        return _canonical_ipv4(name)
    canonical = ".".join(_canonical_label(label, text) for label in labels)
    if len(canonical) > MOST_NAME:
        raise HostError(text, f"it has more than {MOST_NAME} characters")
    return canonical


def canonical_pattern(text: str) -> str:
    """Return an entry of a list of domains: a name, or `*.` and the name that all those it means end in.

    Raises:
        HostError: it is neither.
    """
    if not text.startswith(ANY_BELOW):
        return canonical_host(text)
    below = canonical_host(text.removeprefix(ANY_BELOW))
    if literal(below) is not None:
        raise HostError(text, "there is nothing below an address")
    return ANY_BELOW + below


def allows(patterns: Iterable[str], host: str) -> bool:
    """Tell whether a list of domains names a canonical host; what can not be read in the list names nothing."""
    return any(_names(pattern, host) for pattern in patterns)


def _names(pattern: str, host: str) -> bool:
    try:
        entry = canonical_pattern(pattern)
    except HostError:
        return False
    if entry.startswith(ANY_BELOW):
        return literal(host) is None and host.endswith(entry.removeprefix("*"))
    return entry == host


def _canonical_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise HostError(text, "it holds a colon and is no IPv6 address") from None
    if address.scope_id is not None:
        raise HostError(text, "it names a network interface")
    return address.compressed


def _canonical_ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise HostError(text, "it ends in a number and is no IPv4 address of four plain numbers") from None


def _canonical_label(label: str, text: str) -> str:
    lowered = label.lower()
    ascii_label = lowered if label.isascii() else _punycode(lowered, text)
    if not _LABEL.fullmatch(ascii_label):
        raise HostError(text, "between its dots are 1 to 63 letters, digits and hyphens, the latter not at an end")
    return ascii_label


def _punycode(label: str, text: str) -> str:
    """Write a label of other letters in ASCII; only one that is spelt as it would be read back."""
    if not _DEVIATIONS.isdisjoint(label):
        raise HostError(text, "different programs make different names of one of its letters")
    try:
        encoded = label.encode("idna")
        if encoded.decode("idna") == label:
            return encoded.decode("ascii")
    except UnicodeError:
        pass
    raise HostError(text, "its letters are not in their canonical spelling")
