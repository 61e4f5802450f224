"""The trust file's rules: where each holds and what it asks for, out of closed lists."""

from collections.abc import Collection, Mapping
from datetime import time
from typing import Final

from executor.adapters.trust_tables import (
    Table,
    TrustFileError,
    byte_count,
    choice,
    choices,
    each,
    flag,
    identifier,
    identifiers,
    number,
    persons,
    text,
)
from executor.domain.ladder import LadderLevel
from executor.domain.plan import KINDS
from executor.domain.risk import RISK_FACTS
from gonogo.policy import DAYS, EVERYBODY, RISK_LEVELS, Condition, Group, ProposerKind, Requirement, Rule
from gonogo.policy_document import hours_from_text

STEP_KINDS: Final = tuple(KINDS.values())
LEVELS: Final = {level.name: level.value for level in LadderLevel}
MIDNIGHT: Final = "24:00"


def read_rules(
    place: str, value: object, groups: Collection[Group], labels: Mapping[str, tuple[str, ...]]
) -> tuple[Rule, ...]:
    """Read the rules in the file's order; they name groups and labels of this file."""
    rules = each(place, value, _rule)
    ids = [rule.rule_id for rule in rules]
    if len(set(ids)) != len(ids):
        raise TrustFileError(f"{place} has two rules of one id", "give each rule an id of its own")
    known_groups = {EVERYBODY, *(group.group_id for group in groups)}
    known_labels = {label for some in labels.values() for label in some}
    for rule in rules:
        _check_known(rule, "group", {one.group for one in rule.require} - known_groups, "[[groups]]")
        _check_known(rule, "label", set(rule.when.labels) - known_labels, "the labels of a [workspaces.…] table")
    return rules


def _check_known(rule: Rule, what: str, unknown: Collection[str], where: str) -> None:
    if unknown:
        raise TrustFileError(
            f"rule {rule.rule_id} names the {what} {min(unknown)!r}, which is not in this file",
            f"correct the spelling, or write it into {where}",
        )


def _rule(place: str, value: object) -> Rule:
    table = Table(place, value)
    level = table.take_or("min_ladder_level", choice(LEVELS), None)
    rule = Rule(
        rule_id=table.take("id", identifier),
        when=table.take_or("when", _condition, Condition()),
        require=table.take_or("require", _requirements, ()),
        min_ladder_level=None if level is None else LEVELS[level],
        hardware_key=table.take_or("hardware_key", flag, False),
        max_approval_seconds=table.take_or("max_approval_seconds", number, None),
        refuse=table.take_or("refuse", flag, False),
        approve_steps=table.take_or("approve_steps", flag, False),
    )
    table.check_empty()
    if rule == Rule(rule_id=rule.rule_id, when=rule.when):
        raise TrustFileError(
            f"{place}: rule {rule.rule_id} asks for nothing",
            "write require, min_ladder_level, hardware_key, max_approval_seconds, approve_steps or refuse",
        )
    return rule


def _requirements(place: str, value: object) -> tuple[Requirement, ...]:
    return each(place, value, _requirement)


def _requirement(place: str, value: object) -> Requirement:
    table = Table(place, value)
    found = Requirement(count=table.take("count", persons), group=table.take_or("group", identifier, EVERYBODY))
    table.check_empty()
    return found


def _condition(place: str, value: object) -> Condition:
    table = Table(place, value)
    proposers = table.take_or("proposers", choices([one.value for one in ProposerKind]), ())
    condition = Condition(
        step_kinds=table.take_or("step_kinds", choices(STEP_KINDS), ()),
        risk_facts=table.take_or("risk_facts", choices(RISK_FACTS), ()),
        min_risk=table.take_or("min_risk", choice(RISK_LEVELS), None),
        workspaces=table.take_or("workspaces", identifiers, ()),
        labels=table.take_or("labels", identifiers, ()),
        min_changes=table.take_or("min_changes", number, 0),
        min_bytes=table.take_or("min_bytes", byte_count, 0),
        days=table.take_or("days", choices(DAYS), ()),
        hours=table.take_or("hours", _hours, None),
        proposers=tuple(ProposerKind(one) for one in proposers),
    )
    table.check_empty()
    return condition


def _hours(place: str, value: object) -> tuple[time, time]:
    written = text(place, value)
    if written.endswith(f"-{MIDNIGHT}"):
        written = written.removesuffix(MIDNIGHT) + "00:00"
    try:
        return hours_from_text(written)
    except ValueError as error:
        remedy = 'write both in UTC, such as "18:00-08:00", or leave hours out for the whole day'
        raise TrustFileError(f"{place}: {error}", remedy) from None
