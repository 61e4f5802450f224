"""The repair proposer that needs no model: it takes back what most likely broke it, and goes on with the rest.

A test run or a command that fails after changes: the change that its output names goes back, the changed stretch alone
where the output names lines in one of several, the file where not; the steps that were not done follow. An edit that
fails by itself is left out, and so is a live step of an execution: whether its effect happened or not, the rest goes
on without it, and nothing is done twice. For everything else it has no proposal: a person must make the plan.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.findings import CaseStatus, FoundKind, StepFinding
from orchestrator.domain.plan import Edit, Live, PlanDraft, RunCommand, RunTests, Step, WriteFile
from orchestrator.domain.repairs import Blamed, blame, is_writable, renewed, repair_step, restoring, without_stretch
from orchestrator.service.ports import RepairCase

_BAD: Final = frozenset({CaseStatus.FAILED, CaseStatus.BROKEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class _TakenBack:
    """A change that shall go back, and how."""

    blamed: Blamed
    step: Step
    content: bytes
    """What the file holds then."""
    whole: bool
    """All of the change goes back."""


class RevertingProposer:
    """`RepairProposer` that reverts the failing stretch or file."""

    async def propose(self, case: RepairCase) -> PlanDraft | None:
        """Return the rest of the work without what broke it, or None."""
        failing = _failing_step(case)
        if failing is None:
            return None
        if isinstance(failing.action, Edit):
            return _draft(case, _undone(case, failing, without=failing.step_id), f"leave out {failing.step_id}")
        if isinstance(failing.action, Live):
            return _without_effect(case, failing)
        if not isinstance(failing.action, RunCommand | RunTests):
            return None
        blamed = await asyncio.to_thread(blame, _changed(case, failing), _said(case, failing.step_id))
        taken = None if blamed is None else await _take_back(case, blamed, failing.step_id)
        if taken is None:
            return None
        return _draft(case, _repaired(case, failing, taken), taken.step.description)


def _failing_step(case: RepairCase) -> Step | None:
    """Return the step that failed; of a dry run the one that its first problem is about."""
    named = [problem.step_id for problem in case.findings.problems if problem.step_id]
    step_id = case.failure.step_id if case.failure is not None else next(iter(named), "")
    return next((step for step in case.plan.steps if step.step_id == step_id), None)


def _changed(case: RepairCase, failing: Step) -> list[StepFinding]:
    """Return the findings of the steps whose changes the failing one met."""
    before = [step.step_id for step in case.plan.steps[: case.plan.steps.index(failing)]]
    standing = case.standing if case.failure is not None else frozenset(before)
    return [found for found in case.findings.steps if found.step_id in before and found.step_id in standing]


def _said(case: RepairCase, step_id: str) -> str:
    """Return what the failing program said: in the execution where there was one, else in the dry run."""
    found = next((one for one in case.findings.steps if one.step_id == step_id), None)
    words = [case.output, "" if case.failure is None else case.failure.message]
    if found is not None and not found.success:
        words += [found.output, *(f"{one.name} {one.message}" for one in found.cases if one.status in _BAD)]
    words += [problem.message for problem in case.findings.problems if problem.step_id == step_id]
    return "\n".join(words)


async def _take_back(case: RepairCase, blamed: Blamed, failing: str) -> _TakenBack | None:
    """Return how the blamed change goes back; None where its former content can not be had, or be written."""
    change = blamed.change
    content = b""
    whole = True
    if change.old is not None and change.old.digest and change.kind in {FoundKind.MODIFY, FoundKind.DELETE}:
        try:
            content = await case.read_object(change.old.digest)
            if len(content) > case.max_content_bytes:
                return None  # no step can hold it
            if change.new is not None and change.new.digest and blamed.named:
                new = await case.read_object(change.new.digest)
                merged = await asyncio.to_thread(_merged, case, content, new, blamed)
                content, whole = merged, merged == content
        except OrchestratorError:
            return None  # large former contents are not kept
    action = restoring(change, content) if is_writable(content) else None
    if action is None or len(content) > case.max_content_bytes:
        return None
    what = f"{change.path} as it was before {blamed.step_id}" if whole else f"the lines of {change.path} that are named"
    step = repair_step(action, f"take back {what}, since {failing} failed")
    return _TakenBack(blamed=blamed, step=step, content=content, whole=whole)


def _merged(case: RepairCase, old: bytes, new: bytes, blamed: Blamed) -> bytes:
    return old if len(new) > case.max_content_bytes else without_stretch(old, new, blamed.lines)


def _repaired(case: RepairCase, failing: Step, taken: _TakenBack) -> tuple[Step, ...]:
    """Return the steps of the repair plan."""
    if case.failure is not None:
        return (taken.step, *_undone(case, failing))
    at = case.plan.steps.index(failing)
    steps = list(case.plan.steps)
    source = next(step for step in steps if step.step_id == taken.blamed.step_id)
    if _is_only_change(case, taken.blamed) and isinstance(source.action, Edit):
        # Nothing is committed yet: the step is left out, or writes only what shall stay of it.
        place = steps.index(source)
        steps[place : place + 1] = [] if taken.whole else [replace(source, action=_writing(taken))]
        return tuple(steps)
    return (*steps[:at], taken.step, *steps[at:])


def _writing(taken: _TakenBack) -> WriteFile:
    return WriteFile(path=taken.blamed.change.path, content=taken.content.decode())


def _is_only_change(case: RepairCase, blamed: Blamed) -> bool:
    """Tell whether the blamed change is all that its step does, and no other step touches its path."""
    of_step = next(one for one in case.findings.steps if one.step_id == blamed.step_id)
    path = blamed.change.path
    touching = [one for one in case.findings.steps if any(path in {two.path, two.moved_from} for two in one.changes)]
    return len(of_step.changes) == 1 and len(touching) == 1


def _undone(case: RepairCase, failing: Step, *, without: str = "") -> tuple[Step, ...]:
    """Return what is left to do from the failing step on; in a dry run that is the whole plan."""
    steps = case.plan.steps if case.failure is None else case.plan.steps[case.plan.steps.index(failing) :]
    return tuple(step for step in steps if step.step_id != without and step.step_id not in case.standing)


def _without_effect(case: RepairCase, failing: Step) -> PlanDraft | None:
    """Return the rest of an execution without its failed live step; a dry run is repaired by whoever wrote the step."""
    if case.failure is None:
        return None
    steps = _undone(case, failing, without=failing.step_id)
    return _draft(case, steps, f"go on without {failing.step_id}, of which nothing is begun again")


def _draft(case: RepairCase, steps: tuple[Step, ...], what: str) -> PlanDraft | None:
    if not steps:
        return None
    return PlanDraft(objective=f"Repair: {what}", workspace=case.mission.workspace_id, steps=renewed(steps))
