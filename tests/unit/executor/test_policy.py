"""The policy: what it demands, who counts, and what is said where that is not enough."""

from collections.abc import Callable
from dataclasses import replace
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
    excluded_by,
)
from gonogo.policy_document import (
    demand_from_proto,
    demand_to_proto,
    open_policy,
    policy_to_proto,
    proposer_from_proto,
    proposer_to_proto,
    seal_policy,
)
from gonogo.policy_words import demand_words, person_words, rule_words
from gonogo.sealing import SealingError, seal
from gonogo.signatures import new_signing_key
from gonogo.ssh_keys import load_public_key
from gonogo.v1 import evidence_pb2, policy_pb2
from tests.unit.executor.test_trust_file import HARDWARE

MONDAY = datetime(2027, 1, 4, 12, tzinfo=UTC)
SATURDAY_NIGHT = datetime(2027, 1, 9, 23, tzinfo=UTC)


def person(name: str, *, hardware: bool = False) -> Person:
    """Somebody with a key in a file, and perhaps one in hardware."""
    public = new_signing_key().public
    keys = [Key(key_id=public.key_id, scheme="sshsig", public_key=public.line)]
    if hardware:
        touched = load_public_key(HARDWARE)
        keys.append(Key(key_id=touched.key_id, scheme="sshsig", public_key=touched.line, hardware=True))
    return Person(person_id=name, keys=tuple(keys))


def agent(name: str, sponsor: str) -> Person:
    """An agent that can prove to have proposed."""
    public = new_signing_key().public
    only = Key(key_id=public.key_id, scheme="sshsig", public_key=public.line, use=KeyUse.PROPOSE)
    return Person(person_id=name, keys=(only,), kind=PersonKind.AGENT, sponsor=sponsor)


ANN, BEN, CAT = person("ann", hardware=True), person("ben"), person("cat")
BOT = agent("bot", "ann")
POLICY = Policy(
    executor_id="e",
    trust_version=1,
    expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    approvals_required=1,
    self_approval=False,
    max_approval_seconds=600,
    persons=(ANN, BEN, BOT, CAT),
    groups=(Group(group_id="security", members=("ann",)), Group(group_id="sre", members=("ann", "ben"))),
    labels={"site": ("prod",), "shop": ()},
)
FACTS = Facts(
    step_kinds=frozenset({"write_file"}),
    risk_facts=frozenset(),
    risk="low",
    workspace_id="site",
    changes=1,
    size=10,
    at=MONDAY,
    proposer=Proposer(kind=ProposerKind.AGENT, person="bot", sponsor="ann"),
)
PROVEN = Proposer(kind=ProposerKind.PERSON, person="cat")


def vote(one: Person, number: int = 0) -> Vote:
    """A vote with one of somebody's keys."""
    return Vote(person=one.person_id, key_id=one.keys[number].key_id, hardware=one.keys[number].hardware)


def needing(*requirements: Requirement, hardware: bool = False) -> Demand:
    """A demand for approvals."""
    return Demand(requirements=requirements, max_approval_seconds=600, hardware_key=hardware)


def with_rule(policy: Policy = POLICY, **rule: object) -> Policy:
    """The policy with one more rule."""
    return replace(policy, rules=(*policy.rules, Rule(rule_id=f"r{len(policy.rules)}", **rule)))  # type: ignore[arg-type]  # a test's own


