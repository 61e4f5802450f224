"""The plan that takes an ended mission back: which steps, in which order, and when there is none."""

from collections.abc import Sequence

import pytest

from client.documents import Documents
from client.errors import ClientError
from client.planfile import MAX_STEPS
from client.undoing import undo_draft
from gonogo.v1 import evidence_pb2, plan_pb2

CHANGED = [evidence_pb2.Change(path="a", kind=evidence_pb2.CHANGE_KIND_CREATE)]


def documents(
    *steps: evidence_pb2.StepReceipt,
    outcome: evidence_pb2.Outcome.ValueType | None = evidence_pb2.OUTCOME_SUCCESS,
    objective: str = "Tidy up",
    paths: Sequence[str] = (),
) -> Documents:
    """A mission whose receipt tells of some steps; without an outcome it has none."""
    plan = plan_pb2.Plan(
        mission_id="m-1",
        objective=objective,
        workspace_id="site",
        scope=plan_pb2.Scope(paths=paths, max_duration_seconds=30, max_bytes="10"),
        steps=[
            plan_pb2.Step(step_id=step.step_id, description=f"do {step.step_id}", delete_path=plan_pb2.DeletePath())
            for step in steps
        ],
    )
    receipt = None if outcome is None else evidence_pb2.Receipt(execution_status=outcome, steps=steps)
    return Documents(
        plan=plan,
        plan_digest="",
        report=None,
        report_digest="",
        approvals=(),
        approval_digests=(),
        receipt=receipt,
        receipt_digest="",
        refusal=None,
    )


def step(step_id: str, *, success: bool = True, changed: bool = True, undone: bool = False) -> evidence_pb2.StepReceipt:
    """One step of a receipt."""
    return evidence_pb2.StepReceipt(
        step_id=step_id,
        success=success,
        rollback_invoked=undone,
        actual_state_change=CHANGED if changed else [],
    )


def undone(draft: plan_pb2.PlanDraft) -> list[str]:
    """The steps that a draft takes back, in its order."""
    return [one.undo_step.step_id for one in draft.steps]


def test_the_newest_step_is_taken_back_first() -> None:
    """Every step that changed something is undone, in the reverse of the plan's order, within the plan's paths."""
    draft = undo_draft(documents(step("s1"), step("look", changed=False), step("s2"), paths=["docs/**"]))
    assert draft == plan_pb2.PlanDraft(
        objective="Undo Tidy up (mission m-1)",
        workspace="site",
        scope=plan_pb2.Scope(paths=["docs/**"]),
        failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
        steps=[
            plan_pb2.Step(
                description="Take back s2 (delete_path): do s2",
                undo_step=plan_pb2.UndoStep(mission_id="m-1", step_id="s2"),
            ),
            plan_pb2.Step(
                description="Take back s1 (delete_path): do s1",
                undo_step=plan_pb2.UndoStep(mission_id="m-1", step_id="s1"),
            ),
        ],
    )


def test_up_to_a_step() -> None:
    """The named step and all before it stay; one that changed nothing can be named too."""
    mission = documents(step("s1"), step("look", changed=False), step("s2"), step("s3"))
    assert undone(undo_draft(mission, to="s1")) == ["s3", "s2"]
    assert undone(undo_draft(mission, to="look")) == ["s3", "s2"]
    draft = undo_draft(mission, to="s2")
    assert undone(draft) == ["s3"]
    assert draft.objective == "Undo Tidy up (mission m-1, back to after s2)"


def test_what_a_partial_mission_left() -> None:
    """Only what still stands is undone: not the step that failed, nor one that was taken back."""
    steps = (step("s1"), step("s2", success=False, changed=False), step("s3", undone=True), step("s4"))
    assert undone(undo_draft(documents(*steps, outcome=evidence_pb2.OUTCOME_PARTIAL))) == ["s4", "s1"]


@pytest.mark.parametrize(
    ("mission", "to", "reason", "words"),
    [
        (documents(step("s1"), outcome=None), "", "STATE_FORBIDS", "has not been executed"),
        (documents(step("s1"), outcome=evidence_pb2.OUTCOME_ROLLED_BACK), "", "STATE_FORBIDS", "rolled back"),
        (documents(step("s1"), outcome=evidence_pb2.OUTCOME_ABORTED), "", "STATE_FORBIDS", "aborted"),
        (documents(step("s1"), outcome=evidence_pb2.OUTCOME_UNKNOWN), "", "STATE_FORBIDS", "nobody knows"),
        (documents(step("s1", changed=False)), "", "STATE_FORBIDS", "changed anything"),
        (documents(step("s1"), step("s2")), "s2", "STATE_FORBIDS", "after s2 changed anything"),
        (documents(step("s1")), "s9", "NOT_FOUND", "no step 's9'"),
    ],
)
def test_where_there_is_nothing_to_undo(mission: Documents, to: str, reason: str, words: str) -> None:
    """A mission that left nothing, or a step that is not in it, is refused with why and what to do."""
    with pytest.raises(ClientError, match=words) as caught:
        undo_draft(mission, to=to)
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_it_fits_into_what_a_plan_may_say() -> None:
    """A mission as large as missions get makes a draft within the limits of its texts and steps."""
    steps = [step(f"s{number}") for number in range(MAX_STEPS)]
    mission = documents(*steps, objective="x" * 1_000)
    mission.plan.steps[0].description = "y" * 1_000
    draft = undo_draft(mission)
    assert len(draft.steps) == MAX_STEPS
    assert len(draft.objective) == 1_000
    assert draft.objective.endswith("… (mission m-1)")
    assert max(len(one.description) for one in draft.steps) == 1_000
