"""The policy's rules only ever add, and counting is what counting by hand comes to."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gonogo.policy import (
    DAYS,
    EVERYBODY,
    RISK_LEVELS,
    Condition,
    Demand,
    Facts,
    Group,
    Key,
    KeyUse,
    Person,
    PersonKind,
    Policy,
    Proposer,
    ProposerKind,
    Requirement,
    Rule,
    Vote,
    decide,
    demand_of,
    unfilled,
)

NAMES = ("ann", "ben", "cat", "dan")
GROUPS = ("red", "blue", "green")
STEPS = ("write_file", "run_command", "delete_path")
FACTS = ("runs_later", "delete", "binary")
PLACES = ("site", "shop")
LABELS = ("prod", "test")


def key(name: str, number: int, *, hardware: bool = False, use: KeyUse = KeyUse.APPROVE) -> Key:
    """A key that is nobody else's."""
    return Key(key_id=f"{name}-{number}", scheme="sshsig", public_key="", use=use, hardware=hardware)


def person(name: str) -> Person:
    """Somebody with a key in a file and one in hardware."""
    return Person(person_id=name, keys=(key(name, 0), key(name, 1, hardware=True)))


BOT = Person(person_id="bot", keys=(key("bot", 0, use=KeyUse.PROPOSE),), kind=PersonKind.AGENT, sponsor="ann")