class TestDemand:
    def test_without_a_policy_nothing_goes(self) -> None:
        """A trust file without a policy refuses whoever approves."""
        empty = replace(POLICY, approvals_required=0)
        assert not empty.in_force
        assert demand_of(empty, FACTS).refused == "the trust file has no policy"

    def test_everything_that_matches_adds_up(self) -> None:
        """All matching rules ask together, the strictest of each condition holds."""
        policy = with_rule(require=(Requirement(count=2, group="sre"),), max_approval_seconds=60, min_ladder_level=2)
        asked = (Requirement(count=1, group="security"),)
        policy = with_rule(policy, when=Condition(min_risk="low"), require=asked, min_ladder_level=3, hardware_key=True)
        policy = with_rule(policy, when=Condition(min_risk="high"), refuse=True)
        assert demand_of(policy, FACTS) == Demand(
            requirements=(Requirement(count=1), Requirement(count=2, group="sre"), *asked),
            rules=("r0", "r1"),
            max_approval_seconds=60,
            hardware_key=True,
            min_ladder_level=3,
        )

    @pytest.mark.parametrize(
        ("when", "holds"),
        [
            (Condition(step_kinds=("write_file", "run_command")), True),
            (Condition(step_kinds=("run_command",)), False),
            (Condition(risk_facts=("delete",)), False),
            (Condition(min_risk="medium"), False),
            (Condition(workspaces=("site", "shop")), True),
            (Condition(workspaces=("shop",)), False),
            (Condition(labels=("prod",)), True),
            (Condition(labels=("test",)), False),
            (Condition(min_changes=1), True),
            (Condition(min_changes=2), False),
            (Condition(min_bytes=10), True),
            (Condition(min_bytes=11), False),
            (Condition(days=("mon",)), True),
            (Condition(days=("sat", "sun")), False),
            (Condition(hours=(time(8), time(18))), True),
            (Condition(hours=(time(12), time(13))), True),
            (Condition(hours=(time(11), time(12))), False),
            (Condition(hours=(time(18), time(8))), False),
            (Condition(proposers=(ProposerKind.AGENT,)), True),
            (Condition(proposers=(ProposerKind.PERSON,)), False),
            (Condition(min_changes=1, workspaces=("shop",)), False),
        ],
    )
    def test_where_a_rule_holds(self, when: Condition, *, holds: bool) -> None:
        """Everything that a condition gives must hold, and of a list one entry."""
        assert demand_of(with_rule(when=when, refuse=True), FACTS).rules == (("r0",) if holds else ())

    def test_hours_over_midnight(self) -> None:
        """A night begins on one day and ends on the next, in UTC."""
        policy = with_rule(when=Condition(hours=(time(18), time(8))), refuse=True)
        assert demand_of(policy, replace(FACTS, at=SATURDAY_NIGHT)).refused

    def test_a_fact_that_is_not_known_matches(self) -> None:
        """What is not known counts as the strictest."""
        policy = with_rule(when=Condition(min_risk="high"), require=(Requirement(count=3),))
        assert demand_of(policy, replace(FACTS, risk=None)).rules == ("r0",)
        assert demand_of(policy, replace(FACTS, risk="severe")).rules == ("r0",)

    def test_the_labels_of_a_workspace_without_a_table_are_not_known(self) -> None:
        """A workspace that the file says nothing about may have every label; an empty table says that it has none."""
        policy = with_rule(when=Condition(labels=("prod",)), require=(Requirement(count=2),))
        assert demand_of(policy, replace(FACTS, workspace_id="elsewhere")).rules == ("r0",)
        assert demand_of(policy, replace(FACTS, workspace_id="shop")).rules == ()

    def test_rules_mark_the_steps_of_their_kinds(self) -> None:
        """Where a rule holds, or may, it marks the steps of its kinds, all where it names none; nothing else does."""
        steps = (("s1", "write_file"), ("s2", "run_sql"), ("s3", "write_file"))
        facts = replace(FACTS, step_kinds=frozenset({"write_file", "run_sql"}), steps=steps)

        def marked(when: Condition, facts: Facts = facts) -> tuple[str, ...]:
            return demand_of(with_rule(when=when, approve_steps=True), facts).approve_steps

        assert marked(Condition(step_kinds=("run_sql", "call_tool"))) == ("s2",)
        assert marked(Condition()) == ("s1", "s2", "s3")
        assert marked(Condition(min_risk="high")) == ()
        assert marked(Condition(min_risk="high"), replace(facts, risk=None)) == ("s1", "s2", "s3")
        assert demand_of(with_rule(hardware_key=True), facts).approve_steps == ()

    def test_steps_that_are_not_known_can_not_be_marked(self) -> None:
        """Where nobody can say which steps a rule marks, nothing can be approved."""
        policy = with_rule(approve_steps=True)
        assert "unknown" in demand_of(policy, replace(FACTS, steps=None)).refused
        assert not demand_of(policy, replace(FACTS, steps=())).refused
        assert not demand_of(with_rule(hardware_key=True), replace(FACTS, steps=None)).refused

    def test_rules_alone_must_be_certain(self) -> None:
        """Where only rules decide, one must hold for certain, and one must ask somebody."""
        alone = replace(POLICY, approvals_required=0)
        unsure = with_rule(alone, when=Condition(min_risk="high"), require=(Requirement(count=1),))
        assert "certainly" in demand_of(unsure, replace(FACTS, risk=None)).refused
        assert "certainly" in demand_of(unsure, FACTS).refused
        silent = with_rule(alone, hardware_key=True)
        assert "nobody's approval" in demand_of(silent, FACTS).refused
        assert not demand_of(with_rule(alone, require=(Requirement(count=1),)), FACTS).refused


