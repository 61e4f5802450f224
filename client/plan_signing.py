"""A proposer's signature: under a plan that is what was asked for, or that a person has read.

The orchestrator seals the plan and is not trusted to seal the right one. So what it hands out is read strictly and
compared with the draft: whatever the draft says stands in the plan unchanged, and what it leaves open is filled in as
`client.plan_defaults` lists it, and in no other way. Besides, a plan has ids, the name of whoever called and the time,
none of which a draft has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from client.errors import EvidenceError
from client.plan_defaults import plan_of
from client.signing import Signer
from client.verification import check_media_type, open_document
from gonogo import sealing
from gonogo.v1 import orchestrator_pb2, plan_pb2, sealed_pb2

_REMEDY: Final = "nothing was signed; reject the mission, and ask the orchestrator's operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedPlan:
    """A sealed plan that may be signed as its proposer. Made by `asked_plan` and `handed_plan` only."""

    plan: plan_pb2.Plan
    digest: str
    sealed: sealed_pb2.Sealed


def asked_plan(
    draft: plan_pb2.PlanDraft, proposed: orchestrator_pb2.ProposeMissionResponse, proposer: str
) -> ProposedPlan:
    """Check that a proposal was sealed as it was asked for.

    Args:
        draft: what was asked for.
        proposed: the answer.
        proposer: who is going to sign.

    Raises:
        EvidenceError: it was not; the message names the first place where it differs.
    """
    found = _opened(proposed.plan, proposed.mission, proposer)
    difference = _difference(plan_of(draft, found.plan), found.plan)
    if difference:
        raise EvidenceError("PLAN_MISMATCH", f"the sealed plan is not what was asked for: {difference}", _REMEDY)
    return found


def handed_plan(response: orchestrator_pb2.GetMissionResponse, proposer: str) -> ProposedPlan:
    """Open the plan of a mission that is there already; whoever signs has to read it.

    Raises:
        EvidenceError: it is not strictly a plan, not of that mission, or names somebody else as its proposer.
    """
    return _opened(response.plan, response.mission, proposer)


def sign_plan(plan: ProposedPlan, signer: Signer) -> sealed_pb2.Signature:
    """Sign a plan's bytes as its proposer."""
    blob = signer.key.sign(signer.scheme, sealing.PLAN, plan.sealed.body)
    return sealed_pb2.Signature(key_id=signer.key.public.key_id, scheme=signer.scheme, signature=blob)


def _opened(sealed: sealed_pb2.Sealed, mission: orchestrator_pb2.Mission, proposer: str) -> ProposedPlan:
    check_media_type(sealed, sealing.PLAN)
    plan, digest = open_document(sealed, plan_pb2.Plan, what="plan"), sealing.sealed_digest(sealed.body)
    pairs = (
        ("PLAN_MISMATCH", "plan digest", digest, mission.plan_digest),
        ("PLAN_MISMATCH", "plan id", plan.plan_id, mission.plan_id),
        ("MISSION_MISMATCH", "mission id", plan.mission_id, mission.mission_id),
        ("MISSION_MISMATCH", "intent id", plan.intent_id, mission.intent_id),
        ("WORKSPACE_MISMATCH", "workspace id", plan.workspace_id, mission.workspace_id),
        ("EXECUTOR_MISMATCH", "executor id", plan.executor_id, mission.executor_id),
    )
    for reason, what, found, told in pairs:
        if found != told:
            raise EvidenceError(
                reason, f"plan and mission do not belong together: {what} {found!r} ≠ {told!r}", _REMEDY
            )
    if plan.proposer != proposer:
        raise _other_proposer(plan, proposer)
    return ProposedPlan(plan=plan, digest=digest, sealed=sealed)


def _other_proposer(plan: plan_pb2.Plan, proposer: str) -> EvidenceError:
    return EvidenceError(
        "SIGNATURE_INVALID",
        f"the plan names {plan.proposer!r} as its proposer, and the key is {proposer}'s",
        f"sign with a key of {plan.proposer or 'its proposer'}; or propose it as {proposer}, with a certificate or "
        f"token of that name: gonogo caller add {proposer} --role propose",
    )


def _difference(expected: Message, found: Message, where: str = "") -> str:
    """Return the first place where two messages differ; empty where they do not."""
    if expected == found:
        return ""
    for field in expected.DESCRIPTOR.fields:
        place = f"{where}.{field.name}" if where else str(field.name)
        one, other = getattr(expected, field.name), getattr(found, field.name)
        if one != other:
            return _inside(one, other, place)
    return where or "it has another form"


def _inside(one: Any, other: Any, place: str) -> str:
    if isinstance(one, Message):
        return _difference(one, other, place)
    if isinstance(one, str | bytes | int | Mapping) or len(one) != len(other):
        return place
    number = next(number for number, pair in enumerate(zip(one, other, strict=True), 1) if pair[0] != pair[1])
    entry = f"{place}[{number}]"
    return _difference(one[number - 1], other[number - 1], entry) if isinstance(one[number - 1], Message) else entry
