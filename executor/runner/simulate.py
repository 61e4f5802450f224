"""The dry run: a plan, step by step and for real, on a throw-away copy of its workspace.

A dry run ends in one of four ways. `success`: every step did what the plan says, and the change sets are exact.
`failed`: a step did not work. `blocked`: scope, policy or the ladder level does not allow it. `unsafe`: a result may
not be committed. The first problem ends it, since later steps stand on earlier ones; the report says which step.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from executor.domain.changes import Change, Node, NodeType, changes_between, net_states, states_fingerprint, touched
from executor.domain.errors import (
    DriftError,
    ExecutorError,
    Fault,
    RequestMalformedError,
    StepBlockedError,
    StepFailedError,
    StepUnsafeError,
)
from executor.domain.events import Payload, StepCompleted, StepOutput, StepStarted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Edit, Plan, Retrieval, RunCommand, RunTests, Step
from executor.domain.plan_paths import action_paths, named_paths, target_of
from executor.domain.report import Evidence, Problem, ReportStatus, StepReport
from executor.domain.risk import highest, risk_facts
from executor.runner.base import base_fingerprint
from executor.runner.ports import Emit, Simulation
from executor.runner.working_copy import CopyLimits, WorkingCopy
from executor.sandbox.sandbox import Sandbox
from executor.steps.command import run_command, run_tests
from executor.steps.edit import EditLimits, apply_edit
from executor.steps.retrieve import retrieve
from executor.workspace.globs import Globs
from executor.workspace.objects import Batch, ObjectStore
from executor.workspace.paths import PathInvalidError, PathOutsideError, relative
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace
from gonogo.safe_text import shown_path

OLD_CONTENT_BYTES = 256 * 1024
OLD_CONTENT_TOTAL = 16 * 1024 * 1024
STREAMED_OUTPUT_BYTES = 64 * 1024
SHOWN_PATHS = 20

STATUS_OF_ERROR: tuple[tuple[type[ExecutorError], ReportStatus], ...] = (
    (StepBlockedError, ReportStatus.BLOCKED),
    (PathOutsideError, ReportStatus.BLOCKED),
    (StagingUnavailableError, ReportStatus.BLOCKED),
    (StepUnsafeError, ReportStatus.UNSAFE),
    (StepFailedError, ReportStatus.FAILED),
    (DriftError, ReportStatus.FAILED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """Runs plans on throw-away copies; the port `executor.runner.ports.Simulator`."""

    sandbox: Sandbox | None
    ladder_level: LadderLevel
    objects: ObjectStore
    edit_limits: EditLimits
    copy_limits: CopyLimits
    tools: tuple[Path, ...]

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        """Run it; nothing in the workspace changes."""
        check_paths(plan)
        batch = self.objects.batch()
        copy = WorkingCopy(
            workspace=workspace,
            plan=plan,
            batch=batch,
            sandbox=self.sandbox,
            limits=self.copy_limits,
            tools=self.tools,
        )
        try:
            with copy:
                run = _Run(plan, workspace, copy, batch, self, emit)
                run.all_steps()
                manifest_digest = run.finish()
            batch.sync()
        except BaseException:
            batch.drop()
            raise
        return self._simulation(plan, run, batch, manifest_digest)

    def _simulation(self, plan: Plan, run: "_Run", batch: Batch, manifest_digest: str) -> Simulation:
        before, after = net_states([step.changes for step in run.reports])
        facts = risk_facts(changes_between(before, after))
        return Simulation(
            status=run.status,
            problems=tuple(run.problems),
            steps=tuple(run.reports),
            base_fingerprint=base_fingerprint(plan, run.reports, manifest_digest),
            after_fingerprint=states_fingerprint(after),
            manifest_digest=manifest_digest,
            risk_level=highest(facts),
            risk_facts=facts,
            small_objects=batch.small,
            ladder_level=self.ladder_level,
        )


def check_paths(plan: Plan) -> None:
    """Refuse a plan that names something which is no path inside a workspace.

    Raises:
        RequestMalformedError: with the step and the path.
    """
    for step in plan.steps:
        for path in named_paths(step.action):
            try:
                relative(path)
            except PathInvalidError as error:
                fault = error.fault
                raise RequestMalformedError(fault.reason, f"{step.step_id}: {fault.message}", fault.remedy) from None


class _Run:
    """The state of one dry run."""

    def __init__(
        self, plan: Plan, workspace: Workspace, copy: WorkingCopy, batch: Batch, simulator: Simulator, emit: Emit
    ) -> None:
        self.status = ReportStatus.SUCCESS
        self.reports: list[StepReport] = []
        self.problems: list[Problem] = []
        self._plan = plan
        self._workspace = workspace
        self._copy = copy
        self._batch = batch
        self._simulator = simulator
        self._emit = emit
        self._scope = Globs(plan.scope.paths)
        self._old_bytes = 0
        self._touched: set[bytes] = set()

    def all_steps(self) -> None:
        """Run the steps in order until one has a problem."""
        for step in self._plan.steps:
            if not self._guarded(step.step_id, lambda step=step: self._one_step(step)):  # type: ignore[misc]  # bound now
                return
        self._guarded("", self._check_size)

    def finish(self) -> str:
        """Check that nobody changed the workspace meanwhile; keep the manifest of what commands saw.

        Returns:
            The kept manifest's digest; empty where no command ran.
        """
        before, after = self._copy.manifest_before, self._copy.manifest_after()
        if before is None or after is None:
            return ""
        self._guarded("", lambda: self._check_unchanged(before.differences(after)))
        return self._batch.put_bytes(before.encode())

    def _guarded(self, step_id: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except ExecutorError as error:
            status = next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), None)
            if status is None:
                raise
            self._problem(step_id, status, error.fault)
            return False
        return True

    def _problem(self, step_id: str, status: ReportStatus, fault: Fault) -> None:
        self.status = status if self.status is ReportStatus.SUCCESS else self.status
        for path in fault.paths[:SHOWN_PATHS] or (b"",):
            self.problems.append(
                Problem(
                    step_id=step_id,
                    path=shown_path(path),
                    reason=fault.reason,
                    message=fault.message,
                    remedy=fault.remedy,
                )
            )

    def _one_step(self, step: Step) -> None:
        started = time.monotonic()
        self._check_allowed(step)
        mark = self._copy.tree.mark()
        evidence, error = self._act(step)
        changes = self._copy.tree.changes_since(mark)
        self._check_hidden(touched(changes))  # before anything of it is kept, reported or shown to a command
        if isinstance(step.action, Edit):
            self._copy.record(changes)
        self._keep_old_content(changes)
        self._touched.update(touched(changes))
        report = StepReport(
            step_id=step.step_id,
            kind=step.kind,
            stage=step.stage,
            success=error is None,
            changes=changes,
            evidence=evidence,
            duration_ms=round((time.monotonic() - started) * 1000),
        )
        self.reports.append(report)
        if isinstance(step.action, RunCommand | RunTests):
            self._emit_completed(report)
        if error is not None:
            raise error
        self._check_scope(change.path for change in changes)
        self._check_scope(change.moved_from for change in changes if change.moved_from)

    def _emit_completed(self, report: StepReport) -> None:
        self._emit(
            StepCompleted(
                step_id=report.step_id,
                kind=report.kind,
                stage=report.stage,
                success=report.success,
                duration_ms=report.duration_ms,
                change_count=len(report.changes),
            )
        )

    def _act(self, step: Step) -> tuple[Evidence | None, ExecutorError | None]:
        action = step.action
        if isinstance(action, Edit):
            apply_edit(self._copy.tree, action, self._simulator.edit_limits)
            return None, None
        if isinstance(action, Retrieval):
            return retrieve(self._copy.tree, action, hidden=self._workspace.hidden), None
        return self._in_sandbox(step, action)

    def _in_sandbox(self, step: Step, action: RunCommand | RunTests) -> tuple[Evidence, ExecutorError | None]:
        self._emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=target_of(action)))
        run = self._copy.sandbox_run(action, output_events(step.step_id, self._emit))
        evidence: Evidence
        if isinstance(action, RunCommand):
            evidence, error = run_command(run, action)
            self._copy.absorb()
        else:
            evidence, error = run_tests(run, action)
        return evidence, error

    def _check_allowed(self, step: Step) -> None:
        if isinstance(step.action, Edit | RunCommand):
            self._workspace.committer(self._simulator.objects)  # refuses where nothing could be committed
        paths = [relative(path) for path in action_paths(step.action)]
        self._check_scope(paths)
        self._check_hidden(paths)

    def _check_hidden(self, paths: Iterable[bytes]) -> None:
        """Refuse a step that names a hidden path, or whose change would reach one beneath what it names."""
        hidden = tuple(path for path in paths if self._workspace.hidden.covers(path))
        if hidden:
            raise StepBlockedError(
                "PATH_OUTSIDE_SCOPE",
                "the executor's policy hides this path",
                "leave it out of the plan, or ask the executor's operator to change `hidden`",
                paths=hidden,
            )

    def _check_scope(self, paths: Iterable[bytes]) -> None:
        if not self._scope.patterns:
            return
        outside = tuple(path for path in paths if not self._scope.matches(path))
        if outside:
            raise StepBlockedError(
                "PATH_OUTSIDE_SCOPE",
                "the plan's scope does not hold this path",
                "add it to scope.paths, or change the step",
                paths=outside,
            )

    def _check_size(self) -> None:
        limit = min(
            self._plan.scope.max_bytes or self._simulator.copy_limits.change_bytes,
            self._simulator.copy_limits.change_bytes,
        )
        _, after = net_states([step.changes for step in self.reports])
        total = sum(node.size for node in after.values() if node is not None)
        if total > limit:
            raise StepBlockedError(
                "TOO_LARGE",
                f"the change set holds {total} bytes; the limit is {limit}",
                "raise scope.max_bytes or split the plan",
            )
        if len(after) > self._simulator.copy_limits.change_count:
            raise StepBlockedError("TOO_LARGE", f"{len(after)} paths change", "split the plan")

    def _check_unchanged(self, differences: tuple[bytes, ...]) -> None:
        if differences:
            raise DriftError(
                "BASE_DRIFTED",
                "the workspace changed while the dry run worked on it",
                "dry-run again when nobody else writes to the workspace",
                paths=differences,
            )

    def _keep_old_content(self, changes: Iterable[Change]) -> None:
        """Keep small former contents, so that a diff can be shown also after the execution."""
        for change in changes:
            old = change.old
            if old is None or old.type is not NodeType.FILE or change.moved_from or change.path in self._touched:
                continue  # only what the base holds under that very path can be read from it
            if old.size <= OLD_CONTENT_BYTES and self._old_bytes + old.size <= OLD_CONTENT_TOTAL:
                self._keep(change.path, old)

    def _keep(self, path: bytes, old: Node) -> None:
        data = self._copy.base.read(path, OLD_CONTENT_BYTES)
        self._old_bytes += old.size
        if self._batch.put_bytes(data) != old.digest:
            raise DriftError(
                "BASE_DRIFTED",
                "the file changed while the dry run worked on it",
                "dry-run again when nobody else writes to the workspace",
                paths=(path,),
            )


def output_events(step_id: str, emit: Callable[[Payload], None]) -> Callable[[str, bytes], None]:
    """Turn a program's output into events, up to a bound; all of it is in the evidence by digest."""
    left = STREAMED_OUTPUT_BYTES

    def on_output(stream: str, data: bytes) -> None:
        nonlocal left
        if left > 0:
            emit(StepOutput(step_id=step_id, stream=stream, text=data[:left].decode("utf-8", "replace")))
            left -= len(data)

    return on_output