class TestDecision:
    def test_enough(self) -> None:
        """Distinct persons of the right groups fill all places."""
        demand = needing(Requirement(count=1, group="security"), Requirement(count=1, group="sre"))
        verdict = decide(POLICY, demand, PROVEN, [vote(BEN), vote(ANN)])
        assert verdict.met
        assert [one.person for one in verdict.counted] == ["ann", "ben"]

    def test_one_person_fills_one_place(self) -> None:
        """Who belongs to both groups does not fill both places."""
        demand = needing(Requirement(count=1, group="security"), Requirement(count=1, group="sre"))
        verdict = decide(POLICY, demand, PROVEN, [vote(ANN)])
        assert (verdict.reason, verdict.missing) == ("QUORUM_NOT_MET", (Requirement(count=1, group="sre"),))

    def test_whoever_proposed_does_not_count(self) -> None:
        """The proposer, and the person behind an agent, are left out; another person is not."""
        by_bot = FACTS.proposer
        assert decide(POLICY, needing(Requirement(count=1)), by_bot, [vote(ANN)]).reason == "SELF_APPROVAL"
        assert decide(POLICY, needing(Requirement(count=1)), PROVEN, [vote(CAT)]).reason == "SELF_APPROVAL"
        assert decide(POLICY, needing(Requirement(count=1)), by_bot, [vote(ANN), vote(BEN)]).met
        assert excluded_by(POLICY, by_bot) == {
            "ann": "stands behind bot, who proposed",
            "bot": "proposed the plan",
        }

    def test_self_approval_where_it_is_written_out(self) -> None:
        """One-person installations say that the proposer's own approval counts."""
        alone = replace(POLICY, self_approval=True)
        assert decide(alone, needing(Requirement(count=1)), PROVEN, [vote(CAT)]).met
        assert decide(alone, needing(Requirement(count=1)), Proposer(), [vote(CAT)]).met

    def test_somebody_unknown_may_be_the_approver(self) -> None:
        """Without a proven proposer any approver may be the proposer, unless a matching rule is about just that."""
        votes = [vote(ANN), vote(BEN), vote(CAT)]
        assert decide(POLICY, needing(Requirement(count=1)), Proposer(), votes).reason == "SELF_APPROVAL"
        policy = with_rule(
            when=Condition(proposers=(ProposerKind.UNKNOWN,)), require=(Requirement(count=2, group="sre"),)
        )
        demand = demand_of(policy, replace(FACTS, proposer=Proposer()))
        assert decide(policy, demand, Proposer(), votes).met
        assert decide(policy, demand, Proposer(), votes[:2]).missing == (Requirement(count=1),)

    def test_a_refusing_rule(self) -> None:
        """Where a rule refuses, no number of approvals helps."""
        policy = with_rule(refuse=True)
        votes = [vote(ANN), vote(BEN), vote(CAT)]
        verdict = decide(policy, demand_of(policy, FACTS), FACTS.proposer, votes)
        assert (verdict.reason, verdict.message) == ("POLICY_REFUSES", "rule r0 refuses this")

    def test_agents_and_strangers_never_count(self) -> None:
        """Nor does a key that the policy gives to somebody else, or to nobody."""
        stray = Vote(person="ben", key_id=ANN.keys[0].key_id)
        strangers = [vote(BOT), Vote(person="eve", key_id="SHA256:eve"), stray, Vote(person="ben", key_id="SHA256:x")]
        verdict = decide(POLICY, needing(Requirement(count=1)), PROVEN, strangers)
        assert (verdict.reason, verdict.counted) == ("QUORUM_NOT_MET", ())

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_a_file_key_and_a_hardware_key_of_one_person(self, order: tuple[int, int]) -> None:
        """Who approved with both counts once, and as with the hardware key, in whatever order they came."""
        votes = [vote(ANN, number) for number in order]
        verdict = decide(POLICY, needing(Requirement(count=1), hardware=True), PROVEN, votes)
        assert verdict.met
        assert verdict.counted == (vote(ANN, 1),)
        assert decide(POLICY, needing(Requirement(count=1)), PROVEN, votes).counted == (vote(ANN, 1),)
        assert not decide(POLICY, needing(Requirement(count=2)), PROVEN, votes).met

    def test_only_a_file_key_where_hardware_is_asked_for(self) -> None:
        """It is said that the hardware key is what is missing, where it is."""
        demand = needing(Requirement(count=1), hardware=True)
        assert decide(POLICY, demand, PROVEN, [vote(ANN)]).reason == "HARDWARE_KEY_NEEDED"
        assert decide(POLICY, demand, PROVEN, []).reason == "QUORUM_NOT_MET"
        by_bot = decide(POLICY, demand, FACTS.proposer, [vote(ANN)])
        assert by_bot.reason == "QUORUM_NOT_MET"

    def test_nobody_says_that_a_key_is_hardware_but_the_policy(self) -> None:
        """A vote that calls a file's key a hardware key is not believed."""
        lie = replace(vote(BEN), hardware=True)
        assert not decide(POLICY, needing(Requirement(count=1), hardware=True), PROVEN, [lie]).met


