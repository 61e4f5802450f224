"""Who must approve what: rules over facts, all of them added up.

Everything here is pure, and everybody who asks gets the same answer: the executor, whose answer alone counts and who
computes the facts itself; the orchestrator, which must know when to stop waiting; the client, which explains a decision
and replays it from a bundle.

Rules only ever add. Each rule whose condition holds adds its requirements and conditions to the demand, and one person
fills one place among all requirements. A fact that is not known counts as if it made the condition hold, so that not
knowing never makes a demand weaker; but a policy of which nothing holds for certain refuses. The labels of a workspace
that the policy says nothing about are such a fact.

What a vote says about itself is not believed: it counts where its key is, in this very policy, one that this person
approves with, and as a hardware key's where the policy says so, too. Somebody who voted with a file's key and with a
hardware key counts with the hardware key. In which order votes and persons come changes nothing.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from itertools import chain
from typing import Final

RISK_LEVELS: Final = ("low", "medium", "high")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

MAX_COUNT: Final = 100
"""The most persons that one requirement asks for."""

MAX_PLACES: Final = 10_000
"""The most persons that a demand which is read from a document asks for, all requirements together."""

EVERYBODY: Final = ""
"""The group of all persons who have a key to approve with."""


class PersonKind(enum.Enum):
    """What somebody of the trust file is. Agents never approve."""

    PERSON = "person"
    AGENT = "agent"


class KeyUse(enum.Enum):
    """What a key may be used for; one key has one use."""

    APPROVE = "approve"
    PROPOSE = "propose"


class ProposerKind(enum.Enum):
    """What a plan's own signatures prove about who asked for it."""

    UNKNOWN = "unknown"
    PERSON = "person"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key and the one signature scheme it is taken for."""

    key_id: str
    """Fingerprint as OpenSSH prints it."""
    scheme: str
    public_key: str
    """OpenSSH's one-line form, without a comment."""
    use: KeyUse = KeyUse.APPROVE
    hardware: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody the executor knows."""

    person_id: str
    keys: tuple[Key, ...]
    kind: PersonKind = PersonKind.PERSON
    sponsor: str = ""
    """The person behind an agent; empty for a person."""

    @property
    def approves(self) -> bool:
        """Whether this one may approve at all."""
        return self.kind is PersonKind.PERSON and any(key.use is KeyUse.APPROVE for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Persons who can fill a requirement."""

    group_id: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """So many distinct persons of a group."""

    count: int
    group: str = EVERYBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Where a rule holds: everything that is given must, and of a list one entry is enough."""

    step_kinds: tuple[str, ...] = ()
    risk_facts: tuple[str, ...] = ()
    min_risk: str | None = None
    workspaces: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_changes: int = 0
    min_bytes: int = 0
    days: tuple[str, ...] = ()
    """In UTC."""
    hours: tuple[time, time] | None = None
    """In UTC, the end not included; may run over midnight."""
    proposers: tuple[ProposerKind, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where its condition holds, everything that it asks for is needed."""

    rule_id: str
    when: Condition = Condition()
    require: tuple[Requirement, ...] = ()
    min_ladder_level: int | None = None
    """0 to 3."""
    hardware_key: bool = False
    max_approval_seconds: int | None = None
    refuse: bool = False
    approve_steps: bool = False
    """The matching steps need a signature of their own before they are committed: those of the condition's kinds, or
    all where it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a decision over approvals needs of the trust file."""

    executor_id: str
    trust_version: int
    expires_at: datetime
    approvals_required: int
    """Persons who must approve besides what the rules say; 0 leaves it to the rules."""
    self_approval: bool
    max_approval_seconds: int
    persons: tuple[Person, ...]
    groups: tuple[Group, ...] = ()
    rules: tuple[Rule, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each workspace that has a table in the trust file, which may be empty. Those of others are not known."""
    limits_digest: str = ""

    @property
    def in_force(self) -> bool:
        """Whether the operator wrote a policy at all; without one nothing is approved or dry run."""
        return self.approvals_required > 0 or bool(self.rules)

    def person(self, person_id: str) -> Person | None:
        """Return somebody by id."""
        return next((one for one in self.persons if one.person_id == person_id), None)

    def approvers(self, group: str) -> frozenset[str]:
        """Return the persons of a group who may approve; of a group that is not there, nobody."""
        everybody = frozenset(one.person_id for one in self.persons if one.approves)
        if group == EVERYBODY:
            return everybody
        members = next((one.members for one in self.groups if one.group_id == group), ())
        return everybody & frozenset(members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposer:
    """Who asked, as far as it is proven."""

    kind: ProposerKind = ProposerKind.UNKNOWN
    person: str = ""
    sponsor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What rules look at. `None` is a fact that is not known."""

    step_kinds: frozenset[str]
    risk_facts: frozenset[str] | None
    risk: str | None
    workspace_id: str
    changes: int | None
    """Changed paths of all steps, each step's counted."""
    size: int | None
    """Bytes of all changed files as they will be."""
    at: datetime
    proposer: Proposer = Proposer()
    steps: tuple[tuple[str, str], ...] | None = None
    """Id and kind of each step, in the plan's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Everything that the matching rules ask for together."""

    requirements: tuple[Requirement, ...] = ()
    rules: tuple[str, ...] = ()
    max_approval_seconds: int = 0
    hardware_key: bool = False
    min_ladder_level: int | None = None
    refused: str = ""
    """Why nobody can approve this; empty where somebody can."""
    approve_steps: tuple[str, ...] = ()
    """Ids of the steps that need a signature of their own before they are committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One valid signature under an approval."""

    person: str
    key_id: str
    hardware: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the votes are enough, and if not the stable reason and what is missing."""

    reason: str
    """Empty where the demand is met."""
    message: str
    counted: tuple[Vote, ...]
    missing: tuple[Requirement, ...]
    excluded: Mapping[str, str]
    """Persons who do not count, and why."""

    @property
    def met(self) -> bool:
        """Whether the demand is met."""
        return not self.reason


def demand_of(policy: Policy, facts: Facts) -> Demand:
    """Return what a policy demands of the approvals of something with these facts."""
    certain = [rule for rule in policy.rules if _holds(rule.when, policy, facts) is True]
    matching = [rule for rule in policy.rules if _holds(rule.when, policy, facts) is not False]
    base = (Requirement(count=policy.approvals_required),) if policy.approvals_required else ()
    lifetimes = [rule.max_approval_seconds for rule in matching if rule.max_approval_seconds is not None]
    levels = [rule.min_ladder_level for rule in matching if rule.min_ladder_level is not None]
    requirements = (*base, *chain.from_iterable(rule.require for rule in matching))
    return Demand(
        requirements=requirements,
        rules=tuple(rule.rule_id for rule in matching),
        max_approval_seconds=min([policy.max_approval_seconds, *lifetimes]),
        hardware_key=any(rule.hardware_key for rule in matching),
        min_ladder_level=max(levels, default=None),
        refused=_refused(policy, matching, sure=bool(base or certain), requirements=requirements)
        or _refused_for_its_proposer(policy, matching, certain, facts.proposer)
        or _refused_for_its_steps(matching, facts),
        approve_steps=_steps_to_approve(matching, facts.steps or ()),
    )


def decide(policy: Policy, demand: Demand, proposer: Proposer, votes: Sequence[Vote]) -> Verdict:
    """Tell whether votes meet a demand.

    Args:
        policy: who belongs to which group.
        demand: what `demand_of` returned.
        proposer: who asked; the proposer and an agent's sponsor do not count, unless the policy allows self-approval.
        votes: valid signatures of approvals that agree; whoever denies is dealt with before.
    """
    excluded = excluded_by(policy, proposer)
    usable = tuple(_usable(policy, demand, votes))
    counted = tuple(vote for vote in usable if vote.person not in excluded)
    missing = unfilled(policy, demand.requirements, [vote.person for vote in counted])
    reason, message = _why(policy, demand, proposer, votes, excluded, missing)
    return Verdict(reason=reason, message=message, counted=counted, missing=missing, excluded=excluded)


def excluded_by(policy: Policy, proposer: Proposer) -> Mapping[str, str]:
    """Return the persons whose approval does not count because of who proposed, and why."""
    if policy.self_approval:
        return {}
    found = {}
    if proposer.sponsor:
        found[proposer.sponsor] = f"stands behind {proposer.person}, who proposed"
    if proposer.person:
        found[proposer.person] = "proposed the plan"
    return found


def unfilled(policy: Policy, requirements: Sequence[Requirement], persons: Iterable[str]) -> tuple[Requirement, ...]:
    """Return what is left of requirements when each of the persons fills one place, as many places as can be.

    The places of the smallest groups are filled first, so that what is left is what the most people can fill.
    """
    places = [requirement.group for requirement in requirements for _ in range(requirement.count)]
    allowed = {group: policy.approvers(group) for group in dict.fromkeys(places)}
    present = sorted(set(persons))
    taken: dict[str, int] = {}
    order = sorted(range(len(places)), key=lambda number: len(allowed[places[number]]))
    left: list[int] = []
    full: set[str] = set()
    for number in order:
        # Where one place of a group stays empty, so do all that follow: moving others never makes room for it again.
        if places[number] in full or not _fill(number, places, allowed, present, taken, set()):
            full.add(places[number])
            left.append(number)
    empty = [places[number] for number in sorted(left)]
    return tuple(Requirement(count=empty.count(group), group=group) for group in dict.fromkeys(empty))


def _fill(
    number: int,
    places: Sequence[str],
    allowed: Mapping[str, frozenset[str]],
    present: Sequence[str],
    taken: dict[str, int],
    tried: set[str],
) -> bool:
    """Find somebody for a place, moving others to places of theirs where that helps (an augmenting path)."""
    for person in present:
        if person in tried or person not in allowed[places[number]]:
            continue
        tried.add(person)
        other = taken.get(person)
        if other is None or _fill(other, places, allowed, present, taken, tried):
            taken[person] = number
            return True
    return False


def _usable(policy: Policy, demand: Demand, votes: Sequence[Vote]) -> Iterator[Vote]:
    """Yield one vote for each person and each key, of those that may count at all; the best of each person."""
    persons: set[str] = set()
    keys: set[str] = set()
    for vote in sorted(votes, key=lambda vote: (vote.person, not vote.hardware, vote.key_id)):
        if vote.person in persons or vote.key_id in keys:
            continue
        hardware = _proven_hardware(policy, vote)
        if hardware is None or (demand.hardware_key and not hardware):
            continue
        persons.add(vote.person)
        keys.add(vote.key_id)
        yield vote


def _proven_hardware(policy: Policy, vote: Vote) -> bool | None:
    """Tell whether a vote was made with a hardware key; None where it is no vote of somebody who may approve."""
    person = policy.person(vote.person)
    if person is None or person.kind is not PersonKind.PERSON:
        return None
    found = [key for key in person.keys if key.key_id == vote.key_id and key.use is KeyUse.APPROVE]
    if not found:
        return None
    return vote.hardware and all(key.hardware for key in found)


def _why(
    policy: Policy,
    demand: Demand,
    proposer: Proposer,
    votes: Sequence[Vote],
    excluded: Mapping[str, str],
    missing: Sequence[Requirement],
) -> tuple[str, str]:
    if demand.refused:
        return "POLICY_REFUSES", demand.refused
    if _may_be_the_proposer(policy, demand, proposer):
        return "SELF_APPROVAL", "nobody has proven to be the plan's proposer, so that an approver may be the proposer"
    if not missing:
        return "", ""
    persons = [vote.person for vote in _usable(policy, demand, votes)]
    if not unfilled(policy, demand.requirements, persons):
        return "SELF_APPROVAL", "the approval of whoever proposed the plan, or stands behind its agent, does not count"
    persons = [vote.person for vote in _usable(policy, replace(demand, hardware_key=False), votes)]
    others = [person for person in persons if person not in excluded]
    if demand.hardware_key and not unfilled(policy, demand.requirements, others):
        return "HARDWARE_KEY_NEEDED", "a rule takes only signatures of hardware keys, made with a touch"
    return "QUORUM_NOT_MET", f"still missing: {', '.join(map(shown, missing))}"


def shown(requirement: Requirement) -> str:
    """Return a requirement in words."""
    of = f"of group {requirement.group}" if requirement.group else "of all who may approve"
    return f"{requirement.count} {of}"


def _refused(policy: Policy, matching: Sequence[Rule], *, sure: bool, requirements: Sequence[Requirement]) -> str:
    refusing = [rule.rule_id for rule in matching if rule.refuse]
    if refusing:
        return f"rule {refusing[0]} refuses this"
    if not policy.in_force:
        return "the trust file has no policy"
    if not sure:
        return "no rule of the policy is certainly about this"
    if not requirements:
        return "the rules that match ask for nobody's approval"
    return ""


def _refused_for_its_proposer(
    policy: Policy, matching: Sequence[Rule], certain: Sequence[Rule], proposer: Proposer
) -> str:
    """Refuse where only a rule that may not be about this at all would allow for a proposer who is not known.

    Such a rule is the one thing in a policy that takes something away; what is not known must not be what does it.
    """
    if proposer.kind is not ProposerKind.UNKNOWN or policy.self_approval:
        return ""
    allowing = [rule for rule in matching if ProposerKind.UNKNOWN in rule.when.proposers]
    if not allowing or any(rule in certain for rule in allowing):
        return ""
    return (
        f"nobody has proven to be the plan's proposer, and whether rule {allowing[0].rule_id} is about this is unknown"
    )


def _refused_for_its_steps(matching: Sequence[Rule], facts: Facts) -> str:
    """Refuse where some steps need a signature of their own and nobody can say which."""
    marking = [rule for rule in matching if rule.approve_steps]
    if facts.steps is not None or not marking:
        return ""
    return f"which steps rule {marking[0].rule_id} wants approved one by one is unknown"


def _steps_to_approve(matching: Iterable[Rule], steps: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the ids of the steps that rules mark, in the plan's order: those of the rule's kinds, or all."""
    marking = [rule.when.step_kinds for rule in matching if rule.approve_steps]
    return tuple(step_id for step_id, kind in steps if any(not kinds or kind in kinds for kinds in marking))


def _may_be_the_proposer(policy: Policy, demand: Demand, proposer: Proposer) -> bool:
    """Tell whether any approver may be the proposer: nobody has proven to be, and no matching rule allows for that."""
    if proposer.kind is not ProposerKind.UNKNOWN or policy.self_approval:
        return False
    matching = (rule for rule in policy.rules if rule.rule_id in demand.rules)
    return not any(ProposerKind.UNKNOWN in rule.when.proposers for rule in matching)


def _holds(when: Condition, policy: Policy, facts: Facts) -> bool | None:
    """Tell whether a condition holds; None where that can not be known."""
    parts = tuple(_parts(when, policy, facts))
    if False in parts:
        return False
    return None if None in parts else True


def _parts(when: Condition, policy: Policy, facts: Facts) -> Iterator[bool | None]:
    yield from _parts_of_the_change(when, facts)
    yield from _parts_around_it(when, policy, facts)


def _parts_of_the_change(when: Condition, facts: Facts) -> Iterator[bool | None]:
    if when.step_kinds:
        yield not facts.step_kinds.isdisjoint(when.step_kinds)
    if when.risk_facts:
        yield None if facts.risk_facts is None else not facts.risk_facts.isdisjoint(when.risk_facts)
    if when.min_risk is not None:
        yield None if facts.risk not in RISK_LEVELS else _rank(facts.risk) >= _rank(when.min_risk)
    if when.min_changes:
        yield None if facts.changes is None else facts.changes >= when.min_changes
    if when.min_bytes:
        yield None if facts.size is None else facts.size >= when.min_bytes


def _parts_around_it(when: Condition, policy: Policy, facts: Facts) -> Iterator[bool | None]:
    if when.workspaces:
        yield facts.workspace_id in when.workspaces
    if when.labels:
        labels = policy.labels.get(facts.workspace_id)
        yield None if labels is None else not frozenset(labels).isdisjoint(when.labels)
    if when.days:
        yield DAYS[facts.at.astimezone(UTC).weekday()] in when.days
    if when.hours is not None:
        yield _within(facts.at.astimezone(UTC).time(), when.hours)
    if when.proposers:
        unknown = facts.proposer.kind is ProposerKind.UNKNOWN
        yield True if facts.proposer.kind in when.proposers else (None if unknown else False)


def _rank(level: str) -> int:
    return RISK_LEVELS.index(level)


def _within(moment: time, hours: tuple[time, time]) -> bool:
    begin, end = hours
    return begin <= moment < end if begin < end else moment >= begin or moment < end
