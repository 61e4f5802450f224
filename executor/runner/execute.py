"""The execution: commits what the report found, step by step, and never runs a command again.

For each step, in plan order: check what it starts from, take a checkpoint, commit, look at the real result and
compare it with the report. A step that fails is undone by itself; then the plan's failure policy decides about the
earlier ones.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from executor.domain.changes import Change, Node, states_after, states_before, states_fingerprint
from executor.domain.errors import ExecutorError
from executor.domain.events import (
    ApprovalRevoked,
    CheckpointCreated,
    DiffProposed,
    DivergenceDetected,
    ExecutionCompleted,
    ExecutionPaused,
    FailureDetected,
    RetrievalCompleted,
    RetrievalStarted,
    RollbackCompleted,
    RollbackStarted,
    StageChanged,
    StepCompleted,
    StepStarted,
)
from executor.domain.plan import FailurePolicy, Plan, Retrieval, RunTests, Stage, Step
from executor.domain.plan_paths import target_of
from executor.domain.receipt import ExecutionResult, Outcome, StepReceipt
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import ReadEvidence, Report, StepReport, TestEvidence, TestVerdict
from executor.domain.revocation import SHOWN_REASON, RevocationRecord
from executor.runner.disk import states_on_disk
from executor.runner.letting_go import Commits
from executor.runner.ports import Emit, Ended, Stopped, nothing
from executor.runner.simulate import output_events
from executor.runner.working_copy import CopyLimits, WorkingCopy
from executor.sandbox.sandbox import Sandbox
from executor.steps.command import run_tests
from executor.steps.retrieve import retrieve
from executor.workspace.commit import Applied, CommitConflictError, Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace
from gonogo.safe_text import excerpt, safe_line, shown_path

SHOWN_DETAILS = 50


class StepFault(Exception):  # noqa: N818 - not an error of its own: it carries what failed to where it is recorded
    """What made a step fail."""

    def __init__(
        self, reason: str, message: str, *, met: bool = True, details: tuple[str, ...] = (), undo: Applied | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.met = met
        self.details = details
        self.undo = undo


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a step that worked came to."""

    action_type: str
    detail: str
    changes: tuple[Change, ...] = ()
    verdict: TestVerdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Executioner:
    """Executes approved plans; the port `executor.runner.ports.Executioner`."""

    sandbox: Sandbox | None
    objects: ObjectStore
    copy_limits: CopyLimits
    tools: tuple[Path, ...]
    before_effects: Callable[[], None] | None = None
    """Waits until the claim is remembered outside of the ledger; called before the first thing that can be seen."""
    redactor: Redactor = NO_SECRETS

    def run(
        self,
        plan: Plan,
        report: Report,
        workspace: Workspace,
        emit: Emit,
        execution_id: str,
        stopped: Stopped = nothing,
    ) -> Ended:
        """Run it. Called once per execution id, after the claim and under the workspace's lock."""
        execution = _Execution(self, plan, report, workspace, emit, execution_id, stopped)
        execution.all_steps()
        ended = execution.ended()
        emit(ExecutionCompleted(execution_id=execution_id, outcome=ended.result.outcome))
        return ended


