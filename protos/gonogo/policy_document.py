"""The policy as a sealed document, and the demand and proposer that reports and receipts carry.

Whoever reads a policy here gets one that holds together: every id once, every key one person's, every name known. What
does not is refused, as a document that is not whole is.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from gonogo.policy import (
    DAYS,
    EVERYBODY,
    MAX_COUNT,
    MAX_PLACES,
    RISK_LEVELS,
    Condition,
    Demand,
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
)
from gonogo.sealing import SealingError, open_sealed, seal
from gonogo.signatures import SignatureError, fits, load_public_key
from gonogo.v1 import evidence_pb2, plan_pb2, policy_pb2

_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

D = TypeVar("D")
W = TypeVar("W", bound=int)

_PERSON_KINDS: Final = {
    PersonKind.PERSON: policy_pb2.PERSON_KIND_PERSON,
    PersonKind.AGENT: policy_pb2.PERSON_KIND_AGENT,
}
_KEY_USES: Final = {KeyUse.APPROVE: policy_pb2.KEY_USE_APPROVE, KeyUse.PROPOSE: policy_pb2.KEY_USE_PROPOSE}
_PROPOSERS: Final = {
    ProposerKind.UNKNOWN: evidence_pb2.PROPOSER_KIND_UNKNOWN,
    ProposerKind.PERSON: evidence_pb2.PROPOSER_KIND_PERSON,
    ProposerKind.AGENT: evidence_pb2.PROPOSER_KIND_AGENT,
}
_SELF_APPROVALS: Final = {
    False: evidence_pb2.SELF_APPROVAL_REFUSED,
    True: evidence_pb2.SELF_APPROVAL_ALLOWED,
}
_RISKS: Final = dict(
    zip(
        (None, *RISK_LEVELS),
        (
            evidence_pb2.RISK_LEVEL_UNSPECIFIED,
            evidence_pb2.RISK_LEVEL_LOW,
            evidence_pb2.RISK_LEVEL_MEDIUM,
            evidence_pb2.RISK_LEVEL_HIGH,
        ),
        strict=True,
    )
)
_LEVELS: Final = dict(
    zip(
        (None, 0, 1, 2, 3),
        (
            plan_pb2.LADDER_LEVEL_UNSPECIFIED,
            plan_pb2.LADDER_LEVEL_L0,
            plan_pb2.LADDER_LEVEL_L1,
            plan_pb2.LADDER_LEVEL_L2,
            plan_pb2.LADDER_LEVEL_L3,
        ),
        strict=True,
    )
)


def seal_policy(policy: Policy) -> bytes:
    """Write a policy's bytes; their digest is what reports, approvals and receipts name it by."""
    return seal(policy_to_proto(policy))


def open_policy(body: bytes) -> Policy:
    """Read a sealed policy strictly. Verify its signature or its digest first.

    Raises:
        SealingError: not the one text of a policy that holds together.
    """
    return policy_from_proto(open_sealed(body, policy_pb2.Policy))


def policy_to_proto(policy: Policy) -> policy_pb2.Policy:
    """Map a policy; persons, groups and workspaces are sorted, so that their order in the trust file says nothing."""
    return policy_pb2.Policy(
        executor_id=policy.executor_id,
        trust_version=policy.trust_version,
        expires_at=_stamp(policy.expires_at),
        approvals_required=policy.approvals_required,
        self_approval=_SELF_APPROVALS[policy.self_approval],
        max_approval_seconds=policy.max_approval_seconds,
        persons=[_person_to_proto(one) for one in sorted(policy.persons, key=lambda one: one.person_id)],
        groups=[
            policy_pb2.PolicyGroup(group=one.group_id, members=one.members)
            for one in sorted(policy.groups, key=lambda one: one.group_id)
        ],
        rules=[_rule_to_proto(rule) for rule in policy.rules],
        workspaces=[
            policy_pb2.WorkspaceLabels(workspace_id=workspace_id, labels=labels)
            for workspace_id, labels in sorted(policy.labels.items())
        ],
        limits_digest=policy.limits_digest,
    )


def policy_from_proto(message: policy_pb2.Policy) -> Policy:
    """Map a policy.

    Raises:
        SealingError: it names something that is not known, or does not hold together.
    """
    policy = Policy(
        executor_id=message.executor_id,
        trust_version=message.trust_version,
        expires_at=_time(message),
        approvals_required=_count(message.approvals_required, least=0),
        self_approval=_known("self approval", _SELF_APPROVALS, message.self_approval),
        max_approval_seconds=message.max_approval_seconds,
        persons=tuple(_person_from_proto(one) for one in message.persons),
        groups=tuple(Group(group_id=one.group, members=tuple(one.members)) for one in message.groups),
        rules=tuple(_rule_from_proto(one) for one in message.rules),
        labels={one.workspace_id: tuple(one.labels) for one in message.workspaces},
        limits_digest=message.limits_digest,
    )
    _check_whole(policy, message)
    return policy


