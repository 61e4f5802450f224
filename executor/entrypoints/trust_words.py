"""What a trust file says, as lines for people and as JSON for scripts, and what somebody should look at in it."""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from executor.domain.far_sides import Database, McpServer
from executor.domain.policy import Network, Orchestrator, SecretSource, Trust
from executor.runner.trust import moment_words
from gonogo.policy import EVERYBODY, Group, Person, Policy, Requirement, shown
from gonogo.policy_words import key_words, person_words, rule_words
from gonogo.safe_text import shown_argv
from gonogo.signatures import load_public_key

SOON = timedelta(days=30)


def statements(trust: Trust) -> tuple[str, ...]:
    """Return all that a trust file says, one thing in each line; two files that say the same have the same lines."""
    return tuple(_statements(trust))


def warnings(trust: Trust, now: datetime) -> tuple[str, ...]:
    """Return what is no fault and probably not meant."""
    return tuple(_warnings(trust, now))


def trust_json(trust: Trust) -> Mapping[str, Any]:
    """Return what a trust file says, for scripts. No secret's value is in it."""
    policy, limits = trust.policy, trust.limits
    return {
        "version": trust.version,
        "expires": moment_words(trust.expires_at),
        "executor_id": trust.executor_id,
        "orchestrators": [{"id": one.identity, "log_key": one.log_key or None} for one in trust.orchestrators],
        "policy": {
            "in_force": policy.in_force,
            "approvals_required": policy.approvals_required,
            "self_approval": trust.self_approval.value,
            "max_approval_seconds": policy.max_approval_seconds,
        },
        "limits": {
            "hidden": limits.hidden,
            "volatile": limits.volatile,
            "max_content_bytes": limits.max_content_bytes,
            "max_change_bytes": limits.max_change_bytes,
            "max_dry_runs": limits.max_dry_runs,
            "may_dry_run": limits.may_dry_run,
            "report_seconds": limits.report_seconds,
            "checkpoint_seconds": limits.checkpoint_seconds,
        },
        "persons": [_person_json(policy, one) for one in policy.persons],
        "groups": [{"id": one.group_id, "members": one.members} for one in policy.groups],
        "rules": [{"id": rule.rule_id, "says": rule_words(rule)} for rule in policy.rules],
        "workspaces": {name: {"labels": labels} for name, labels in sorted(policy.labels.items())},
        "live_access": {name: sorted(access) for name, access in sorted(trust.live_access.items())},
        "secrets": [{"name": one.name, "workspaces": one.workspaces, "source": _source(one)} for one in trust.secrets],
        "domains": trust.domains,
        "network": dataclasses.asdict(trust.network),
        "mcp_servers": [one.described for one in trust.servers],
        "databases": [one.described for one in trust.databases],
    }


def _person_json(policy: Policy, person: Person) -> Mapping[str, Any]:
    return {
        "id": person.person_id,
        "kind": person.kind.value,
        "sponsor": person.sponsor or None,
        "approves": person.approves,
        "groups": _groups_of(policy, person),
        "keys": [
            {
                "key_id": key.key_id,
                "scheme": key.scheme,
                "use": key.use.value,
                "hardware": key.hardware,
                "public_key": key.public_key,
            }
            for key in person.keys
        ],
    }


def _groups_of(policy: Policy, person: Person) -> list[str]:
    return [group.group_id for group in policy.groups if person.person_id in group.members]


def _statements(trust: Trust) -> Iterator[str]:
    yield f"version {trust.version}, expires {moment_words(trust.expires_at)}"
    yield f"executor {trust.executor_id}"
    yield from map(_orchestrator_words, trust.orchestrators)
    yield from _policy_statements(trust)
    for person in trust.policy.persons:
        yield person_words(person, _groups_of(trust.policy, person))
        for key in person.keys:
            yield f"{person.person_id} {key_words(key)}"
    yield from (f"group {group.group_id}: {_members(group)}" for group in trust.policy.groups)
    yield from map(rule_words, trust.policy.rules)
    for name, labels in sorted(trust.policy.labels.items()):
        yield f"workspace {name} is labelled {', '.join(labels) or 'nothing'}"
    for name, access in sorted(trust.live_access.items()):
        yield f"live programs of workspace {name} may reach the {' and the '.join(sorted(access))}"
    yield from map(_secret_words, trust.secrets)
    if trust.domains:
        yield f"domains {', '.join(trust.domains)}"
        yield from _network_statements(trust.network)
    yield from map(_server_words, trust.servers)
    yield from map(_database_words, trust.databases)
    yield from _limit_statements(trust)


