"""Runs the pair from its images as compose.yaml says, and looks at both sides of the boundary."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.image_test import boundary, composition
from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine, EngineError
from deploy.image_test.mission import RUN, SECOND, WRITE, Person

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_SECONDS = 60.0
NOT_APPROVED, ALREADY_EXECUTED = 3, 8  # the command's documented exit codes
# Addresses of its own: a pair that is deployed on this machine goes on.
ADDRESSES = {"GONOGO_CONTROL": "172.29.66", "GONOGO_REVOCATION": "172.29.67"}
COMPOSE, COMMANDS = ROOT / "deploy/compose.yaml", ROOT / "deploy/compose.commands.yaml"


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
    for name in ("orchestrator", "executor"):
        engine.remove(name)
    start_both(engine, composition.read(variables, COMPOSE, COMMANDS))
    boundary.check_replay(outsider, mission, checks)
    check_commands(person, site, checks)


def start_both(engine: Engine, pair: composition.Composition) -> None:
    """Start the executor, and when it is healthy the orchestrator."""
    for name in ("executor", "orchestrator"):
        engine.start(name, pair.services[name])
        wait_healthy(engine, name, pair.services[name].health)


def fill_volumes(folder: Path) -> None:
    """Run the commands that docs/deploy.md gives, as they stand there.

    Raises:
        EngineError: one of them failed.
    """
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    section = page.partition("## The volumes\n")[2].partition("\n## ")[0]
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"STATE": str(folder / "state"), "DATA": str(folder / "data"), "ANCHOR": str(folder / "anchor")}
    (folder / "site").mkdir()
    (folder / "site/hello.txt").write_text("hello\n", encoding="ascii")
    environment["SITE"] = str(folder / "site")
    done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"the commands of docs/deploy.md failed: {done.stderr.strip()}")


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
