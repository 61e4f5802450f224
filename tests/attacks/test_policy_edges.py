"""Edges of the policy: what is not known, groups of nobody, rules that overlap. None of them lets more pass."""

import dataclasses
from datetime import UTC, datetime, time

import pytest

from gonogo.policy import (
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
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ALICE = Proposer(kind=ProposerKind.PERSON, person="alice")


def person(name: str, *, hardware: bool = False) -> Person:
    """Somebody with a key."""
    return Person(person_id=name, keys=(Key(key_id=f"key-{name}", scheme="sshsig", public_key="", hardware=hardware),))


BOT = Person(
    person_id="bot",
    kind=PersonKind.AGENT,
    sponsor="alice",
    keys=(Key(key_id="key-bot", scheme="ed25519", public_key="", use=KeyUse.PROPOSE),),
)
POLICY = Policy(
    executor_id="e",
    trust_version=1,
    expires_at=NOON,
    approvals_required=1,
    self_approval=False,
    max_approval_seconds=3600,
    persons=(person("alice"), person("bob"), person("carol", hardware=True), BOT),
    groups=(Group(group_id="nobody", members=()), Group(group_id="agents", members=("bot",))),
    labels={"dev-1": ("dev",), "prod-1": ("prod",)},
)


def demanded(*rules: Rule, proposer: Proposer = ALICE, **changes: object) -> tuple[Policy, Demand]:
    """A policy with some rules, and what it demands of a small change at noon."""
    policy = dataclasses.replace(POLICY, rules=rules)
    facts = Facts(
        step_kinds=frozenset({"write_file"}),
        risk_facts=frozenset(),
        risk="low",
        workspace_id="dev-1",
        changes=1,
        size=10,
        at=NOON,
        proposer=proposer,
    )
    return policy, demand_of(policy, dataclasses.replace(facts, **changes))  # type: ignore[arg-type]  # any of them


def votes(*names: str) -> list[Vote]:
    """Signatures of persons with the key that they have."""
    return [Vote(person=name, key_id=f"key-{name}", hardware=name == "carol") for name in names]


def reason(policy: Policy, demand: Demand, *names: str, proposer: Proposer = ALICE) -> str:
    """Why the approvals of some persons are not enough; empty where they are."""
    return decide(policy, demand, proposer, votes(*names)).reason


class TestAnUnknownProposer:
    ALLOWED_IN_DEV = Rule(
        rule_id="unsigned-in-dev",
        when=Condition(labels=("dev",), proposers=(ProposerKind.UNKNOWN,)),
        require=(Requirement(count=2),),
    )

    @pytest.mark.parametrize(
        ("workspace", "wanted"), [("dev-1", ""), ("prod-1", "SELF_APPROVAL"), ("without-a-table", "POLICY_REFUSES")]
    )
    def test_only_a_rule_that_certainly_holds_allows_for_it(self, workspace: str, wanted: str) -> None:
        """A workspace whose labels are not known is not taken for one in which unsigned plans are allowed."""
        policy, demand = demanded(self.ALLOWED_IN_DEV, proposer=Proposer(), workspace_id=workspace)
        assert reason(policy, demand, "alice", "bob", "carol", proposer=Proposer()) == wanted

    def test_another_rule_that_holds_allows_for_it_all_the_same(self) -> None:
        """Where one rule certainly allows for it, another of which that is not known takes nothing away."""
        anywhere = Rule(
            rule_id="unsigned",
            when=Condition(proposers=(ProposerKind.UNKNOWN,)),
            require=(Requirement(count=2),),
        )
        policy, demand = demanded(self.ALLOWED_IN_DEV, anywhere, proposer=Proposer(), workspace_id="without-a-table")
        assert reason(policy, demand, "alice", "bob", proposer=Proposer()) == "QUORUM_NOT_MET"
        assert reason(policy, demand, "alice", "bob", "carol", proposer=Proposer()) == "QUORUM_NOT_MET"
        assert sum(one.count for one in demand.requirements) == 5

    def test_whoever_is_known_is_not_touched_by_it(self) -> None:
        """The same workspace, with a signed plan: the uncertain rule asks for nothing, as it is about nobody known."""
        policy, demand = demanded(self.ALLOWED_IN_DEV, workspace_id="without-a-table")
        assert not demand.refused
        assert reason(policy, demand, "bob") == ""


class TestGroups:
    @pytest.mark.parametrize("group", ["nobody", "agents", "not-there"])
    def test_places_that_nobody_can_fill_stay_empty(self, group: str) -> None:
        """A group of nobody, of agents, or that is not there asks for somebody who does not exist: never enough."""
        policy, demand = demanded(Rule(rule_id="r", require=(Requirement(count=1, group=group),)))
        assert reason(policy, demand, "bob", "carol") == "QUORUM_NOT_MET"

    def test_an_agents_vote_counts_nowhere(self) -> None:
        """Not even in a group that lists the agent."""
        policy, demand = demanded(Rule(rule_id="r", require=(Requirement(count=1, group="agents"),)))
        assert reason(policy, demand, "bob", "bot") == "QUORUM_NOT_MET"

    def test_rules_that_ask_for_nobody_let_nothing_pass(self) -> None:
        """A policy of conditions without a single requirement refuses."""
        rule = Rule(rule_id="r", hardware_key=True)
        policy = dataclasses.replace(POLICY, approvals_required=0, rules=(rule,))
        demand = demand_of(
            policy,
            Facts(
                step_kinds=frozenset(),
                risk_facts=frozenset(),
                risk="low",
                workspace_id="dev-1",
                changes=0,
                size=0,
                at=NOON,
                proposer=ALICE,
            ),
        )
        assert reason(policy, demand, "carol") == "POLICY_REFUSES"


class TestOverlaps:
    def test_one_rule_with_hardware_and_one_without(self) -> None:
        """Where one matching rule wants hardware, every counted signature is one of hardware."""
        plain = Rule(rule_id="plain", require=(Requirement(count=1),))
        hard = Rule(rule_id="hard", hardware_key=True)
        policy, demand = demanded(plain, hard)
        assert reason(policy, demand, "bob", "carol") == "HARDWARE_KEY_NEEDED"
        assert reason(policy, demanded(plain)[1], "bob", "carol") == ""

    @pytest.mark.parametrize(
        ("clock", "wanted"),
        [(time(17, 59), 1), (time(18), 2), (time(22), 3), (time(7, 59), 3), (time(8), 1), (time(0), 3)],
    )
    def test_hours_that_overlap_add_up(self, clock: time, wanted: int) -> None:
        """Evening and night overlap over midnight; at each moment what all that hold ask for is asked."""
        evening = Rule(rule_id="evening", when=Condition(hours=(time(18), time(8))), require=(Requirement(count=1),))
        night = Rule(rule_id="night", when=Condition(hours=(time(22), time(8))), require=(Requirement(count=1),))
        at = datetime.combine(NOON.date(), clock, tzinfo=UTC)
        _, demand = demanded(evening, night, at=at)
        assert sum(one.count for one in demand.requirements) == wanted

    def test_the_shortest_life_and_the_highest_level(self) -> None:
        """Of two rules the stricter number counts, in whichever order they stand."""
        rules = (
            Rule(rule_id="a", max_approval_seconds=60, min_ladder_level=1),
            Rule(rule_id="b", max_approval_seconds=600, min_ladder_level=3),
        )
        for order in (rules, rules[::-1]):
            _, demand = demanded(*order)
            assert (demand.max_approval_seconds, demand.min_ladder_level) == (60, 3)