def demand_to_proto(demand: Demand) -> evidence_pb2.Demand:
    """Map a demand."""
    return evidence_pb2.Demand(
        requirements=[_requirement_to_proto(one) for one in demand.requirements],
        rules=demand.rules,
        max_approval_seconds=demand.max_approval_seconds,
        hardware_key=demand.hardware_key,
        min_ladder_level=_LEVELS[demand.min_ladder_level],
        refused=demand.refused,
        approve_steps=demand.approve_steps,
    )


def demand_from_proto(message: evidence_pb2.Demand) -> Demand:
    """Map a demand.

    Raises:
        SealingError: it names something that is not known, or asks for more persons than anybody could count.
    """
    places = sum(one.count for one in message.requirements)
    if places > MAX_PLACES:
        raise SealingError(f"the document asks for {places} persons")
    return Demand(
        requirements=tuple(_requirement_from_proto(one) for one in message.requirements),
        rules=tuple(message.rules),
        max_approval_seconds=message.max_approval_seconds,
        hardware_key=message.hardware_key,
        min_ladder_level=_known("ladder level", _LEVELS, message.min_ladder_level),
        refused=message.refused,
        approve_steps=tuple(message.approve_steps),
    )


def proposer_to_proto(proposer: Proposer) -> evidence_pb2.Proposer:
    """Map who proposed."""
    return evidence_pb2.Proposer(kind=_PROPOSERS[proposer.kind], person=proposer.person, sponsor=proposer.sponsor)


def proposer_from_proto(message: evidence_pb2.Proposer) -> Proposer:
    """Map who proposed.

    Raises:
        SealingError: the kind is not known.
    """
    kind = _known("kind of proposer", _PROPOSERS, message.kind)
    return Proposer(kind=kind, person=message.person, sponsor=message.sponsor)


def hours_text(hours: tuple[time, time] | None) -> str:
    """Return hours as documents and the trust file write them: "18:00-08:00"; empty for any."""
    return "" if hours is None else "-".join(moment.strftime("%H:%M") for moment in hours)


def hours_from_text(text: str) -> tuple[time, time]:
    """Read hours.

    Raises:
        ValueError: not two different times of the day.
    """
    found = _HOURS.fullmatch(text)
    if found is None:
        message = f"{text[:40]!r} is not HH:MM-HH:MM"
        raise ValueError(message)
    begin, end = (time(int(found[number]), int(found[number + 1])) for number in (1, 3))
    if begin == end:
        message = f"{text!r} begins when it ends"
        raise ValueError(message)
    return begin, end


def _person_to_proto(person: Person) -> policy_pb2.PolicyPerson:
    return policy_pb2.PolicyPerson(
        person=person.person_id,
        kind=_PERSON_KINDS[person.kind],
        sponsor=person.sponsor,
        keys=[
            policy_pb2.PolicyKey(
                key_id=key.key_id,
                scheme=key.scheme,
                public_key=key.public_key,
                use=_KEY_USES[key.use],
                hardware=key.hardware,
            )
            for key in person.keys
        ],
    )


def _person_from_proto(message: policy_pb2.PolicyPerson) -> Person:
    return Person(
        person_id=message.person,
        kind=_known("kind of person", _PERSON_KINDS, message.kind),
        sponsor=message.sponsor,
        keys=tuple(
            Key(
                key_id=key.key_id,
                scheme=key.scheme,
                public_key=key.public_key,
                use=_known("use of a key", _KEY_USES, key.use),
                hardware=key.hardware,
            )
            for key in message.keys
        ),
    )


def _rule_to_proto(rule: Rule) -> policy_pb2.PolicyRule:
    return policy_pb2.PolicyRule(
        rule=rule.rule_id,
        when=_condition_to_proto(rule.when),
        require=[_requirement_to_proto(one) for one in rule.require],
        min_ladder_level=_LEVELS[rule.min_ladder_level],
        hardware_key=rule.hardware_key,
        max_approval_seconds=rule.max_approval_seconds or 0,
        refuse=rule.refuse,
        approve_steps=rule.approve_steps,
    )


