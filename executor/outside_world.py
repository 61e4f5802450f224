"""Builds what speaks with far sides: a table from kinds of live steps to what handles them."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.wire import WireDocuments
from executor.domain.plan import CallTool, HttpRequest, Live, RunLive, RunSql
from executor.domain.policy import Trust
from executor.outside.bodies import Bodies
from executor.outside.command_gates import CommandGates, Doors
from executor.outside.databases import Statements
from executor.outside.exchange import Exchange
from executor.outside.far_sides import LiveHandler, OutsideWorld
from executor.outside.fetching import Fetcher
from executor.outside.kept_pages import kept_pages
from executor.outside.processes import ProcessStore
from executor.outside.program_launch import Bwrap
from executor.outside.programs import Programs
from executor.outside.requests import Requests
from executor.outside.tools import ToolCalls
from executor.outside.worker import Confinement
from executor.runner.secrets import Secrets
from executor.runner.trust import TrustInForce
from executor.sandbox.bubblewrap import find_launchers
from executor.sandbox.seccomp import shipped_filter
from executor.sandbox.self_test import Probe
from executor.settings import Settings
from executor.workspace.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What reaches anything outside of the workspaces."""

    far_sides: OutsideWorld
    bodies: Bodies
    processes: ProcessStore
    dry_run_network: CommandGates
    network: CommandGates

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        trust: TrustInForce,
        secrets: Secrets,
        ledger: SqliteLedger,
        objects: ObjectStore,
        probed: Probe,
        closing: ExitStack,
    ) -> Self:
        """Open the index of kept pages and build the handlers; `closing` gets what must be closed.

        A step that has begun goes on under the last good trust file, as everything does that has begun.
        """
        confinement = _confinement(settings, probed)
        exchange = Exchange(confinement=confinement)
        bodies = Bodies(settings.own / "bodies.db", partial(kept_pages, ledger, WireDocuments(), objects))
        closing.callback(bodies.close)
        last: Callable[[], Trust] = lambda: trust.last().trust  # noqa: E731 - what is last is another one each time
        doors = Doors(trust=trust)
        processes = ProcessStore(settings.own / "processes", doors)
        closing.callback(processes.close)
        processes.start()
        handlers: Mapping[type[Live], LiveHandler[Any]] = {
            HttpRequest: Requests(trust=last, exchange=exchange, secret=secrets.for_step),
            RunLive: _programs(settings, probed, last, secrets, processes),
            CallTool: ToolCalls(trust=last, secrets=secrets, confinement=confinement, fixed=_workspaces(settings)),
            RunSql: Statements(
                trust=last, secrets=secrets, confinement=confinement, forbidden=_not_for_databases(settings)
            ),
        }
        fetching = Fetcher(trust=last, exchange=exchange, bodies=bodies)
        return cls(
            far_sides=OutsideWorld(fetching=fetching, searching=bodies, handlers=handlers),
            bodies=bodies,
            processes=processes,
            dry_run_network=CommandGates(doors=doors, dry_run=True),
            network=CommandGates(doors=doors, dry_run=False),
        )


def _programs(
    settings: Settings, probed: Probe, trust: Callable[[], Trust], secrets: Secrets, processes: ProcessStore
) -> Programs:
    """Return what runs live programs; all of them, staying or not, have the same doors to the network."""
    return Programs(
        trust=trust,
        secret=secrets.for_step,
        bwrap=_bwrap(settings, probed),
        doors=processes.doors,
        processes=processes,
    )


def _workspaces(settings: Settings) -> tuple[str, ...]:
    """Where neither a server of tools nor a program may write: what missions change."""
    return tuple(str(place.resolve()) for place in settings.workspaces.values())


def _confinement(settings: Settings, probed: Probe) -> Confinement | None:
    """Confine children where commands are confined; they never see the executor's state."""
    if not probed.level.runs_commands:
        return None
    return Confinement(launcher=find_launchers().bwrap, covered=_covered(settings))


def _covered(settings: Settings) -> tuple[str, ...]:
    """What nobody sees who works for a step: state, anchor and staged changes."""
    places = [settings.state, *(settings.staging_of(workspace_id) for workspace_id in settings.workspaces)]
    places += [settings.anchor] if settings.anchor is not None else []
    return tuple(dict.fromkeys(str(place.resolve()) for place in places))


def _bwrap(settings: Settings, probed: Probe) -> Bwrap | None:
    """Confine live programs where commands are confined."""
    if not probed.level.runs_commands:
        return None
    return Bwrap(
        launcher=find_launchers().bwrap,
        seccomp=shipped_filter(),
        covered=_covered(settings),
        fixed=_workspaces(settings),
        tools=settings.tools,
    )


def _not_for_databases(settings: Settings) -> tuple[Path, ...]:
    """Where no step's database may lie: what missions change, and what is the executor's own."""
    stagings = (settings.staging_of(workspace_id) for workspace_id in settings.workspaces)
    anchors = () if settings.anchor is None else (settings.anchor.parent,)
    return (*settings.workspaces.values(), *stagings, settings.state, *anchors)
