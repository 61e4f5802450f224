"""Opens the workspaces and the sandbox, and builds what runs plans on them."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from executor.adapters.sqlite_driver import installed_sqlite
from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.domain.policy import Limits, Trust
from executor.outside.installed import live_extra
from executor.runner.command_network import NO_NETWORK, CommandNetwork
from executor.runner.execute import Executioner
from executor.runner.kept_steps import LedgerSteps
from executor.runner.limited import LimitedExecutioner, LimitedSimulator
from executor.runner.outside import NOTHING_OUTSIDE, FarSides
from executor.runner.ports import Capabilities, Finding, WorkspaceStanding
from executor.runner.secrets import Secrets
from executor.runner.simulate import Simulator
from executor.runner.trust import TrustInForce
from executor.runner.working_copy import CopyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.cgroups import Cgroups, find_hierarchies
from executor.sandbox.sandbox import Sandbox
from executor.sandbox.self_test import Probe, probe
from executor.settings import Settings
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace, check_placement

CHANGE_COUNT = 200_000
OUTPUT_BYTES = 1024 * 1024
PROCESSES = 512
OPEN_FILES = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """The workspaces, and what runs plans on them."""

    workspaces: Mapping[str, Workspace]
    objects: ObjectStore
    probed: Probe
    sandbox: Sandbox | None
    tools: tuple[Path, ...]

    @classmethod
    def open(cls, settings: Settings, trust: TrustInForce, objects: ObjectStore, closing: ExitStack) -> Self:
        """Open the workspaces and find out, by a real run, what can be isolated; `closing` gets what must be closed."""
        workspaces = _workspaces(settings, trust.limits(), closing)
        _use_limits(workspaces, trust.last().trust)
        trust.follow(partial(_use_limits, workspaces))
        cgroups = _cgroups(settings, closing)
        probed = probe_here(settings, cgroups)
        sandbox = _sandbox(settings, probed, cgroups, closing)
        return cls(workspaces=workspaces, objects=objects, probed=probed, sandbox=sandbox, tools=settings.tools)

    def simulator(
        self,
        trust: TrustInForce,
        kept_steps: LedgerSteps,
        secrets: Secrets,
        far_sides: FarSides = NOTHING_OUTSIDE,
        network: CommandNetwork = NO_NETWORK,
    ) -> LimitedSimulator:
        """Return what dry-runs plans."""

        def within(limits: Limits) -> Simulator:
            return Simulator(
                sandbox=self.sandbox,
                ladder_level=self.probed.level,
                objects=self.objects,
                edit_limits=EditLimits(content_bytes=limits.max_content_bytes),
                copy_limits=_copy_limits(limits),
                tools=self.tools,
                kept_steps=kept_steps,
                redactor=secrets.redactor,
                far_sides=far_sides,
                network=network,
            )

        return LimitedSimulator(limits=trust.limits, within=within)

    def executioner(
        self,
        trust: TrustInForce,
        before_effects: Callable[[], None],
        secrets: Secrets,
        far_sides: FarSides = NOTHING_OUTSIDE,
        network: CommandNetwork = NO_NETWORK,
    ) -> LimitedExecutioner:
        """Return what executes missions; `before_effects` is waited for before anything is changed."""

        def within(limits: Limits) -> Executioner:
            return Executioner(
                sandbox=self.sandbox,
                objects=self.objects,
                copy_limits=_copy_limits(limits),
                tools=self.tools,
                before_effects=before_effects,
                redactor=secrets.redactor,
                far_sides=far_sides,
                network=network,
            )

        return LimitedExecutioner(limits=trust.limits, within=within)

    def capabilities(self) -> Capabilities:
        """Return what the self-test found."""
        found = self.probed.findings
        return Capabilities(
            ladder_level=self.probed.level,
            findings=(
                *(Finding(name=one.name, ok=one.ok, detail=one.detail, remedy=one.remedy) for one in found),
                installed_sqlite(),
                live_extra(),
            ),
            workspaces=tuple(_standing(self.probed, one, self.objects) for one in self.workspaces.values()),
        )


def _workspaces(settings: Settings, limits: Limits, closing: ExitStack) -> dict[str, Workspace]:
    workspaces = {
        workspace_id: Workspace(
            workspace_id=workspace_id,
            root=path,
            staging=settings.staging_of(workspace_id),
            locks=settings.own / "locks",
            hidden=Globs(limits.hidden),
            volatile=Globs(limits.volatile),
            largest_file=limits.max_change_bytes,
        )
        for workspace_id, path in settings.workspaces.items()
    }
    check_placement(workspaces.values(), settings.state)
    for workspace in workspaces.values():
        closing.callback(workspace.close)
        workspace.open()
    return workspaces


def _cgroups(settings: Settings, closing: ExitStack) -> Cgroups | None:
    """Take what the machine delegates to this process; only where commands may run at all."""
    hierarchies = find_hierarchies() if settings.max_ladder_level.runs_commands else ()
    if not hierarchies:
        return None
    cgroups = Cgroups(hierarchies=hierarchies)
    cgroups.clean()
    closing.callback(cgroups.close)
    return cgroups


def probe_here(settings: Settings, cgroups: Cgroups | None = None) -> Probe:
    """Try the sandbox on the filesystem that the first workspace's changes are staged on."""
    staging = settings.staging_of(next(iter(settings.workspaces))).resolve()
    if any(staging.is_relative_to(workspace.resolve()) for workspace in settings.workspaces.values()):
        staging = settings.own  # nothing is made inside a workspace; that it can not be staged in is said later
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    return probe(staging, _scratch(settings), highest=settings.max_ladder_level, cgroups=cgroups)