def _network_statements(network: Network) -> Iterator[str]:
    when = "dry runs and executions" if network.fetch_in_dry_run else "executions alone"
    yield f"pages are read by {when}, each of {network.max_fetch_bytes} bytes at most"
    if network.commands_in_dry_run:
        yield "commands of dry runs reach the domains, before anybody approved of them"
    if network.private_addresses:
        yield f"addresses that are not public, in {', '.join(network.private_addresses)}, may be reached"
    if network.ca_file:
        yield f"the authorities in {network.ca_file} are believed instead of the system's"


def _policy_statements(trust: Trust) -> Iterator[str]:
    policy = trust.policy
    if not policy.in_force:
        yield "no policy: nothing is dry run or approved"
        return
    if policy.approvals_required:
        besides = ", besides those that rules ask for" if policy.rules else ""
        yield f"always approved by {shown(Requirement(count=policy.approvals_required))}{besides}"
    else:
        yield "approved as the rules say; where none is certain to hold, nothing is"
    counts = "counts" if policy.self_approval else "does not count"
    yield f"the approval of whoever proposed, or stands behind the agent that did, {counts}"
    yield f"approvals hold for at most {policy.max_approval_seconds} seconds"


def _limit_statements(trust: Trust) -> Iterator[str]:
    limits = trust.limits
    yield f"hidden from every dry run: {', '.join(limits.hidden) or 'nothing'}"
    yield f"left out as volatile: {', '.join(limits.volatile) or 'nothing'}"
    yield f"content of one step: at most {limits.max_content_bytes} bytes"
    yield f"change set of one plan: at most {limits.max_change_bytes} bytes"
    yield f"dry runs at once: at most {limits.max_dry_runs}"
    if limits.may_dry_run is not None:
        yield f"dry runs only for: {', '.join(limits.may_dry_run) or 'nobody'}"
    yield f"reports can be executed for {limits.report_seconds} seconds"
    yield f"checkpoints are kept for {limits.checkpoint_seconds} seconds"


def _orchestrator_words(one: Orchestrator) -> str:
    known = f"whose log is signed with {_fingerprint(one.log_key)}" if one.log_key else "whose log key is not known"
    return f"orchestrator {one.identity}, {known}"


def _fingerprint(line: str) -> str:
    return load_public_key(line).key_id


def _members(group: Group) -> str:
    return ", ".join(group.members) or "nobody"


def _server_words(server: McpServer) -> str:
    place = server.url or shown_argv(server.command)
    return (
        f"tools {', '.join(server.tools) or '(none)'} of {server.name} at {place}, for {', '.join(server.workspaces)}"
    )


def _database_words(database: Database) -> str:
    place = database.path or database.dsn
    return f"database {database.name}, {database.engine.value} at {place}, for {', '.join(database.workspaces)}"


def _secret_words(secret: SecretSource) -> str:
    return f"secret {secret.name} from {_source(secret)}, for {', '.join(secret.workspaces)}"


def _source(secret: SecretSource) -> str:
    return f"file {secret.file}" if secret.file else f"environment {secret.environment}"


def _warnings(trust: Trust, now: datetime) -> Iterator[str]:
    policy = trust.policy
    if now >= trust.expires_at:
        yield "it has expired: nothing is dry run or approved"
    elif now >= trust.expires_at - SOON:
        yield f"it expires soon, at {moment_words(trust.expires_at)}"
    if not policy.in_force:
        yield "it has no policy: nothing is dry run or approved"
    asked = [("[policy]", Requirement(count=policy.approvals_required))] if policy.approvals_required else []
    asked += [(f"rule {rule.rule_id}", one) for rule in policy.rules for one in rule.require]
    for where, one in asked:
        able = len(policy.approvers(one.group))
        if able < one.count:
            yield f"{where} asks for {shown(one)}, and {able} may: it can not be met"
    hardware = {
        person.person_id for person in policy.persons if person.approves and any(k.hardware for k in person.keys)
    }
    for rule in policy.rules:
        if rule.hardware_key and not hardware & policy.approvers(EVERYBODY):
            yield f"rule {rule.rule_id} asks for hardware keys, and nobody has one: it can not be met"
