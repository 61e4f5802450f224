"""Whom the executor trusts and what it demands, as its operator wrote it into the trust file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from executor.domain.far_sides import Database, FarSide, McpServer
from executor.domain.report import SelfApproval
from gonogo.digests import digest
from gonogo.policy import Policy

MIB = 1024 * 1024
WEEK_SECONDS = 7 * 24 * 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What dry runs and executions may see and use, and how long things are kept."""

    hidden: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    max_content_bytes: int = MIB
    max_change_bytes: int = 4096 * MIB
    max_dry_runs: int = 4
    """At once."""
    may_dry_run: tuple[str, ...] | None = None
    """The orchestrators that may ask for dry runs; None for all that the trust file lists."""
    report_seconds: int = WEEK_SECONDS
    """How long a report may be executed after it was issued; its contents are kept as long."""
    checkpoint_seconds: int = WEEK_SECONDS
    """How long the checkpoints of an ended execution are kept: so long it can be undone."""

    @property
    def report_lifetime(self) -> timedelta:
        """How long a report may be executed."""
        return timedelta(seconds=self.report_seconds)

    @property
    def checkpoint_lifetime(self) -> timedelta:
        """How long a checkpoint is kept."""
        return timedelta(seconds=self.checkpoint_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestrator:
    """A caller that is served."""

    identity: str
    """The SPIFFE id in its certificate."""
    log_key: str = ""
    """The key that its audit log's checkpoints are signed with, in OpenSSH's one-line form; empty where it is not
    known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """Where the executor finds a secret's value, and in which workspaces it may be used."""

    name: str
    workspaces: tuple[str, ...]
    file: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How steps reach a network; which hosts they may reach, the trust file's domains say."""

    fetch_in_dry_run: bool = True
    """Whether a dry run reads pages; a read can carry data out before anybody approved of it."""
    commands_in_dry_run: bool = False
    """Whether commands of a dry run, of which nobody has approved yet, reach the listed domains."""
    max_fetch_bytes: int = 16 * MIB
    """Of one decoded body."""
    private_addresses: tuple[str, ...] = ()
    """Networks beside the public ones in which an allowed host's addresses may lie."""
    ca_file: str = ""
    """Certificates of the authorities to believe instead of the system's; empty for those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The whole trust file."""

    executor_id: str
    version: int
    expires_at: datetime
    orchestrators: tuple[Orchestrator, ...]
    limits: Limits
    policy: Policy
    secrets: tuple[SecretSource, ...] = ()
    domains: tuple[str, ...] = ()
    network: Network = Network()
    servers: tuple[McpServer, ...] = ()
    databases: tuple[Database, ...] = ()
    live_access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What programs that run for real may reach, by workspace: "network", "host", or both."""

    @property
    def far_sides(self) -> tuple[FarSide, ...]:
        """What live steps may use, without how it is reached."""
        domains = [FarSide(kind="domain", name=name) for name in self.domains]
        servers = [FarSide(kind="mcp_server", name=one.name, workspaces=one.workspaces) for one in self.servers]
        databases = [FarSide(kind="database", name=one.name, workspaces=one.workspaces) for one in self.databases]
        return (*domains, *servers, *databases)

    @property
    def callers(self) -> frozenset[str]:
        """The SPIFFE ids that are served."""
        return frozenset(one.identity for one in self.orchestrators)

    @property
    def dry_runners(self) -> frozenset[str]:
        """The callers that may ask for dry runs."""
        allowed = self.limits.may_dry_run
        return self.callers if allowed is None else self.callers & frozenset(allowed)

    @property
    def workspaces(self) -> frozenset[str]:
        """All workspaces that the file names anywhere."""
        named = [*self.policy.labels]
        named += [name for rule in self.policy.rules for name in rule.when.workspaces]
        named += [name for secret in self.secrets for name in secret.workspaces]
        named += [name for side in self.far_sides for name in side.workspaces]
        named += self.live_access
        return frozenset(named)

    @property
    def self_approval(self) -> SelfApproval:
        """Whether a proposer's own approval counts."""
        return SelfApproval.ALLOWED if self.policy.self_approval else SelfApproval.REFUSED


def limits_digest(
    limits: Limits,
    secrets: Sequence[SecretSource] = (),
    domains: Sequence[str] = (),
    network: Network = Network(),
    far_sides: Sequence[McpServer | Database] = (),
    live_access: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Name everything that a dry run depends on and that the sealed policy does not spell out.

    It goes into the policy, so that whoever approves a report approves it under these limits.
    """
    value = {
        "hidden": list(limits.hidden),
        "volatile": list(limits.volatile),
        "max_content_bytes": limits.max_content_bytes,
        "max_change_bytes": limits.max_change_bytes,
        "max_dry_runs": limits.max_dry_runs,
        "may_dry_run": limits.may_dry_run if limits.may_dry_run is None else sorted(limits.may_dry_run),
        "report_seconds": limits.report_seconds,
        "checkpoint_seconds": limits.checkpoint_seconds,
        "secrets": {one.name: [sorted(one.workspaces), one.file, one.environment] for one in secrets},
        "domains": sorted(domains),
        "network": {
            "fetch_in_dry_run": network.fetch_in_dry_run,
            "commands_in_dry_run": network.commands_in_dry_run,
            "max_fetch_bytes": network.max_fetch_bytes,
            "private_addresses": sorted(network.private_addresses),
            "ca_file": network.ca_file,
        },
        "far_sides": [one.described for one in far_sides],
        "live_access": {name: sorted(some) for name, some in live_access.items()},
    }
    return digest(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode())
