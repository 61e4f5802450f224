"""Live programs on a real machine: a workspace, a trust file that lets them run, and where they are kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from executor.domain.cancel import Cancel
from executor.domain.plan import LiveAccess, NetworkAccess, ReadinessCheck, RunLive
from executor.outside.command_gates import Doors
from executor.outside.far_sides import OutsideWorld
from executor.outside.processes import ProcessStore
from executor.outside.program_launch import Bwrap
from executor.outside.programs import Programs
from executor.runner.live_processes import LiveProcess
from executor.runner.outside import Performed, Setting
from executor.sandbox.bubblewrap import find_launchers
from executor.sandbox.seccomp import shipped_filter
from executor.workspace.globs import Globs
from tests.unit.executor.outside_house import OutsideHouse, outside_house

TABLES = """
[network]
private_addresses = ["127.0.0.1/32"]
[workspaces.site]
live_access = ["network", "host"]
"""


def lookup(_host: str, _port: int) -> Sequence[str]:
    return ("127.0.0.1",)


@dataclass(kw_only=True)
class ProgramHouse:
    """Where one test's programs run."""

    house: OutsideHouse
    programs: Programs
    processes: ProcessStore
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    steps: int = 0

    @property
    def site(self) -> Path:
        return self.house.folder / "site"

    def setting(self, action: RunLive, *, seconds: int = 20, cancel: Cancel | None = None) -> Setting:
        found = self.house.setting(action, seconds=seconds, execution_id="x-1")
        scope = replace(found.plan.scope, domains=("listed.test",), network=NetworkAccess.LISTED_DOMAINS)
        return replace(
            found,
            plan=replace(found.plan, scope=scope),
            on_output=lambda stream, data: self.heard.append((stream, data)),
            cancel=cancel or self.house.cancel,
        )

    def perform(self, action: RunLive, *, seconds: int = 20, cancel: Cancel | None = None, key: str = "") -> Performed:
        """Declare and perform, as an execution does."""
        setting = self.setting(action, seconds=seconds, cancel=cancel)
        world = OutsideWorld(
            fetching=None,  # type: ignore[arg-type]  # no test here fetches
            searching=None,  # type: ignore[arg-type]  # or searches
            handlers={RunLive: self.programs},
        )
        self.steps += 1
        return world.perform(action, world.declare(action, setting), setting, key or f"x-1-s{self.steps}")

    def one(self) -> LiveProcess:
        """The only program on record."""
        (found,) = self.processes.listed()
        return found

    def output(self) -> str:
        return b"".join(data for _, data in self.heard).decode()


@contextmanager
def program_house(
    folder: Path, *, confined: bool = True, tables: str = TABLES, ports: frozenset[int] = frozenset((80, 443))
) -> Iterator[ProgramHouse]:
    """Open a house; every program that still runs at the end is ended, by its own record."""
    with outside_house(folder, tables, domains='domains = ["listed.test"]\n') as house:
        (folder / "state" / "key").write_text("the executor's key")
        (folder / "site" / "file").write_text("base\n")
        (folder / "another").mkdir(exist_ok=True)
        (folder / "site" / ".env").write_text("HIDDEN=1\n")
        house.workspace.use(hidden=Globs((".env",)), volatile=Globs(()), largest_file=1 << 30)
        folder.chmod(0o755)
        (folder / "state").chmod(0o700)
        bwrap = Bwrap(
            launcher=find_launchers().bwrap,
            seccomp=shipped_filter(),
            covered=(str(folder / "state"), str(folder / "staging")),
            fixed=(str(folder / "site"), str(folder / "another")),
        )
        doors = Doors(trust=house.trust, ports=ports, lookup=lookup)
        processes = ProcessStore(folder / "state" / "processes", doors)
        processes.start()
        programs = Programs(
            trust=lambda: house.trust.last().trust,
            secret=house.secrets.for_step,
            bwrap=bwrap if confined else None,
            doors=doors,
            processes=processes,
        )
        try:
            yield ProgramHouse(house=house, programs=programs, processes=processes)
        finally:
            for one in processes.listed():
                if one.running:
                    processes.stop(f"end-{one.process_id}", one.process_id, "the test")
            processes.close()


def a_program(
    *argv: str,
    access: LiveAccess = LiveAccess.HOST,
    env: dict[str, str] | None = None,
    codes: tuple[int, ...] = (),
    keep: ReadinessCheck | None = None,
) -> RunLive:
    return RunLive(argv=argv, cwd="", env=env or {}, success_codes=codes, access=access, keep_running=keep)


def shell(script: str, **fields: object) -> RunLive:
    return a_program("/bin/sh", "-c", script, **fields)  # type: ignore[arg-type]  # tests name real fields


def ready_when(*, port: int = 0, output: str = "", seconds: int = 5) -> ReadinessCheck:
    return ReadinessCheck(port=port, output=output, seconds=seconds)
