"""What scope, policy and the ladder level allow a plan to do; whatever they do not is blocked, by name."""

from collections.abc import Iterable

from executor.domain.changes import net_states
from executor.domain.errors import StepBlockedError
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Edit, Plan, RunCommand, Step, UndoStep
from executor.domain.plan_paths import action_paths
from executor.domain.report import StepReport
from executor.runner.working_copy import CopyLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import Objects
from executor.workspace.paths import relative
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace


class Allowed:
    """What one plan may do in its workspace.

    Every check raises StepBlockedError with what is not allowed and what to do about it.
    """

    def __init__(
        self, plan: Plan, workspace: Workspace, *, objects: Objects, ladder_level: LadderLevel, limits: CopyLimits
    ) -> None:
        self._plan = plan
        self._workspace = workspace
        self._objects = objects
        self._ladder_level = ladder_level
        self._limits = limits
        self._scope = Globs(plan.scope.paths)

    def check_step(self, step: Step) -> None:
        if isinstance(step.action, Edit | RunCommand | UndoStep):
            self._workspace.committer(self._objects)  # refuses where nothing could be committed
        paths = [relative(path) for path in action_paths(step.action)]
        self.check_scope(paths)
        self.check_hidden(paths)

    def check_level(self) -> None:
        wanted = self._plan.scope.min_ladder_level
        level = None if wanted is None else self._level()
        if wanted is not None and level is not None and level < wanted:
            raise StepBlockedError(
                "LADDER_TOO_LOW",
                f"the plan demands isolation of level {wanted.name}; here it is {level.name}",
                "run gonogo doctor on the executor's host; it says what is missing, or lower scope.min_ladder_level",
            )

    def _level(self) -> LadderLevel:
        """Return the level of this workspace: where nothing can be committed, it can only be read."""
        try:
            self._workspace.committer(self._objects)
        except StagingUnavailableError:
            return LadderLevel.L0
        return self._ladder_level

    def check_hidden(self, paths: Iterable[bytes]) -> None:
        """Refuse a step that names a hidden path, or whose change would reach one beneath what it names."""
        hidden = tuple(path for path in paths if self._workspace.hidden.covers(path))
        if hidden:
            raise StepBlockedError(
                "PATH_OUTSIDE_SCOPE",
                "the executor's policy hides this path",
                "leave it out of the plan, or ask the executor's operator to change `hidden`",
                paths=hidden,
            )

    def check_scope(self, paths: Iterable[bytes]) -> None:
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

    def check_size(self, steps: Iterable[StepReport]) -> None:
        limit = min(
            self._plan.scope.max_bytes or self._limits.change_bytes,
            self._limits.change_bytes,
        )
        _, after = net_states([step.changes for step in steps])
        total = sum(node.size for node in after.values() if node is not None)
        if total > limit:
            raise StepBlockedError(
                "TOO_LARGE",
                f"the change set holds {total} bytes; the limit is {limit}",
                "raise scope.max_bytes or split the plan",
            )
        if len(after) > self._limits.change_count:
            raise StepBlockedError("TOO_LARGE", f"{len(after)} paths change", "split the plan")