class _Execution:
    """The state of one execution."""

    def __init__(
        self,
        house: Executioner,
        plan: Plan,
        report: Report,
        workspace: Workspace,
        emit: Emit,
        execution_id: str,
        stopped: Stopped,
    ) -> None:
        self._stopped = stopped
        self._house = house
        self._plan = plan
        self._report = report
        self._workspace = workspace
        self._emit = emit
        self._root = workspace.open()
        self._commits = Commits(
            execution_id=execution_id, mission_id=plan.mission_id, workspace_id=workspace.workspace_id
        )
        self._stage: Stage | None = None
        self._receipts: dict[str, StepReceipt] = {}
        self._before: dict[bytes, Node | None] = {}
        self._after: dict[bytes, Node | None] = {}
        self._errors: list[str] = []
        self._divergence: list[str] = []
        self._abort_reason = ""

    def all_steps(self) -> None:
        """Run the steps in order; after a failure the policy decides."""
        for number, (step, expected) in enumerate(zip(self._plan.steps, self._report.steps, strict=True), 1):
            revoked = self._stopped()
            if revoked is not None:
                self._stop(revoked, step)
                break
            if self._one_step(number, step, expected):
                continue
            if self._plan.failure_policy is not FailurePolicy.CONTINUE or self._commits.conflicts:
                break
        if not self._abort_reason and states_fingerprint(self._after) != self._report.after_fingerprint:
            self._divergence.append("the after fingerprint is not the report's")
            self._errors.append("the result is not what the report said, though every step was")
            self._abort_reason = "DIVERGED"
        if self._abort_reason and self._plan.failure_policy is FailurePolicy.ROLL_BACK:
            self._roll_back()

    def _stop(self, revoked: RevocationRecord, step: Step) -> None:
        """Begin no step any more: somebody took back what the execution stands on. It does not wait for anybody.

        The failure belongs to no step, so that none of them is told as begun.
        """
        message = f"stopped before {step.step_id}: {revoked.words}"
        self._errors.append(message)
        self._abort_reason = "APPROVAL_REVOKED"
        self._emit(
            ApprovalRevoked(
                revocation_id=revoked.revocation_id,
                approver=revoked.person,
                denied=revoked.denied,
                reason=safe_line(excerpt(revoked.reason, SHOWN_REASON)),
            )
        )
        self._emit(ExecutionPaused(reason=safe_line(message)))
        self._emit(FailureDetected(step_id="", reason=self._abort_reason, message=safe_line(message)))

    def ended(self) -> Ended:
        """Return what came of it."""
        result = ExecutionResult(
            outcome=self._outcome(),
            steps=tuple(self._receipts.values()),
            before=tuple(sorted(self._before.items())),
            after=tuple(sorted(self._after.items())),
            after_fingerprint=states_fingerprint(self._after),
            divergence_details=tuple(self._divergence),
            abort_reason=self._abort_reason,
            errors=tuple(self._errors),
        )
        return Ended(result=result, checkpoints=self._commits.checkpoints(), let_go=self._let_go)

    def _let_go(self) -> None:
        commits = self._commits
        if commits.standing or commits.undone or commits.conflicts:
            commits.let_go(self._committer)

    @property
    def _committer(self) -> Committer:
        return self._workspace.committer(self._house.objects)

    def _outcome(self) -> Outcome:
        if self._commits.conflicts:
            return Outcome.UNKNOWN
        if not self._abort_reason:
            return Outcome.SUCCESS
        if self._commits.standing:
            return Outcome.PARTIAL
        return Outcome.ROLLED_BACK if self._commits.undone else Outcome.ABORTED

    def _one_step(self, number: int, step: Step, expected: StepReport) -> bool:
        self._enter_stage(step.stage)
        target = target_of(step.action)
        self._emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=target))
        started, clock = datetime.now(UTC), time.monotonic()
        try:
            done, fault = self._act(number, step, expected), None
        except StepFault as error:
            done, fault = None, error
        except CommitConflictError as error:  # both versions are kept; a person must choose
            self._commits.conflicts.append(error.applied)
            self._divergence.append(error.fault.message)
            done, fault = None, StepFault(error.fault.reason, error.fault.message, met=False)
        except ExecutorError as error:
            done, fault = None, StepFault(error.fault.reason, error.fault.message, met=False)
        took = round((time.monotonic() - clock) * 1000)
        receipt = _receipt(step, target, started, took, done, fault)
        self._receipts[step.step_id] = receipt
        if fault is not None:
            self._fail(step, receipt, fault)
        self._emit(
            StepCompleted(
                step_id=step.step_id,
                kind=step.kind,
                stage=step.stage,
                success=fault is None,
                duration_ms=took,
                change_count=0 if done is None else len(done.changes),
            )
        )
        return fault is None

    def _enter_stage(self, stage: Stage) -> None:
        if stage is not self._stage:
            self._stage = stage
            self._emit(StageChanged(stage=stage))

    def _act(self, number: int, step: Step, expected: StepReport) -> Done:
        action = step.action
        if isinstance(action, Retrieval):
            return self._read(step, action, expected)
        if isinstance(action, RunTests):
            return self._test(step, action, expected)
        return self._commit(self._commits.slot(number), step, expected)

    def _read(self, step: Step, action: Retrieval, expected: StepReport) -> Done:
        self._emit(RetrievalStarted(step_id=step.step_id, target=target_of(action)))
        tree = Tree(self._root, self._house.objects.batch())
        found = retrieve(tree, action, hidden=self._workspace.hidden, redactor=self._house.redactor)
        if _essence(found) != _essence(expected.evidence):
            raise StepFault("DIVERGED", f"{target_of(action)}: found something else than the dry run", met=False)
        summary = "found what the dry run found"
        self._emit(RetrievalCompleted(step_id=step.step_id, summary=summary))
        return Done(action_type="read", detail=summary)

    def _test(self, step: Step, action: RunTests, expected: StepReport) -> Done:
        house = self._house
        copy = WorkingCopy(
            workspace=self._workspace,
            plan=self._plan,
            batch=house.objects.batch(),
            sandbox=house.sandbox,
            limits=house.copy_limits,
            tools=house.tools,
            redactor=house.redactor,
        )
        with copy:
            evidence, error = run_tests(copy.sandbox_run(action, output_events(step.step_id, self._emit)), action)
        if error is not None:
            raise StepFault("DIVERGED", error.fault.message)
        if not isinstance(expected.evidence, TestEvidence) or evidence.verdict is not expected.evidence.verdict:
            raise StepFault("DIVERGED", f"the verdict is {evidence.verdict.value}, not the dry run's")
        detail = f"{evidence.tests} tests, {evidence.failures} failures, {evidence.errors} errors"
        return Done(action_type="verify", detail=detail, verdict=evidence.verdict)

    def _commit(self, slot: str, step: Step, expected: StepReport) -> Done:
        changes = expected.changes
        if not changes:
            return Done(action_type="commit", detail="the dry run changed nothing")
        self._emit(DiffProposed(step_id=step.step_id, change_count=len(changes), risk=self._report.risk_level))
        self._emit(CheckpointCreated(step_id=step.step_id, checkpoint_id=slot, path_count=len(changes)))
        applied = self._committer.apply(slot, changes, before_effects=self._house.before_effects)
        self._commits.standing[step.step_id] = applied
        self._before = {**states_before(changes), **self._before}
        self._after.update(self._verified(applied))
        counted = "1 path" if len(changes) == 1 else f"{len(changes)} paths"
        return Done(action_type="commit", detail=f"{counted} as the report expected", changes=changes)

    def _verified(self, applied: Applied) -> dict[bytes, Node | None]:
        """Return what the touched paths really are, which must be what the report said."""
        promised = states_after(applied.changes)
        try:
            found = {path: self._root.state(path) for path in promised}
        except ExecutorError as error:
            raise StepFault(error.fault.reason, error.fault.message, undo=applied) from error
        details = _differences(promised, found) + self._committer.time_differences(applied.changes)
        if details:
            raise StepFault("DIVERGED", "the result is not what the report said", details=details, undo=applied)
        return found

    def _fail(self, step: Step, receipt: StepReceipt, fault: StepFault) -> None:
        message = f"{step.step_id}: {fault}"
        self._errors.append(message)
        self._abort_reason = self._abort_reason or fault.reason
        self._emit(FailureDetected(step_id=step.step_id, reason=fault.reason, message=safe_line(str(fault))))
        if fault.details:
            self._divergence += fault.details
            self._emit(DivergenceDetected(step_id=step.step_id, details=fault.details[:SHOWN_DETAILS]))
        if fault.undo is not None:
            self._receipts[step.step_id] = self._undo(receipt, fault.undo)

    def _roll_back(self) -> None:
        """Undo every committed step, newest first."""
        for step_id, applied in reversed(list(self._commits.standing.items())):
            self._receipts[step_id] = self._undo(self._receipts[step_id], applied)

    def _undo(self, receipt: StepReceipt, applied: Applied) -> StepReceipt:
        self._emit(RollbackStarted(step_id=receipt.step_id))
        undone = self._committer.undo(applied)
        self._commits.took_back(receipt.step_id, applied, undone)
        self._after.update(states_on_disk(self._root, states_before(applied.changes)))
        self._divergence += undone.differences
        message = "; ".join(undone.differences[:SHOWN_DETAILS])
        self._emit(RollbackCompleted(step_id=receipt.step_id, success=undone.success, message=message))
        return replace(receipt, rollback_invoked=True, rollback_succeeded=undone.success)


