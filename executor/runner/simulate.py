"""The dry run: a plan, step by step and for real, on a throw-away copy of its workspace.

A dry run ends in one of four ways. `success`: every step did what the plan says, and the change sets are exact.
`failed`: a step did not work. `blocked`: scope, policy or the ladder level does not allow it. `unsafe`: a result may
not be committed. The first problem ends it, since later steps stand on earlier ones; the report says which step.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from executor.domain.changes import (
    Change,
    Node,
    NodeType,
    net_changes,
    net_states,
    states_fingerprint,
    touched,
)
from executor.domain.errors import (
    DriftError,
    ExecutorError,
    Fault,
    RequestMalformedError,
)
from executor.domain.events import Payload, StepCompleted, StepOutput, StepStarted
from executor.domain.exposure import Exposure, exposed, exposure
from executor.domain.ladder import LadderLevel
from executor.domain.outside_risk import outside_facts
from executor.domain.plan import (
    Edit,
    FetchUrl,
    Live,
    Plan,
    Retrieval,
    RunCommand,
    RunTests,
    SearchBodies,
    Step,
    UndoStep,
)
from executor.domain.plan_paths import named_paths, target_of
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import Evidence, Notice, Problem, ReportStatus, StepReport
from executor.domain.risk import Around, highest, ranked, risk_facts
from executor.domain.unsafe import ResultUnsafeError, commits_without_index, unsafe_changes
from executor.runner.allowed import Allowed
from executor.runner.base import base_fingerprint
from executor.runner.command_network import NO_NETWORK, CommandNetwork
from executor.runner.declaring import Declaring, Found
from executor.runner.drift import changed_meanwhile
from executor.runner.notices import KnownIds, output_notices, sandbox_notices
from executor.runner.outside import NOTHING_OUTSIDE, FarSides
from executor.runner.ports import Emit, Simulation
from executor.runner.problems import problems_of, status_of
from executor.runner.surroundings import around
from executor.runner.working_copy import CopyLimits, WorkingCopy
from executor.sandbox.sandbox import Sandbox
from executor.steps.command import run_command, run_tests
from executor.steps.edit import EditLimits, apply_edit
from executor.steps.retrieve import retrieve
from executor.steps.undo import NOTHING_KEPT, KeptSteps, Undoing
from executor.workspace.folding import Folding
from executor.workspace.links import leaving_links
from executor.workspace.manifest import Manifest
from executor.workspace.objects import Batch, ObjectStore, data_blocks
from executor.workspace.paths import PathInvalidError, relative
from executor.workspace.workspace import Workspace

OLD_CONTENT_BYTES = 256 * 1024
OLD_CONTENT_TOTAL = 16 * 1024 * 1024
STREAMED_OUTPUT_BYTES = 64 * 1024
TOLD = RunCommand | RunTests | SearchBodies | FetchUrl | Live
"""What takes its time, so that its beginning and its end are events of the dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """Runs plans on throw-away copies; the port `executor.runner.ports.Simulator`."""

    sandbox: Sandbox | None
    ladder_level: LadderLevel
    objects: ObjectStore
    edit_limits: EditLimits
    copy_limits: CopyLimits
    tools: tuple[Path, ...]
    kept_steps: KeptSteps = NOTHING_KEPT
    redactor: Redactor = NO_SECRETS
    far_sides: FarSides = NOTHING_OUTSIDE
    network: CommandNetwork = NO_NETWORK

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        """Run it; nothing in the workspace changes."""
        check_paths(plan)
        batch = self.objects.batch(self.redactor)
        copy = WorkingCopy(
            workspace=workspace,
            plan=plan,
            batch=batch,
            sandbox=self.sandbox,
            limits=self.copy_limits,
            tools=self.tools,
            redactor=self.redactor,
            network=self.network,
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
        change_sets = [step.changes for step in run.reports]
        facts = ranked((*risk_facts(net_changes(change_sets), run.around()), *outside_facts(plan.steps, run.reports)))
        return Simulation(
            status=run.status,
            problems=tuple(run.problems),
            steps=tuple(run.reports),
            base_fingerprint=base_fingerprint(plan, run.reports, manifest_digest),
            after_fingerprint=states_fingerprint(net_states(change_sets)[1]),
            manifest_digest=manifest_digest,
            risk_level=highest(facts),
            risk_facts=facts,
            small_objects=batch.small,
            ladder_level=self.ladder_level,
            notices=run.notices(),
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
        self._allowed = Allowed(
            plan,
            workspace,
            objects=simulator.objects,
            ladder_level=simulator.ladder_level,
            limits=simulator.copy_limits,
        )
        self._old_bytes = 0
        self._touched: set[bytes] = set()
        self._folding = Folding(copy.tree)
        self._undoing = Undoing(copy.tree, batch, limit=simulator.copy_limits.change_bytes)
        self._undoes = any(isinstance(step.action, UndoStep) for step in plan.steps)
        self._declaring = Declaring(
            plan=plan,
            workspace=workspace,
            far_sides=simulator.far_sides,
            batch=batch,
            redactor=simulator.redactor,
            on_output=lambda step_id: output_events(step_id, emit),
        )

    def all_steps(self) -> None:
        """Run the steps in order until one has a problem; none where the plan demands more isolation than there is."""
        if not self._guarded("", self._allowed.check_level):
            return
        for step in self._plan.steps:
            if not self._guarded(step.step_id, lambda step=step: self._one_step(step)):  # type: ignore[misc]  # bound now
                return
        self._guarded("", lambda: self._allowed.check_size(self.reports))

    def finish(self) -> str:
        """Check that nobody changed the workspace meanwhile; keep the manifest of what commands saw.

        Returns:
            The kept manifest's digest; empty where no command ran.
        """
        if self.status is ReportStatus.SUCCESS:
            self._guarded("", lambda: self._check_unchanged(changed_meanwhile(self._copy.tree, self._workspace)))
        before, after = self._copy.manifest_before, self._copy.manifest_after()
        if before is None or after is None:
            return ""
        self._guarded("", lambda: self._check_unchanged(before.differences(after)))
        if not self._guarded("", lambda: self._check_names(before)):
            return ""
        return self._batch.put_bytes(before.encode())

    def notices(self) -> tuple[Notice, ...]:
        """Return what the report says besides."""
        return (
            *sandbox_notices(self._copy.manifest_before, KnownIds.of_this_process()),
            *output_notices(self.reports),
            *self._copy.network_notices(),
        )

    def around(self) -> Around:
        """Return what the facts of risk need to know."""
        return around(self._copy.tree, self._folding)

    def _guarded(self, step_id: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except ExecutorError as error:
            status = status_of(error)
            if status is None:
                raise
            self.status = status if self.status is ReportStatus.SUCCESS else self.status
            self.problems += problems_of(step_id, error)
            return False
        return True

    def _one_step(self, step: Step) -> None:
        started = time.monotonic()
        self._allowed.check_step(step)
        mark = self._copy.tree.mark()
        found, error, faults = self._act(step)
        changes = self._changes(step, mark)
        self._allowed.check_hidden(touched(changes))  # before anything of it is kept, reported or shown to a command
        told = self._exposure(changes)
        faults += told.faults
        if isinstance(step.action, Edit | UndoStep):
            self._copy.record(changes)
        self._keep_old_content(changes)
        self._touched.update(touched(changes))
        faults += self._unsafe(step, changes)
        if error is None and faults:
            error = ResultUnsafeError(faults)
        report = StepReport(
            step_id=step.step_id,
            kind=step.kind,
            stage=step.stage,
            success=error is None,
            changes=told.tellable,
            evidence=found.evidence,
            duration_ms=round((time.monotonic() - started) * 1000),
            not_simulated=found.not_simulated,
            irreversible=found.irreversible,
            needs_approval=step.needs_approval,
            compensation=found.compensation,
        )
        self.reports.append(report)
        if isinstance(step.action, TOLD):
            self._emit_completed(report)
        if error is not None:
            raise error
        if not isinstance(step.action, UndoStep):  # checked before; what came to it are times of directories
            self._allowed.check_scope(change.path for change in changes)
            self._allowed.check_scope(change.moved_from for change in changes if change.moved_from)

    def _changes(self, step: Step, mark: int) -> tuple[Change, ...]:
        command = isinstance(step.action, RunCommand)
        changes = self._copy.changes_of_command(mark) if command else self._copy.tree.changes_since(mark)
        return self._undoing.timed(changes) if self._undoes else changes

    def _unsafe(self, step: Step, changes: tuple[Change, ...]) -> tuple[Fault, ...]:
        """Return why a step's changes may not be committed, whoever made them."""
        tree = self._copy.tree
        hidden = self._copy.volatile if isinstance(step.action, RunCommand) else ()
        return (
            *commits_without_index(changes, hidden),
            *unsafe_changes(changes, tree.node),
            *leaving_links(changes, tree, os.fsencode(self._workspace.root)),
            *self._folding.collisions(changes),
        )

    def _exposure(self, changes: tuple[Change, ...]) -> Exposure:
        """Find the secrets in a step's changes; what holds one is told by its path alone, and kept nowhere."""
        batch, base, redactor = self._batch, self._copy.base, self._simulator.redactor

        def new_content(_path: bytes, node: Node) -> str | None:
            return batch.exposed.get(node.digest)

        def old_content(path: bytes, _node: Node) -> str | None:
            if path in self._touched:
                return None  # an earlier step's own, which was looked at then
            fd = base.open_file(path)
            try:
                return redactor.find_in(data_blocks(fd, os.fstat(fd).st_size))
            finally:
                os.close(fd)

        return exposure(changes, redactor, new_content, old_content)

    def _check_names(self, manifest: Manifest) -> None:
        """Refuse to keep a list of all that commands saw where a name in it is a secret."""
        redactor = self._simulator.redactor
        secret = redactor.find_in(manifest.blocks()) if redactor else None
        if secret is not None:
            raise ResultUnsafeError((exposed(b"", secret, redactor),))

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

    def _act(self, step: Step) -> tuple[Found, ExecutorError | None, tuple[Fault, ...]]:
        action = step.action
        if isinstance(action, Edit):
            apply_edit(self._copy.tree, action, self._simulator.edit_limits)
            return Found(), None, ()
        if isinstance(action, Retrieval):
            return Found(evidence=self._retrieved(action)), None, ()
        if isinstance(action, UndoStep):
            self._take_back(action)
            return Found(), None, ()
        self._emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=target_of(action)))
        if isinstance(action, RunCommand | RunTests):
            return self._in_sandbox(step, action)
        return self._declaring.look(step, action), None, ()

    def _retrieved(self, action: Retrieval) -> Evidence:
        redactor = self._simulator.redactor
        return retrieve(self._copy.tree, action, hidden=self._workspace.hidden, redactor=redactor)

    def _take_back(self, action: UndoStep) -> None:
        kept = self._simulator.kept_steps.find(action, self._workspace)
        paths = touched(kept.changes)
        self._allowed.check_scope(paths)
        self._allowed.check_hidden(paths)  # before the first byte of a former content is read
        self._undoing.take_back(kept)

    def _in_sandbox(
        self, step: Step, action: RunCommand | RunTests
    ) -> tuple[Found, ExecutorError | None, tuple[Fault, ...]]:
        run = self._copy.sandbox_run(action, output_events(step.step_id, self._emit))
        if isinstance(action, RunCommand):
            evidence, error = run_command(run, action)
            return Found(evidence=evidence), error, self._copy.absorb()
        tested, error = run_tests(run, action)
        return Found(evidence=tested), error, ()

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
