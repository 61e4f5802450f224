"""What one step of an execution does: look and compare, commit what the report found, test again, or reach outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from executor.domain.changes import Change, Node, states_after, states_before
from executor.domain.errors import ExecutorError
from executor.domain.events import CheckpointCreated, DiffProposed, RetrievalCompleted, RetrievalStarted
from executor.domain.plan import FetchUrl, Retrieval, RunTests, SearchBodies, Step
from executor.domain.plan_paths import target_of
from executor.domain.receipt import EffectRecord
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import FetchEvidence, ReadEvidence, StepReport, TestCase, TestEvidence, TestVerdict
from executor.domain.risk import highest
from executor.runner.command_network import NO_NETWORK, CommandNetwork
from executor.runner.orders import Order
from executor.runner.outside import NOTHING_OUTSIDE, FarSides, Setting
from executor.runner.position import Position
from executor.runner.simulate import output_events
from executor.runner.working_copy import CopyLimits, WorkingCopy
from executor.sandbox.sandbox import Sandbox
from executor.steps.command import run_tests
from executor.steps.retrieve import retrieve
from executor.workspace.commit import Applied, Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.tree import Tree
from gonogo.safe_text import safe_line, shown_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What steps are done with."""

    sandbox: Sandbox | None
    objects: ObjectStore
    copy_limits: CopyLimits
    tools: tuple[Path, ...]
    before_effects: Callable[[], None] | None = None
    """Waits until the claim is remembered outside of the ledger; called before the first thing that can be seen."""
    redactor: Redactor = NO_SECRETS
    far_sides: FarSides = NOTHING_OUTSIDE
    network: CommandNetwork = NO_NETWORK


class StepFault(Exception):  # noqa: N818 - not an error of its own: it carries what failed to where it is recorded
    """What made a step fail."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        met: bool = True,
        path: str = "",
        details: tuple[str, ...] = (),
        undo: Applied | None = None,
        tests: TestEvidence | None = None,
        effect: EffectRecord | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.met = met
        self.path = path
        self.details = details
        self.undo = undo
        self.tests = tests
        self.effect = effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a step that worked came to."""

    action_type: str
    detail: str
    changes: tuple[Change, ...] = ()
    verdict: TestVerdict | None = None
    cases: tuple[TestCase, ...] = ()
    effect: EffectRecord | None = None


