"""What takes an ended mission back: a plan that undoes its committed steps, the newest first.

The draft only names steps. What they did, and what was there before, is in the executor's own records; it is dry-run,
shown and approved like any other plan.
"""

from collections.abc import Iterator, Sequence

from client.documents import Documents
from client.errors import ClientError
from client.json_form import short_name
from gonogo.v1 import evidence_pb2, plan_pb2

MAX_OBJECTIVE = 1_000
MAX_DESCRIPTION = 1_000
OUTCOMES = frozenset({"success", "partial"})
"""The outcomes that leave something to undo."""


def undo_draft(documents: Documents, *, to: str = "") -> plan_pb2.PlanDraft:
    """Return the draft that takes a mission back.

    Args:
        documents: the mission's.
        to: the last step that stays, with all before it; empty takes back everything.

    Raises:
        ClientError: there is nothing to take back, or no such step.
    """
    plan = documents.plan
    steps = list(reversed(_after(plan, _committed(_ended(documents)), to)))
    if not steps:
        kept = f" after {to}" if to else ""
        raise _nothing(f"no step of mission {plan.mission_id}{kept} changed anything that still stands")
    return plan_pb2.PlanDraft(
        objective=_objective(plan, to),
        workspace=plan.workspace_id,
        scope=plan_pb2.Scope(paths=plan.scope.paths),
        failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
        steps=[_undo_step(plan.mission_id, step) for step in steps],
    )


def _ended(documents: Documents) -> evidence_pb2.Receipt:
    receipt, mission = documents.receipt, documents.plan.mission_id
    if receipt is None:
        raise _nothing(f"mission {mission} has not been executed, or has not ended")
    outcome = short_name(receipt, "execution_status")
    if outcome == "unknown":
        message = f"nobody knows what mission {mission} did: its outcome is unknown"
        raise ClientError(
            "STATE_FORBIDS", message, "look at its receipt and the workspace, and correct it by a new plan"
        )
    if outcome not in OUTCOMES:
        raise _nothing(f"mission {mission} left nothing behind: its outcome is {outcome.replace('_', ' ')}")
    return receipt


def _committed(receipt: evidence_pb2.Receipt) -> frozenset[str]:
    """Return the steps whose changes stand."""
    return frozenset(
        step.step_id
        for step in receipt.steps
        if step.success and not step.rollback_invoked and step.actual_state_change
    )


def _after(plan: plan_pb2.Plan, committed: frozenset[str], to: str) -> Sequence[plan_pb2.Step]:
    ids = [step.step_id for step in plan.steps]
    if to and to not in ids:
        shown = ", ".join(ids[:20]) + (", …" if len(ids) > 20 else "")  # noqa: PLR2004 - what fits on a line or two
        raise ClientError("NOT_FOUND", f"mission {plan.mission_id} has no step {to!r}", f"name one of: {shown}")
    first = ids.index(to) + 1 if to else 0
    return [step for step in plan.steps[first:] if step.step_id in committed]


def _undo_step(mission_id: str, step: plan_pb2.Step) -> plan_pb2.Step:
    words = " ".join(_words(step))
    return plan_pb2.Step(
        description=words if len(words) <= MAX_DESCRIPTION else words[: MAX_DESCRIPTION - 1] + "…",
        undo_step=plan_pb2.UndoStep(mission_id=mission_id, step_id=step.step_id),
    )


def _words(step: plan_pb2.Step) -> Iterator[str]:
    yield f"Take back {step.step_id}"
    yield f"({step.WhichOneof('action')}):"
    yield step.description


def _objective(plan: plan_pb2.Plan, to: str) -> str:
    end = f" (mission {plan.mission_id}" + (f", back to after {to})" if to else ")")
    room = MAX_OBJECTIVE - len("Undo ") - len(end)
    objective = plan.objective if len(plan.objective) <= room else plan.objective[: room - 1] + "…"
    return f"Undo {objective}{end}"


def _nothing(message: str) -> ClientError:
    return ClientError("STATE_FORBIDS", message, "there is nothing to undo; gonogo show tells what the mission did")