def _sandbox(settings: Settings, probed: Probe, cgroups: Cgroups | None, closing: ExitStack) -> Sandbox | None:
    """Open the sandbox that the self-test found to work; the state's lock is held, so leftovers are nobody's."""
    if not probed.level.runs_commands:
        return None
    sandbox = Bubblewrap.on_this_machine(scratch=_scratch(settings), storage=probed.storage, cgroups=cgroups)
    sandbox.clean_scratch()
    closing.callback(sandbox.close)
    sandbox.keep_ready()
    return sandbox


def _scratch(settings: Settings) -> Path:
    return settings.own / "scratch"


def _use_limits(workspaces: Mapping[str, Workspace], trust: Trust) -> None:
    """Have the workspaces go by a trust file's limits, and say where it is about others, which may be a slip."""
    unserved = sorted(trust.workspaces - workspaces.keys())
    if unserved:
        log.warning("the trust file names workspaces that are not served here: %s", ", ".join(unserved))
    limits = trust.limits
    for workspace in workspaces.values():
        workspace.use(
            hidden=Globs(limits.hidden), volatile=Globs(limits.volatile), largest_file=limits.max_change_bytes
        )


def _copy_limits(limits: Limits) -> CopyLimits:
    return CopyLimits(
        change_bytes=limits.max_change_bytes,
        change_count=CHANGE_COUNT,
        output_bytes=OUTPUT_BYTES,
        processes=PROCESSES,
        open_files=OPEN_FILES,
    )


def _standing(probed: Probe, workspace: Workspace, objects: ObjectStore) -> WorkspaceStanding:
    """Open the workspace's staging now, so that no call pays for it and its fault is known from the start."""
    level, limitation = probed.level, probed.limitation
    try:
        workspace.committer(objects)
    except StagingUnavailableError as error:
        level, limitation = LadderLevel.L0, _told(error)
    return WorkspaceStanding(workspace_id=workspace.workspace_id, ladder_level=level, limitation=limitation)


def _told(error: ExecutorError) -> str:
    return f"{error.fault.message}; {error.fault.remedy}"
