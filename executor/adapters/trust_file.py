"""Reads the trust file strictly: what it says in full, or a refusal that says what to change."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from executor.adapters.trust_far_sides import read_databases, read_servers
from executor.adapters.trust_network import read_domains, read_network
from executor.adapters.trust_persons import read_groups, read_persons
from executor.adapters.trust_rules import read_rules
from executor.adapters.trust_tables import (
    Table,
    TrustFileError,
    absolute_path,
    byte_count,
    choice,
    each,
    identifier,
    identifiers,
    moment,
    number,
    persons_or_none,
    text,
    texts,
)
from executor.adapters.trust_workspaces import Workspaces, read_workspaces
from executor.domain.policy import Limits, Network, Orchestrator, SecretSource, Trust, limits_digest
from executor.domain.report import SelfApproval
from executor.workspace.globs import Globs
from executor.workspace.paths import PathInvalidError
from gonogo.policy import Policy, Rule
from gonogo.signatures import SignatureError, load_public_key

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_APPROVAL_SECONDS: Final = 86_400
SPIFFE: Final = "spiffe://"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """The table [policy]. Built without arguments it is that of a file without one."""

    approvals_required: int = 0
    self_approval: bool = False
    max_approval_seconds: int = MAX_APPROVAL_SECONDS
    limits: Limits = field(default_factory=Limits)


def read_trust_file(path: Path) -> Trust:
    """Read a trust file.

    Raises:
        TrustFileError: it is not there, or not strictly such a file.
    """
    return parse_trust(read_trust_bytes(path))


def read_trust_bytes(path: Path) -> bytes:
    """Return a trust file's text, of bounded length.

    Raises:
        TrustFileError: it is not there, or too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        remedy = "put it there, readable for this user; gonogo init makes the first one, with everything else"
        raise TrustFileError(f"{path} can not be read: {error.strerror}", remedy) from error
    if len(data) > MAX_FILE_BYTES:
        raise TrustFileError(f"{path} is larger than {MAX_FILE_BYTES} bytes", "give a trust file")
    return data


def parse_trust(data: bytes) -> Trust:
    """Read the text of a trust file.

    Raises:
        TrustFileError: it is not strictly such a file.
    """
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's own error, bytes that are no text, a number too long to read
        raise TrustFileError(f"it is not TOML: {error}", "correct the line that is named") from error
    return _trust(document)


def _trust(document: dict[str, Any]) -> Trust:
    table = Table("the file", document)
    version = table.take("version", number)
    expires_at = table.take("expires", moment)
    executor_id = table.take("executor_id", identifier)
    orchestrators = table.take("orchestrators", _orchestrators)
    settings = table.take_or("policy", _settings, _Settings())
    persons = table.take("persons", read_persons)
    groups = table.take_or("groups", lambda place, value: read_groups(place, value, persons), ())
    workspaces = table.take_or("workspaces", read_workspaces, Workspaces())
    labels, live_access = workspaces.labels, workspaces.live_access
    rules = table.take_or("rules", lambda place, value: read_rules(place, value, groups, labels), ())
    secrets = table.take_or("secrets", _secrets, ())
    domains = table.take_or("domains", read_domains, ())
    network = table.take_or("network", read_network, Network())
    servers = table.take_or("mcp_servers", read_servers, ())
    databases = table.take_or("databases", read_databases, ())
    table.check_empty()
    _check_dry_runners(settings.limits, orchestrators)
    _check_somebody_decides(settings, rules, written="policy" in document)
    return Trust(
        executor_id=executor_id,
        version=version,
        expires_at=expires_at,
        orchestrators=orchestrators,
        limits=settings.limits,
        policy=Policy(
            executor_id=executor_id,
            trust_version=version,
            expires_at=expires_at,
            approvals_required=settings.approvals_required,
            self_approval=settings.self_approval,
            max_approval_seconds=settings.max_approval_seconds,
            persons=persons,
            groups=groups,
            rules=rules,
            labels=labels,
            limits_digest=limits_digest(
                settings.limits, secrets, domains, network, (*servers, *databases), live_access
            ),
        ),
        secrets=secrets,
        domains=domains,
        network=network,
        servers=servers,
        databases=databases,
        live_access=live_access,
    )


def _settings(place: str, value: object) -> _Settings:
    table = Table(place, value)
    default = _Settings()
    allowed, refused = SelfApproval.ALLOWED.value, SelfApproval.REFUSED.value
    settings = _Settings(
        approvals_required=table.take_or("approvals_required", persons_or_none, default.approvals_required),
        self_approval=table.take_or("self_approval", choice((allowed, refused)), refused) == allowed,
        max_approval_seconds=table.take_or("max_approval_seconds", number, default.max_approval_seconds),
        limits=_limits(table),
    )
    table.check_empty()
    return settings


