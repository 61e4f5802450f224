"""Runs the pair from its images as compose.yaml says, and looks at both sides of the boundary."""

import fcntl
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.image_test import boundary, composition, control, live, page, renewal
from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine, EngineError
from deploy.image_test.mission import ALREADY_EXECUTED, NOT_APPROVED, RUN, SECOND, WRITE, Person

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_SECONDS = 60.0
# Addresses of its own: a pair that is deployed on this machine goes on.
ADDRESSES = {"GONOGO_CONTROL": "172.29.66", "GONOGO_REVOCATION": "172.29.67"}
COMPOSE, LIVE, COMMANDS = (ROOT / "deploy" / f"compose{name}.yaml" for name in ("", ".live", ".commands"))


def main() -> int:
    """Run all of it."""
    lock = ROOT.joinpath("build/image-test.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # the addresses can be used once
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    checks = Checks()
    folder = Path(tempfile.mkdtemp(prefix="gonogo-image-test-"))
    try:
        with Engine.from_environment() as engine, engine.logs_on_error():
            test_pair(engine, folder, checks)
    except (EngineError, AssertionError) as error:
        checks.say("the test could be run to its end", holds=False, detail=str(error))
    finally:
        shutil.rmtree(folder)
    return checks.conclude()


def test_pair(engine: Engine, folder: Path, checks: Checks) -> None:
    """Fill the volumes, start both, and look."""
    variables = {**ADDRESSES, "GONOGO_DATA": str(folder / "data"), "GONOGO_ANCHOR_DIRECTORY": str(folder / "anchor")}
    variables |= {"GONOGO_PORT": str(free_port())}
    fill_volumes(folder)
    variables["GONOGO_SECCOMP"] = str(ROOT / "deploy/seccomp/container.json")
    pair = composition.read(variables, COMPOSE)
    for name, network in pair.networks.items():
        engine.add_network(name, network)
    boundary.check_images(engine, checks)
    began = time.monotonic()
    start_both(engine, pair)
    checks.figure("both healthy after", f"{time.monotonic() - began:.1f} s")
    boundary.check_confinement(engine, checks)
    person = Person(state=folder / "data/person", address=f"127.0.0.1:{variables['GONOGO_PORT']}")
    site = folder / "data/executor/workspaces/site"
    mission = check_mission(person, site, checks)
    check_revocation(engine, person, folder / "revocation.json", checks)
    outsider = boundary.Outsider(engine=engine, probe=boundary.make_probe(folder), variables=variables)
    boundary.check_outsiders(outsider, site, checks)
    live.check_none(engine, person, checks)
    live.check_doctor(engine, person, checks, level="L1", live=False)
    pair = composition.read(variables, COMPOSE, LIVE)
    engine.add_network("outside", pair.networks["outside"])
    far_side = live.FarSide.start(engine, folder)
    replace_both(engine, pair, far_side.options)
    boundary.check_replay(outsider, mission, checks)
    test_live(engine, person, far_side, folder, checks)
    boundary.check_way_out(outsider, checks)
    pair = composition.read(variables, COMPOSE, LIVE, COMMANDS)
    hold = folder / "hold"
    hold.mkdir(mode=0o755)
    options = (*far_side.options, *control.options(hold))
    replace_both(engine, pair, options)
    test_commands(engine, person, far_side, site, checks)
    renewal.check(engine, person, places_of(folder), checks)
    one = control.Controlled(engine, person, site, hold)
    test_control(one, checks, lambda: start_both(engine, pair, options))


def test_live(engine: Engine, person: Person, far_side: live.FarSide, folder: Path, checks: Checks) -> None:
    """Look at the executor without a shell that may reach outside."""
    live.check_doctor(engine, person, checks, level="L1", live=True)
    live.check_not_listed(person, far_side, checks)
    live.allow(engine, far_side, folder / "data/executor/trust/trust.toml", checks)
    live.check_sent(person, far_side, checks)
    live.check_far(person, far_side, checks)


def test_commands(engine: Engine, person: Person, far_side: live.FarSide, site: Path, checks: Checks) -> None:
    """Look at the executor that can run commands, and reach outside from within its sandbox."""
    check_commands(person, site, checks)
    live.check_doctor(engine, person, checks, level="L3", live=True)
    live.check_sent(person, far_side, checks)
    live.check_far(person, far_side, checks)
    live.check_programs(person, far_side, site, checks)


def test_control(one: control.Controlled, checks: Checks, restart: Callable[[], None]) -> None:
    """Have missions under way paused, stopped and cut off."""
    control.check_pause(one, checks)
    control.check_stop(one, checks)
    control.check_cut_off(one, restart, checks)
    control.check_end(one, checks)


def replace_both(engine: Engine, pair: composition.Composition, options: Sequence[str]) -> None:
    """Put other containers in the place of both, on the same volumes."""
    for name in ("orchestrator", "executor"):
        engine.remove(name)
    start_both(engine, pair, options)


def start_both(engine: Engine, pair: composition.Composition, options: Sequence[str] = ()) -> None:
    """Start the executor, with more options where there are some, and when it is healthy the orchestrator."""
    for name, more in (("executor", options), ("orchestrator", ())):
        engine.start(name, pair.services[name], *more)
        wait_healthy(engine, name, pair.services[name].health)


def places_of(folder: Path) -> dict[str, str]:
    """Return the places that docs/deploy.md calls by name."""
    names = {"STATE": "state", "SITE": "site", "DATA": "data", "ANCHOR": "anchor"}
    return {variable: str(folder / name) for variable, name in names.items()}


def fill_volumes(folder: Path) -> None:
    """Run the commands that docs/deploy.md gives, as they stand there.

    Raises:
        EngineError: one of them failed.
    """
    (folder / "site").mkdir()
    (folder / "site/hello.txt").write_text("hello\n", encoding="ascii")
    page.run_commands("The volumes", places_of(folder))


def check_mission(person: Person, site: Path, checks: Checks) -> str:
    """Take one mission from its proposal to its receipt, and try the same once more; return it."""
    began = time.monotonic()
    mission = person.proposed(WRITE)
    tried = person.dry_run(mission)
    checks.say("a mission's dry run", holds=tried.said.get("status") == "success", detail=tried.remark or "success")
    refused = person.gonogo("execute", mission)
    checks.say("nothing happens without an approval", holds=refused.code == NOT_APPROVED, detail=refused.remark)
    approved = person.approved(mission)
    checks.say("its approval", holds=approved.code == 0, detail=approved.remark or "signed")
    done = person.gonogo("execute", mission)
    holds = done.code == 0 and content(site / "said.txt") == "go\n"
    checks.say("its execution, and the file is there", holds=holds, detail=done.remark or "success")
    checks.say("the anchor is on a volume of its own", holds=(site.parents[3] / "anchor/executor.json").exists())
    checks.figure("mission, five commands", f"{time.monotonic() - began:.1f} s")
    checks.figure("its execution, as the receipt tells", f"{done.said.get('duration_ms', '?')} ms")
    again = person.gonogo("execute", mission)
    checks.say("it is executed once", holds=again.code == ALREADY_EXECUTED, detail=again.remark)
    tried = person.dry_run(person.proposed(RUN))
    level, status = person.level_of(tried), tried.said.get("status")
    checks.figure("ladder level of gonogo-executor", level)
    checks.say(f"commands are refused at {level}", holds=(level, status) == ("L1", "blocked"), detail=str(status))
    return mission


def check_revocation(engine: Engine, person: Person, document: Path, checks: Checks) -> None:
    """Take an approval back on the executor's host, past the orchestrator."""
    mission = person.proposed(SECOND)
    ready = person.dry_run(mission).code == 0 and person.approved(mission).code == 0
    person.gonogo("revoke", mission, "--message", "not yet", "--key", person.key(), "--out", str(document))
    taken = engine.execute("executor", boundary.PYTHON, "-m", "executor", "revoke", "-", text=content(document))
    refused = person.gonogo("execute", mission)
    holds = ready and taken.returncode == 0 and refused.code != 0 and "APPROVAL_REVOKED" in refused.remark
    checks.say(
        "an approval is taken back from inside of the container", holds=holds, detail=taken.stderr + refused.remark
    )


def check_commands(person: Person, site: Path, checks: Checks) -> None:
    """Look at the executor that can run commands, on the volumes of the one before."""
    mission = person.proposed(RUN)
    tried = person.dry_run(mission)
    level, status = person.level_of(tried), tried.said.get("status")
    checks.figure("ladder level of gonogo-executor-commands", level)
    checks.say(f"a command is tried at {level}", holds=(level, status) == ("L3", "success"), detail=tried.remark)
    approved = person.approved(mission)
    done = person.gonogo("execute", mission)
    holds = (approved.code, done.code, content(site / "kernel.txt")) == (0, 0, "Linux\n")
    checks.say("the command's changes are committed", holds=holds, detail=approved.remark + done.remark)


def content(file: Path) -> str:
    """Return a file's text; nothing where there is none."""
    return file.read_text(encoding="utf-8") if file.exists() else ""


def wait_healthy(engine: Engine, name: str, health: tuple[str, ...]) -> None:
    """Ask as the engine would, until the answer is yes.

    Raises:
        EngineError: it never is.
    """
    deadline = time.monotonic() + HEALTHY_SECONDS
    while engine.execute(name, *health).returncode:
        if time.monotonic() > deadline:
            raise EngineError(f"{name} does not get healthy")
        time.sleep(0.2)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