def subsets(names: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Some of them, in any order."""
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


requirements = st.builds(Requirement, count=st.integers(1, 3), group=st.sampled_from((*GROUPS, EVERYBODY)))
conditions = st.builds(
    Condition,
    step_kinds=subsets(STEPS),
    risk_facts=subsets(FACTS),
    min_risk=st.sampled_from((None, *RISK_LEVELS)),
    workspaces=subsets(PLACES),
    labels=subsets(LABELS),
    min_changes=st.integers(0, 5),
    min_bytes=st.integers(0, 5),
    days=subsets(DAYS),
    hours=st.none() | st.just((time(18), time(8))) | st.just((time(8), time(18))),
    proposers=st.lists(st.sampled_from(ProposerKind), unique=True).map(tuple),
)
rules = st.builds(
    Rule,
    rule_id=st.just(""),
    when=st.just(Condition()) | conditions,  # many parts at once hold so seldom that rules would hardly meet
    require=st.lists(requirements, max_size=2).map(tuple),
    min_ladder_level=st.none() | st.integers(0, 3),
    hardware_key=st.booleans(),
    max_approval_seconds=st.none() | st.integers(1, 100),
    refuse=st.sampled_from((False, False, False, True)),
    approve_steps=st.booleans(),
)
rule_lists = st.lists(rules, max_size=4).map(
    lambda found: tuple(replace(rule, rule_id=f"r{number}") for number, rule in enumerate(found))
)
group_lists = st.tuples(
    *(
        st.builds(
            Group,
            group_id=st.just(name),
            members=subsets(NAMES) | st.permutations(NAMES).map(lambda some: tuple(some[:2])),
        )
        for name in GROUPS
    )
)
policies = st.builds(
    Policy,
    executor_id=st.just("e"),
    trust_version=st.just(1),
    expires_at=st.just(datetime(2100, 1, 1, tzinfo=UTC)),
    approvals_required=st.integers(0, 2),
    self_approval=st.booleans(),
    max_approval_seconds=st.just(60),
    persons=st.just((*map(person, NAMES), BOT)),
    groups=group_lists,
    rules=rule_lists,
    labels=st.dictionaries(st.sampled_from(PLACES), subsets(LABELS)),
)
proposers = st.sampled_from(
    (
        Proposer(),
        Proposer(kind=ProposerKind.PERSON, person="ann"),
        Proposer(kind=ProposerKind.PERSON, person="ben"),
        Proposer(kind=ProposerKind.AGENT, person="bot", sponsor="ann"),
    )
)
facts_strategy = st.builds(
    Facts,
    step_kinds=subsets(STEPS).map(frozenset),
    risk_facts=subsets(FACTS).map(frozenset),
    risk=st.sampled_from(RISK_LEVELS),
    workspace_id=st.sampled_from(PLACES),
    changes=st.integers(0, 6),
    size=st.integers(0, 6),
    at=st.datetimes(datetime(2027, 1, 1), datetime(2027, 1, 9), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    proposer=proposers,
    steps=st.lists(st.sampled_from(STEPS), max_size=4).map(
        lambda kinds: tuple((f"s{number}", kind) for number, kind in enumerate(kinds))
    ),
)
places_strategy = st.lists(requirements, max_size=3) | st.lists(
    st.builds(Requirement, count=st.just(1), group=st.sampled_from(GROUPS)), min_size=2, max_size=3
)
pairs = st.permutations(NAMES).map(lambda names: tuple(names[:2]))
NOBODY = Policy(
    executor_id="e",
    trust_version=1,
    expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    approvals_required=0,
    self_approval=False,
    max_approval_seconds=60,
    persons=(),
)
votes_strategy = st.lists(
    st.sampled_from(
        [Vote(person=name, key_id=f"{name}-{number}", hardware=bool(number)) for name in NAMES for number in (0, 1)]
    ),
    max_size=8,
)


def needs_no_less(more: Demand, less: Demand) -> bool:
    """Whoever meets the first meets the second."""
    if more.refused:
        return True
    if less.refused:
        return False
    left = list(more.requirements)
    for requirement in less.requirements:
        if requirement not in left:
            return False
        left.remove(requirement)
    return (
        more.max_approval_seconds <= less.max_approval_seconds
        and more.hardware_key >= less.hardware_key
        and (less.min_ladder_level is None or (more.min_ladder_level or 0) >= less.min_ladder_level)
        and set(more.rules) >= set(less.rules)
        and set(more.approve_steps) >= set(less.approve_steps)
    )


@given(policies, facts_strategy, st.data())
def test_more_of_anything_never_needs_less(policy: Policy, facts: Facts, data: st.DataObject) -> None:
    """A higher risk, more facts, changes, bytes or kinds of steps only ever add to what is demanded."""
    higher = st.sampled_from(RISK_LEVELS[RISK_LEVELS.index(facts.risk or "low") :])
    bigger = replace(
        facts,
        risk=data.draw(higher),
        changes=(facts.changes or 0) + data.draw(st.integers(0, 3)),
        size=(facts.size or 0) + data.draw(st.integers(0, 3)),
        risk_facts=(facts.risk_facts or frozenset()) | set(data.draw(subsets(FACTS))),
        step_kinds=facts.step_kinds | set(data.draw(subsets(STEPS))),
    )
    before = demand_of(policy, facts)
    assert needs_no_less(demand_of(policy, bigger), before) or _asked_nobody(before)


@given(policies, facts_strategy, rules, st.integers(0, 4))
def test_one_more_rule_never_needs_less(policy: Policy, facts: Facts, rule: Rule, place: int) -> None:
    """A rule that is added asks for more or for nothing; only where nobody was asked before may it let something be."""
    before = demand_of(policy, facts)
    longer = (*policy.rules[:place], replace(rule, rule_id="new"), *policy.rules[place:])
    after = demand_of(replace(policy, rules=longer), facts)
    assert needs_no_less(after, before) or _asked_nobody(before)


@given(policies, facts_strategy, st.data())
def test_what_is_not_known_never_needs_less(policy: Policy, facts: Facts, data: st.DataObject) -> None:
    """A fact that is not known counts as the strictest that it could be."""
    unknown = replace(
        facts,
        risk=data.draw(st.sampled_from((facts.risk, None))),
        risk_facts=data.draw(st.sampled_from((facts.risk_facts, None))),
        changes=data.draw(st.sampled_from((facts.changes, None))),
        size=data.draw(st.sampled_from((facts.size, None))),
        proposer=data.draw(st.sampled_from((facts.proposer, Proposer()))),
        steps=data.draw(st.sampled_from((facts.steps, None))),
    )
    assert needs_no_less(demand_of(policy, unknown), demand_of(policy, facts)) or _asked_nobody(
        demand_of(policy, facts)
    )


@given(policies, facts_strategy)
def test_labels_that_are_not_known_never_need_less(policy: Policy, facts: Facts) -> None:
    """A workspace that the policy says nothing about may have every label."""
    unlabelled = replace(
        policy, labels={name: labels for name, labels in policy.labels.items() if name != facts.workspace_id}
    )
    before = demand_of(policy, facts)
    assert needs_no_less(demand_of(unlabelled, facts), before) or _asked_nobody(before)


@given(policies, facts_strategy, votes_strategy, st.data())
def test_one_more_vote_never_takes_an_approval_away(
    policy: Policy, facts: Facts, votes: list[Vote], data: st.DataObject
) -> None:
    """What is approved stays approved whoever approves besides."""
    demand = demand_of(policy, facts)
    more = [*votes, data.draw(votes_strategy.filter(bool))[0]]
    before, after = (decide(policy, demand, facts.proposer, given_votes) for given_votes in (votes, more))
    assert after.met or not before.met
    assert sum(one.count for one in after.missing) <= sum(one.count for one in before.missing)


@given(policies, facts_strategy, votes_strategy, st.randoms(use_true_random=False))
def test_the_order_of_votes_says_nothing(policy: Policy, facts: Facts, votes: list[Vote], random: object) -> None:
    """The same votes in another order come to the very same verdict."""
    demand = demand_of(policy, facts)
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert decide(policy, demand, facts.proposer, shuffled) == decide(policy, demand, facts.proposer, votes)


@given(policies, facts_strategy, votes_strategy)
def test_a_verdict_counts_distinct_persons_and_keys(policy: Policy, facts: Facts, votes: list[Vote]) -> None:
    """Nobody and no key counts twice, no excluded person, no agent, and where hardware is asked for nothing else."""
    demand = demand_of(policy, facts)
    verdict = decide(policy, demand, facts.proposer, votes)
    persons, keys = [vote.person for vote in verdict.counted], [vote.key_id for vote in verdict.counted]
    assert len(set(persons)) == len(persons)
    assert len(set(keys)) == len(keys)
    assert not set(persons) & set(verdict.excluded)
    assert all(vote.hardware for vote in verdict.counted) or not demand.hardware_key
    if verdict.met:
        assert sum(one.count for one in demand.requirements) <= len(persons)


@given(policies, facts_strategy)
def test_the_agents_sponsor_and_the_proposer_never_count(policy: Policy, facts: Facts) -> None:
    """With every vote there is, a proposer's own and a sponsor's are left out where self-approval is refused."""
    assume(not policy.self_approval)
    every = [Vote(person=one.person_id, key_id=key.key_id, hardware=True) for one in policy.persons for key in one.keys]
    verdict = decide(policy, demand_of(policy, facts), facts.proposer, every)
    assert {facts.proposer.person, facts.proposer.sponsor, "bot"}.isdisjoint(vote.person for vote in verdict.counted)


@given(policies, places_strategy, subsets((*NAMES, "bot", "nobody")))
@settings(max_examples=300)
def test_places_are_filled_as_well_as_can_be(
    policy: Policy, wanted: list[Requirement], persons: tuple[str, ...]
) -> None:
    """One person fills one place, and no other way of placing them leaves fewer open."""
    left = unfilled(policy, wanted, persons)
    assert sum(one.count for one in left) == _fewest_left(policy, wanted, persons)


@given(st.tuples(pairs, pairs, pairs), st.permutations(NAMES), st.integers(2, 3))
@settings(max_examples=300)
def test_whoever_stands_in_the_way_is_moved(members: tuple[tuple[str, ...], ...], names: list[str], count: int) -> None:
    """Where two belong to the same group, the one who belongs to another too gives way."""
    groups = tuple(Group(group_id=name, members=some) for name, some in zip(GROUPS, members, strict=True))
    policy = replace(NOBODY, persons=tuple(map(person, NAMES)), groups=groups)
    wanted = [Requirement(count=1, group=name) for name in GROUPS]
    left = unfilled(policy, wanted, names[:count])
    assert sum(one.count for one in left) == _fewest_left(policy, wanted, names[:count])


@given(policies, st.lists(requirements, max_size=3), subsets(NAMES))
def test_somebody_twice_is_somebody_once(policy: Policy, wanted: list[Requirement], persons: tuple[str, ...]) -> None:
    """Persons who come twice, or in another order, leave the very same places open."""
    assert unfilled(policy, wanted, [*reversed(persons), *persons]) == unfilled(policy, wanted, persons)


def _asked_nobody(demand: Demand) -> bool:
    """It was refused because no rule asked anybody: there a rule that does is what makes an approval possible."""
    return demand.refused in {
        "the trust file has no policy",
        "no rule of the policy is certainly about this",
        "the rules that match ask for nobody's approval",
    }


def _fewest_left(policy: Policy, wanted: Sequence[Requirement], persons: Sequence[str]) -> int:
    """Try every way of giving persons to places."""
    places = [one.group for one in wanted for _ in range(one.count)]

    def most(left: Sequence[str], free: frozenset[int]) -> int:
        if not left:
            return 0
        first, rest = left[0], left[1:]
        taking = (1 + most(rest, free - {place}) for place in free if first in policy.approvers(places[place]))
        return max(most(rest, free), *taking, 0)

    return len(places) - most(persons, frozenset(range(len(places))))