class StepWork:
    """Does the steps of one execution. A step that does not work raises a StepFault, or an ExecutorError."""

    def __init__(self, means: Means, order: Order, position: Position) -> None:
        self._means = means
        self._order = order
        self._position = position
        self._workspace = order.workspace
        self._root = order.workspace.open()
        self._emit = order.emit

    @property
    def committer(self) -> Committer:
        """What commits to the workspace."""
        return self._workspace.committer(self._means.objects)

    def setting(self, step_id: str) -> Setting:
        """Return where and for whom a step reaches outside."""
        return Setting(
            plan=self._position.segment.plan,
            step_id=step_id,
            workspace=self._workspace,
            execution_id=self._order.execution_id,
            redactor=self._means.redactor,
            on_output=output_events(step_id, self._emit),
            cancel=self._order.desk.cancel,
        )

    def read(self, step: Step, action: Retrieval, expected: StepReport) -> Done:
        """Look again, and find what the dry run found."""
        self._emit(RetrievalStarted(step_id=step.step_id, target=target_of(action)))
        tree = Tree(self._root, self._means.objects.batch())
        found = retrieve(tree, action, hidden=self._workspace.hidden, redactor=self._means.redactor)
        if _essence(found) != _essence(expected.evidence):
            target = target_of(action)
            message = f"{target}: found something else than the dry run"
            raise StepFault("DIVERGED", message, met=False, path=target)
        return self._retrieved(step, "found what the dry run found")

    def fetch(self, step: Step, action: FetchUrl, expected: StepReport) -> Done:
        """Use the page that the dry run kept; where it could not read one, read it now, once."""
        self._emit(RetrievalStarted(step_id=step.step_id, target=target_of(action)))
        evidence = expected.evidence
        if isinstance(evidence, FetchEvidence) and evidence.fetched:
            return self._retrieved(step, "the page that the dry run kept")
        batch = self._means.objects.batch(self._means.redactor)
        try:
            found = self._means.far_sides.fetch(action, self.setting(step.step_id), batch)
            batch.sync_as_files()
        except BaseException:
            batch.drop()
            raise
        return self._retrieved(step, f"read {found.size} bytes with status {found.status_code}")

    def search(self, step: Step, action: SearchBodies) -> Done:
        """Search again: pages that were kept since may be found too, and nothing that is committed stands on them."""
        self._emit(RetrievalStarted(step_id=step.step_id, target=target_of(action)))
        found = self._means.far_sides.search(action, self.setting(step.step_id))
        return self._retrieved(step, f"found {found.count} matches in pages that were kept")

    def test(self, step: Step, action: RunTests, expected: StepReport) -> Done:
        """Run the tests again on what is committed, and compare the verdict."""
        means = self._means
        copy = WorkingCopy(
            workspace=self._workspace,
            plan=self._position.segment.plan,
            batch=means.objects.batch(),
            sandbox=means.sandbox,
            limits=means.copy_limits,
            tools=means.tools,
            redactor=means.redactor,
            network=means.network,
            cancel=self._order.desk.cancel,
        )
        with copy:
            evidence, error = run_tests(copy.sandbox_run(action, output_events(step.step_id, self._emit)), action)
        if error is not None:
            raise StepFault("DIVERGED", error.fault.message, tests=evidence)
        if not isinstance(expected.evidence, TestEvidence) or evidence.verdict is not expected.evidence.verdict:
            message = f"the verdict is {evidence.verdict.value}, not the dry run's"
            raise StepFault("DIVERGED", message, tests=evidence)
        detail = f"{evidence.tests} tests, {evidence.failures} failures, {evidence.errors} errors"
        return Done(action_type="verify", detail=detail, verdict=evidence.verdict, cases=evidence.cases)

    def commit(self, slot: str, step: Step, expected: StepReport, *, proposed: bool) -> Done:
        """Commit what the report found, and look at what is really there then.

        Args:
            slot: a name that no commit had before.
            step: the step.
            expected: what the report found.
            proposed: its changes were announced when it began to wait for its approval.
        """
        changes = expected.changes
        if not changes:
            return Done(action_type="commit", detail="the dry run changed nothing")
        if not proposed:
            self._emit(self.proposal(expected))
        self._emit(CheckpointCreated(step_id=step.step_id, checkpoint_id=slot, path_count=len(changes)))
        position = self._position
        applied = self.committer.apply(slot, changes, before_effects=self._means.before_effects)
        position.commits.standing[step.step_id] = applied
        position.before = {**states_before(changes), **position.before}
        position.after.update(self._verified(applied))
        counted = "1 path" if len(changes) == 1 else f"{len(changes)} paths"
        return Done(action_type="commit", detail=f"{counted} as the report expected", changes=changes)

    def proposal(self, expected: StepReport) -> DiffProposed:
        """Announce what a step changes."""
        paths = {shown_path(change.path) for change in expected.changes}
        risk = highest(fact for fact in self._position.segment.report.risk_facts if fact.path in paths)
        return DiffProposed(step_id=expected.step_id, change_count=len(expected.changes), risk=risk)

    def _retrieved(self, step: Step, summary: str) -> Done:
        self._emit(RetrievalCompleted(step_id=step.step_id, summary=summary))
        return Done(action_type="read", detail=summary)

    def _verified(self, applied: Applied) -> dict[bytes, Node | None]:
        """Return what the touched paths really are, which must be what the report said."""
        promised = states_after(applied.changes)
        try:
            found = {path: self._root.state(path) for path in promised}
        except ExecutorError as error:
            raise StepFault(error.fault.reason, error.fault.message, undo=applied) from error
        details = _differences(promised, found) + self.committer.time_differences(applied.changes)
        if details:
            path = details[0].partition(": ")[0]
            message = "the result is not what the report said"
            raise StepFault("DIVERGED", message, path=path, details=details, undo=applied)
        return found


def action_type(step: Step) -> str:
    """Return what a step of its kind does to the workspace: read, verify, or commit."""
    if isinstance(step.action, Retrieval | FetchUrl | SearchBodies):
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
