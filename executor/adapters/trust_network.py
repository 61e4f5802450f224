"""Reads what the trust file says of the network: the domains, and the table [network]."""

import ipaddress

from executor.adapters.trust_tables import Table, TrustFileError, absolute_path, byte_count, each, flag, text
from executor.domain.hosts import HostError, canonical_pattern
from executor.domain.policy import Network

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_domains(place: str, value: object) -> tuple[str, ...]:
    """Read a list of hosts, in the form in which they are compared."""
    return each(place, value, _domain)


def read_network(place: str, value: object) -> Network:
    """Read the table."""
    table, default = Table(place, value), Network()
    network = Network(
        fetch_in_dry_run=table.take_or("fetch_in_dry_run", flag, default.fetch_in_dry_run),
        commands_in_dry_run=table.take_or("commands_in_dry_run", flag, default.commands_in_dry_run),
        max_fetch_bytes=table.take_or("max_fetch_bytes", byte_count, default.max_fetch_bytes),
        private_addresses=table.take_or("private_addresses", _networks, default.private_addresses),
        ca_file=table.take_or("ca_file", absolute_path, default.ca_file),
    )
    table.check_empty()
    return network


def _domain(place: str, value: object) -> str:
    try:
        return canonical_pattern(text(place, value))
    except HostError as error:
        raise TrustFileError(f"{place}: {error.fault.message}", error.fault.remedy) from error


def _networks(place: str, value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in each(place, value, _network))


def _network(place: str, value: object) -> IpNetwork:
    try:
        return ipaddress.ip_network(text(place, value))
    except ValueError as error:
        raise TrustFileError(
            f"{place} is no network: {error}", 'write it with its length, such as "10.1.0.0/16" or "127.0.0.1/32"'
        ) from error