class TestDocument:
    def test_a_policy_comes_back(self) -> None:
        """Sealed and opened it is the same."""
        policy = with_rule(
            when=Condition(
                step_kinds=("write_file",),
                risk_facts=("delete",),
                min_risk="high",
                workspaces=("site",),
                labels=("prod",),
                min_changes=2,
                min_bytes=2**40,
                days=("mon",),
                hours=(time(18, 30), time(8)),
                proposers=(ProposerKind.UNKNOWN, ProposerKind.AGENT),
            ),
            require=(Requirement(count=2, group="sre"), Requirement(count=1)),
            min_ladder_level=0,
            hardware_key=True,
            max_approval_seconds=5,
            refuse=True,
            approve_steps=True,
        )
        assert open_policy(seal_policy(policy)) == policy

    def test_a_demand_and_a_proposer_come_back(self) -> None:
        """As reports and receipts carry them."""
        demand = Demand(
            requirements=(Requirement(count=2, group="sre"),),
            rules=("r0",),
            max_approval_seconds=5,
            hardware_key=True,
            min_ladder_level=0,
            refused="no",
            approve_steps=("s1", "s2"),
        )
        assert demand_from_proto(demand_to_proto(demand)) == demand
        assert demand_from_proto(demand_to_proto(Demand())) == Demand()
        for proposer in (Proposer(), PROVEN, FACTS.proposer):
            assert proposer_from_proto(proposer_to_proto(proposer)) == proposer
        with pytest.raises(SealingError):
            proposer_from_proto(evidence_pb2.Proposer())

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda sent: sent.ClearField("expires_at"), id="no end"),
            pytest.param(lambda sent: sent.ClearField("self_approval"), id="no self approval"),
            pytest.param(lambda sent: sent.persons.add(person="ann", kind=1), id="a person twice"),
            pytest.param(lambda sent: sent.persons.add(person="dan"), id="no kind"),
            pytest.param(
                lambda sent: sent.persons.add(person="dan", kind=1).keys.append(sent.persons[1].keys[0]),
                id="one key of two persons",
            ),
            pytest.param(lambda sent: sent.persons[1].keys[0].ClearField("use"), id="no use"),
            pytest.param(
                lambda sent: setattr(sent.persons[1].keys[0], "hardware", True), id="a file key called hardware"
            ),
            pytest.param(
                lambda sent: setattr(sent.persons[1].keys[0], "key_id", "SHA256:other"), id="another fingerprint"
            ),
            pytest.param(lambda sent: setattr(sent.persons[1].keys[0], "scheme", "none"), id="no scheme"),
            pytest.param(lambda sent: setattr(sent.persons[1].keys[0], "public_key", "ssh-ed25519 x"), id="no key"),
            pytest.param(lambda sent: sent.groups.add(group="sre"), id="a group twice"),
            pytest.param(lambda sent: sent.groups.add(), id="no group's name"),
            pytest.param(lambda sent: sent.rules.add(rule="r"), id="a rule twice"),
            pytest.param(lambda sent: sent.rules[0].require.add(count=1, group="none"), id="an unknown group"),
            pytest.param(lambda sent: sent.rules[0].when.days.append("monday"), id="an unknown day"),
            pytest.param(lambda sent: setattr(sent.rules[0].when, "hours", "8-18"), id="odd hours"),
            pytest.param(lambda sent: setattr(sent.rules[0].when, "hours", "08:00-08:00"), id="no hours"),
            pytest.param(lambda sent: setattr(sent.rules[0].when, "min_bytes", "01"), id="an odd number"),
            pytest.param(lambda sent: sent.rules[0].when.proposers.append(0), id="no kind of proposer"),
            pytest.param(lambda sent: sent.workspaces.add(workspace_id="site"), id="a workspace twice"),
        ],
    )
    def test_a_policy_that_does_not_hold_together(self, change: Callable[[policy_pb2.Policy], object]) -> None:
        """Whatever two readers could understand differently is refused."""
        rule = Rule(rule_id="r", require=(Requirement(count=1),))
        sent = policy_to_proto(replace(POLICY, rules=(rule,)))
        open_policy(seal(sent))
        change(sent)
        with pytest.raises(SealingError):
            open_policy(seal(sent))


def test_in_words() -> None:
    """Rules, persons and demands read as sentences."""
    rule = Rule(
        rule_id="night",
        when=Condition(labels=("prod", "eu"), hours=(time(18), time(8)), proposers=(ProposerKind.AGENT,)),
        require=(Requirement(count=2, group="sre"), Requirement(count=1)),
        hardware_key=True,
    )
    assert rule_words(rule) == (
        "rule night: where the workspace is labelled prod or eu and the time is 18:00-08:00 in UTC "
        "and it was proposed by an agent: approved by 2 of group sre and 1 of all who may approve; with hardware keys"
    )
    assert person_words(ANN, ["sre"]) == "ann may approve, in sre"
    assert person_words(BOT) == "agent bot of ann may prove to have proposed"
    assert demand_words(Demand(refused="no", max_approval_seconds=5)) == (
        "approvals hold for at most 5 seconds",
        "refused, whoever approves: no",
    )