def _limits(table: Table) -> Limits:
    default = Limits()
    return Limits(
        hidden=table.take_or("hidden", _globs, default.hidden),
        volatile=table.take_or("volatile", _globs, default.volatile),
        max_content_bytes=table.take_or("max_content_bytes", number, default.max_content_bytes),
        max_change_bytes=table.take_or("max_change_bytes", byte_count, default.max_change_bytes),
        max_dry_runs=table.take_or("max_dry_runs", number, default.max_dry_runs),
        may_dry_run=table.take_or("may_dry_run", texts, None),
        report_seconds=table.take_or("report_seconds", number, default.report_seconds),
        checkpoint_seconds=table.take_or("checkpoint_seconds", number, default.checkpoint_seconds),
    )


def _globs(place: str, value: object) -> tuple[str, ...]:
    patterns = texts(place, value)
    try:
        Globs(patterns)
    except PathInvalidError as error:
        raise TrustFileError(f"{place}: {error.fault.message}", error.fault.remedy) from error
    return patterns


def _check_dry_runners(limits: Limits, orchestrators: Sequence[Orchestrator]) -> None:
    unknown = sorted(frozenset(limits.may_dry_run or ()) - {one.identity for one in orchestrators})
    if unknown:
        raise TrustFileError(
            f"may_dry_run in policy names {unknown[0]!r}, which is no orchestrator of this file",
            "correct its spelling, or list it in orchestrators too; an empty list lets nobody dry run",
        )


def _check_somebody_decides(settings: _Settings, rules: Sequence[Rule], *, written: bool) -> None:
    """Refuse a policy that asks for nobody's approval; rules without a table [policy] have no policy to add to."""
    if written and not settings.approvals_required and not rules:
        raise TrustFileError(
            "approvals_required in policy is 0 or missing, and there are no rules",
            "write approvals_required = 1 or more, or write [[rules]] that ask for approvals",
        )
    if rules and not written:
        raise TrustFileError("there are rules and no table [policy]", "write [policy], with approvals_required")


def _orchestrators(place: str, value: object) -> tuple[Orchestrator, ...]:
    found = each(place, value, _orchestrator)
    if not found or len({one.identity for one in found}) != len(found):
        raise TrustFileError(f"{place} names no orchestrator, or one twice", _ORCHESTRATOR_REMEDY)
    return found


def _orchestrator(place: str, value: object) -> Orchestrator:
    if not isinstance(value, dict):
        return Orchestrator(identity=_spiffe_id(place, value))
    table = Table(place, value)
    found = Orchestrator(identity=table.take("id", _spiffe_id), log_key=table.take_or("log_key", _log_key, ""))
    table.check_empty()
    return found


_ORCHESTRATOR_REMEDY: Final = 'name each by its SPIFFE id, such as ["spiffe://gonogo.local/orchestrator"]'


def _spiffe_id(place: str, value: object) -> str:
    identity = text(place, value)
    if not identity.startswith(SPIFFE):
        raise TrustFileError(f"{place} is no orchestrator's SPIFFE id", _ORCHESTRATOR_REMEDY)
    return identity


def _log_key(place: str, value: object) -> str:
    try:
        return load_public_key(text(place, value)).line
    except SignatureError as error:
        raise TrustFileError(f"{place}: {error}", "give the one line of keys/orchestrator.pub") from error


def _secrets(place: str, value: object) -> tuple[SecretSource, ...]:
    found = each(place, value, _secret)
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        raise TrustFileError(f"{place} names a secret twice", "list each secret once, with all its workspaces")
    return tuple(sorted(found, key=lambda one: one.name))


def _secret(place: str, value: object) -> SecretSource:
    table = Table(place, value)
    found = SecretSource(
        name=table.take("name", identifier),
        workspaces=table.take("workspaces", identifiers),
        file=table.take_or("file", absolute_path, ""),
        environment=table.take_or("environment", _variable, ""),
    )
    table.check_empty()
    if bool(found.file) == bool(found.environment):
        raise TrustFileError(
            f"{place}: secret {found.name} has no source, or two", "write either file or environment, not the value"
        )
    return found


def _variable(place: str, value: object) -> str:
    name = text(place, value)
    if not name.isascii() or not name.isidentifier():
        raise TrustFileError(f"{place} is no name of an environment variable", "use letters, digits and underscores")
    return name