def _rule_from_proto(message: policy_pb2.PolicyRule) -> Rule:
    return Rule(
        rule_id=message.rule,
        when=_condition_from_proto(message.when),
        require=tuple(_requirement_from_proto(one) for one in message.require),
        min_ladder_level=_known("ladder level", _LEVELS, message.min_ladder_level),
        hardware_key=message.hardware_key,
        max_approval_seconds=message.max_approval_seconds or None,
        refuse=message.refuse,
        approve_steps=message.approve_steps,
    )


def _condition_to_proto(when: Condition) -> policy_pb2.PolicyCondition:
    return policy_pb2.PolicyCondition(
        step_kinds=when.step_kinds,
        risk_facts=when.risk_facts,
        min_risk=_RISKS[when.min_risk],
        workspaces=when.workspaces,
        labels=when.labels,
        min_changes=when.min_changes,
        min_bytes=str(when.min_bytes) if when.min_bytes else "",
        days=when.days,
        hours=hours_text(when.hours),
        proposers=[_PROPOSERS[kind] for kind in when.proposers],
    )


def _condition_from_proto(message: policy_pb2.PolicyCondition) -> Condition:
    return Condition(
        step_kinds=tuple(message.step_kinds),
        risk_facts=tuple(message.risk_facts),
        min_risk=_known("risk level", _RISKS, message.min_risk),
        workspaces=tuple(message.workspaces),
        labels=tuple(message.labels),
        min_changes=message.min_changes,
        min_bytes=_read(_number, message.min_bytes) if message.min_bytes else 0,
        days=tuple(_read(_day, day) for day in message.days),
        hours=_read(hours_from_text, message.hours) if message.hours else None,
        proposers=tuple(_known("kind of proposer", _PROPOSERS, kind) for kind in message.proposers),
    )


def _requirement_to_proto(requirement: Requirement) -> evidence_pb2.Requirement:
    return evidence_pb2.Requirement(count=requirement.count, group=requirement.group)


def _requirement_from_proto(message: evidence_pb2.Requirement) -> Requirement:
    return Requirement(count=_count(message.count, least=1), group=message.group)


def _count(number: int, *, least: int) -> int:
    if not least <= number <= MAX_COUNT:
        raise SealingError(f"the document asks for {number} persons")
    return number


def _check_whole(policy: Policy, message: policy_pb2.Policy) -> None:
    """Refuse a policy of which two readers could think differently."""
    _check_once("person", (one.person_id for one in policy.persons))
    _check_once("group", (one.group_id for one in policy.groups))
    _check_once("rule", (one.rule_id for one in policy.rules))
    _check_once("workspace", (one.workspace_id for one in message.workspaces))
    _check_keys(policy)
    groups = {EVERYBODY, *(one.group_id for one in policy.groups)}
    for rule in policy.rules:
        unknown = {one.group for one in rule.require} - groups
        if unknown:
            raise SealingError(f"rule {rule.rule_id!r} of the policy asks for a group that is not there")


def _check_keys(policy: Policy) -> None:
    """Refuse one key under two names, which would count as two persons, and one that is not the key it is called."""
    keys = [(one.person_id, key) for one in policy.persons for key in one.keys]
    meanings = {(key.key_id, person, key.use, key.hardware, key.public_key) for person, key in keys}
    _check_once("key", (meaning[0] for meaning in meanings))
    for _, key in keys:
        try:
            public = load_public_key(key.public_key)
        except SignatureError as error:
            raise SealingError(f"the policy has a key that can not be read: {error}") from None
        if (public.key_id, public.hardware) != (key.key_id, key.hardware) or not fits(key.scheme, public):
            raise SealingError(f"the policy says of key {key.key_id[:80]!r} what is not so")


def _check_once(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed) or "" in listed:
        raise SealingError(f"the policy names a {what} twice, or one without a name")


def _known(what: str, table: Mapping[D, W], number: int) -> D:
    for value, known in table.items():
        if known == number:
            return value
    raise SealingError(f"the document has no known {what}: {number}")


def _read(read: Callable[[str], D], text: str) -> D:
    try:
        return read(text)
    except ValueError as error:
        raise SealingError(f"the policy has a condition that can not be read: {error}") from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        message = f"{text[:40]!r} is not a whole number"
        raise ValueError(message)
    return int(text)


def _day(text: str) -> str:
    if text not in DAYS:
        message = f"{text[:40]!r} is no day"
        raise ValueError(message)
    return text


def _time(message: policy_pb2.Policy) -> datetime:
    if not message.HasField("expires_at"):
        raise SealingError("the policy does not say when it expires")
    return message.expires_at.ToDatetime(tzinfo=UTC)


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
