"""What a dry run does with the steps that reach outside of the workspace: reads pages, and has live steps declared."""

from collections.abc import Callable
from dataclasses import dataclass

from executor.domain.outside_risk import changes_something
from executor.domain.plan import Compensation, FetchUrl, Live, Outside, Plan, SearchBodies, Step
from executor.domain.plan_paths import target_of
from executor.domain.redaction import Redactor
from executor.domain.report import CompensationReport, Evidence
from executor.runner.outside import FarSides, Setting
from executor.workspace.objects import Batch
from executor.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a dry run says of a step besides its changes."""

    evidence: Evidence | None = None
    not_simulated: bool = False
    irreversible: bool = False
    compensation: CompensationReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaring:
    """The outside steps of one dry run."""

    plan: Plan
    workspace: Workspace
    far_sides: FarSides
    batch: Batch
    redactor: Redactor
    on_output: Callable[[str], Callable[[str, bytes], None]]
    """Returns what takes a step's output."""

    def look(self, step: Step, action: Outside | SearchBodies) -> Found:
        """Read a page, search the kept ones, or have a live step declared; nothing outside changes.

        Raises:
            StepBlockedError: scope, policy or trust file does not allow it.
            StepFailedError: the far side did not answer as it should.
        """
        setting = self._setting(step)
        match action:
            case SearchBodies():
                return Found(evidence=self.far_sides.search(action, setting))
            case FetchUrl():
                page = self.far_sides.fetch(action, setting, self.batch)
                return Found(evidence=page, not_simulated=not page.fetched)
            case _:
                return self._declared(step, action, setting)

    def _declared(self, step: Step, action: Live, setting: Setting) -> Found:
        declared = self.far_sides.declare(action, setting)
        return Found(
            evidence=declared.evidence,
            not_simulated=bool(declared.not_simulated),
            irreversible=step.compensation is None and changes_something(declared.evidence),
            compensation=None if step.compensation is None else self._compensation(step.compensation, setting),
        )

    def _compensation(self, compensation: Compensation, setting: Setting) -> CompensationReport:
        declared = self.far_sides.declare(compensation.action, setting)
        return CompensationReport(
            kind=compensation.kind,
            target=target_of(compensation.action),
            description=compensation.description,
            not_simulated=declared.not_simulated,
        )

    def _setting(self, step: Step) -> Setting:
        return Setting(
            plan=self.plan,
            step_id=step.step_id,
            workspace=self.workspace,
            redactor=self.redactor,
            on_output=self.on_output(step.step_id),
        )
