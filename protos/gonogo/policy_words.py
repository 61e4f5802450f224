"""A policy in words, for people: the same words wherever a rule, a person or a demand is shown."""

from collections.abc import Iterator, Sequence

from gonogo.policy import Condition, Demand, Key, KeyUse, Person, PersonKind, ProposerKind, Requirement, Rule, shown
from gonogo.policy_document import hours_text

PROPOSERS = {
    ProposerKind.UNKNOWN: "somebody who is not known",
    ProposerKind.PERSON: "a person",
    ProposerKind.AGENT: "an agent",
}


def rule_words(rule: Rule) -> str:
    """Return what a rule says."""
    return f"rule {rule.rule_id}: {condition_words(rule.when)}: {'; '.join(_asked(rule))}"


def condition_words(when: Condition) -> str:
    """Return where a rule holds."""
    parts = tuple(_parts(when))
    return f"where {' and '.join(parts)}" if parts else "always"


def demand_words(demand: Demand) -> tuple[str, ...]:
    """Return what a demand asks for, one thing in each line."""
    lines = [f"approved by {shown(one)}" for one in demand.requirements]
    if demand.hardware_key:
        lines.append("signed with hardware keys")
    if demand.min_ladder_level is not None:
        lines.append(f"dry run at ladder level L{demand.min_ladder_level} or better")
    lines.append(f"approvals hold for at most {demand.max_approval_seconds} seconds")
    if demand.approve_steps:
        lines.append(f"approved once more, each before it is committed: {', '.join(demand.approve_steps)}")
    if demand.refused:
        lines.append(f"refused, whoever approves: {demand.refused}")
    return tuple(lines)


def person_words(person: Person, groups: Sequence[str] = ()) -> str:
    """Return who somebody is and what they may do.

    Args:
        person: somebody of the policy.
        groups: the groups that they belong to.
    """
    who = f"agent {person.person_id} of {person.sponsor}" if person.kind is PersonKind.AGENT else person.person_id
    uses = {key.use for key in person.keys}
    may = " and ".join(word for use, word in _MAY.items() if use in uses)
    belongs = f", in {', '.join(groups)}" if groups else ""
    return f"{who} may {may}{belongs}"


def key_words(key: Key) -> str:
    """Return what a key is and is for."""
    place = "hardware key" if key.hardware else "key"
    return f"{key.use.value}s with {place} {key.key_id} ({key.scheme})"


_MAY = {KeyUse.APPROVE: "approve", KeyUse.PROPOSE: "prove to have proposed"}


def requirements_words(requirements: Sequence[Requirement]) -> str:
    """Return who must approve."""
    return " and ".join(map(shown, requirements))


def _asked(rule: Rule) -> Iterator[str]:
    if rule.require:
        yield f"approved by {requirements_words(rule.require)}"
    if rule.hardware_key:
        yield "with hardware keys"
    if rule.min_ladder_level is not None:
        yield f"dry run at L{rule.min_ladder_level} or better"
    if rule.max_approval_seconds is not None:
        yield f"approvals hold for at most {rule.max_approval_seconds} seconds"
    if rule.approve_steps:
        yield "each such step approved once more before it is committed"
    if rule.refuse:
        yield "refused, whoever approves"


def _parts(when: Condition) -> Iterator[str]:
    if when.step_kinds:
        yield f"a step is {_either(when.step_kinds)}"
    if when.risk_facts:
        yield f"the dry run found {_either(when.risk_facts)}"
    if when.min_risk is not None:
        yield f"the risk is {when.min_risk} or higher"
    if when.workspaces:
        yield f"the workspace is {_either(when.workspaces)}"
    if when.labels:
        yield f"the workspace is labelled {_either(when.labels)}"
    if when.min_changes:
        yield f"{when.min_changes} or more changes are made"
    if when.min_bytes:
        yield f"the changed files have {when.min_bytes} or more bytes"
    yield from _parts_of_the_proposal(when)


def _parts_of_the_proposal(when: Condition) -> Iterator[str]:
    if when.days:
        yield f"the day is {_either(when.days)} in UTC"
    if when.hours is not None:
        yield f"the time is {hours_text(when.hours)} in UTC"
    if when.proposers:
        yield f"it was proposed by {_either([PROPOSERS[kind] for kind in when.proposers])}"


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
