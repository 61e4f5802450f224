"""A proposer's signature: under a plan that is what was asked for, or that a person has read.

The orchestrator seals the plan and is not trusted to seal the right one. So what it hands out is read strictly and
compared with the draft: whatever the draft says stands in the plan unchanged, and what it leaves open is filled in from
the closed list below, and in no other way.

=====================  ==============================================================================
left open              filled in
=====================  ==============================================================================
scope                  no network, one page, 30 seconds; everything else stays open
failure_policy         roll_back
a step's step_id       "s" and its place
a step's stage         its kind's; of a command any stage, which says where it is shown and nothing else
a step's description   its kind and what it acts on
run_tests' expect      pass
=====================  ==============================================================================

Besides, a plan has ids, the name of whoever called and the time, none of which a draft has.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from client.errors import EvidenceError
from client.signing import Signer
from client.verification import check_media_type, open_document
from gonogo import sealing
from gonogo.v1 import orchestrator_pb2, plan_pb2, sealed_pb2

PAGES: Final = 1
SECONDS: Final = 30
MAX_TARGET: Final = 200

RETRIEVING: Final = frozenset({"read_file", "list_directory", "search_files"})
PROGRAMS: Final = frozenset({"run_command", "run_tests"})

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
    difference = _difference(_expected(draft, found.plan), found.plan)
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


def _expected(draft: plan_pb2.PlanDraft, found: plan_pb2.Plan) -> plan_pb2.Plan:
    """Return the plan that a draft makes, with the ids and the time of the one that was found."""
    steps = [_step(step, number, found.steps[number - 1 : number]) for number, step in enumerate(draft.steps, 1)]
    return plan_pb2.Plan(
        plan_id=found.plan_id,
        mission_id=found.mission_id,
        intent_id=found.intent_id,
        objective=draft.objective,
        workspace_id=draft.workspace,
        executor_id=found.executor_id,
        proposer=found.proposer,
        created_at=found.created_at,
        scope=_scope(draft.scope),
        failure_policy=draft.failure_policy or plan_pb2.FAILURE_POLICY_ROLL_BACK,
        steps=steps,
    )


def _scope(asked: plan_pb2.Scope) -> plan_pb2.Scope:
    scope = plan_pb2.Scope()
    scope.CopyFrom(asked)
    scope.network = scope.network or plan_pb2.NETWORK_ACCESS_NONE
    scope.max_pages = scope.max_pages or PAGES
    scope.max_duration_seconds = scope.max_duration_seconds or SECONDS
    return scope


def _step(asked: plan_pb2.Step, number: int, found: Sequence[plan_pb2.Step]) -> plan_pb2.Step:
    step = plan_pb2.Step()
    step.CopyFrom(asked)
    kind = asked.WhichOneof("action") or ""
    step.step_id = step.step_id or f"s{number}"
    step.stage = step.stage or _stage(kind, found)
    step.description = step.description or _description(asked, kind)
    if kind == "run_tests":
        step.run_tests.expect = step.run_tests.expect or plan_pb2.TEST_EXPECTATION_PASS
    return step


def _stage(kind: str, found: Sequence[plan_pb2.Step]) -> plan_pb2.Stage.ValueType:
    if kind == "run_command":
        return (found[0].stage if found else plan_pb2.STAGE_UNSPECIFIED) or plan_pb2.STAGE_EDIT
    if kind == "run_tests":
        return plan_pb2.STAGE_TEST
    return plan_pb2.STAGE_RETRIEVE if kind in RETRIEVING else plan_pb2.STAGE_EDIT


def _description(step: plan_pb2.Step, kind: str) -> str:
    words = f"{kind.replace('_', ' ')} {_shortened(_target(getattr(step, kind), kind))}" if kind else ""
    return words if kind not in PROGRAMS or _is_line(words) else ascii(words)


def _target(action: Any, kind: str) -> str:
    if kind in PROGRAMS:
        return json.dumps(list(action.argv), ensure_ascii=False)
    if kind == "move_path":
        return f"{action.path} -> {action.to}"
    if kind == "undo_step":
        return f"{action.step_id} of {action.mission_id}"
    return str(action.path)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TARGET else text[: MAX_TARGET - 1] + "…"


def _is_line(text: str) -> bool:
    return not any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text)


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