def _receipt(
    step: Step, target: str, started: datetime, took: int, done: Done | None, fault: StepFault | None
) -> StepReceipt:
    return StepReceipt(
        step_id=step.step_id,
        operation=step.kind,
        target=target,
        action_type=_action_type(step) if done is None else done.action_type,
        stage=step.stage,
        started_at=started,
        completed_at=datetime.now(UTC),
        duration_ms=took,
        precondition_met=fault is None or fault.met,
        precondition_detail=str(fault) if done is None else done.detail,
        expected_vs_actual_match=fault is None,
        actual_state_change=() if done is None else done.changes,
        success=fault is None,
        rollback_invoked=False,
        rollback_succeeded=False,
        error_message="" if fault is None else str(fault),
        test_verdict=None if done is None else done.verdict,
    )


def _action_type(step: Step) -> str:
    if isinstance(step.action, Retrieval):
        return "read"
    return "verify" if isinstance(step.action, RunTests) else "commit"


def _essence(evidence: object) -> object:
    """Return what two findings are compared by: what was read, or the digest over all that was found."""
    return evidence.node if isinstance(evidence, ReadEvidence) else getattr(evidence, "digest", None)


def _differences(promised: Mapping[bytes, Node | None], found: Mapping[bytes, Node | None]) -> tuple[str, ...]:
    return tuple(
        f"{safe_line(shown_path(path))}: {_shown(found[path])} instead of {_shown(node)}"
        for path, node in sorted(promised.items())
        if found[path] != node
    )


def _shown(node: Node | None) -> str:
    if node is None:
        return "nothing"
    return " ".join(part for part in (node.type.value, f"{node.mode:04o}", node.digest) if part)
