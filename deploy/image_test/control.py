"""Missions under control in containers: paused, stopped inside a command, cut off with their container."""

import time
from collections.abc import Callable
from pathlib import Path

from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine
from deploy.image_test.mission import ALREADY_EXECUTED, SLOW, Person

PYTHON = "/usr/bin/python3"
HEALTH = (PYTHON, "-m", "gonogo.health_check")
SECONDS = 20.0
# Whether a held command runs, as the container's own kernel tells.
HELD = """
import pathlib
def words(place):
    try:
        return place.read_bytes()
    except OSError:
        return b""
print(sum(words(one).startswith(b"sh\\0-c\\0while test") for one in pathlib.Path("/proc").glob("[0-9]*/cmdline")))
"""


def options(hold: Path) -> tuple[str, ...]:
    """Return what has commands see the folder by which they are held."""
    return ("--mount", f"type=bind,source={hold},target=/hold,readonly", "--env", "GONOGO_TOOLS=/hold")


class Controlled:
    """Missions with a test between two files, which in the execution ends when it is let go."""

    def __init__(self, engine: Engine, person: Person, site: Path, hold: Path) -> None:
        self.engine = engine
        self.person = person
        self.site = site
        self.hold = hold

    def begun(self, name: str) -> str:
        """Have a mission executed by nobody who stays, and wait until its test runs."""
        mission = self.person.ready(SLOW.format(name=name))
        (self.hold / name).touch()
        self.person.gonogo("execute", mission, "--detach")
        self.wait(lambda: self.held() > 0)
        return mission

    def let_go(self, name: str) -> None:
        """Have a mission's test end."""
        (self.hold / name).unlink()

    def held(self) -> int:
        """Return how many of the held commands there are."""
        return int(self.engine.execute("executor", PYTHON, "-c", HELD).stdout or 0)

    def files(self, name: str) -> str:
        """Return which of a mission's files are there."""
        return "".join(part for part in "12" if (self.site / f"{name}-{part}.txt").exists())

    def healthy(self) -> bool:
        """Ask as the engine would."""
        return self.engine.execute("executor", *HEALTH).returncode == 0

    @staticmethod
    def wait(holds: Callable[[], bool]) -> bool:
        """Wait until something holds; return whether it came to that."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def check_pause(one: Controlled, checks: Checks) -> None:
    """Pause at the next step, with nothing running meanwhile, and go on."""
    mission = one.begun("paused")
    asked = one.person.gonogo("pause", mission, "--message", "let me look")
    one.let_go("paused")
    standing = one.person.until(mission, "paused")
    holds = (standing, one.files("paused"), one.held()) == (("paused", "requested"), "1", 0)
    checks.say("a mission pauses before its next step", holds=holds, detail=f"{standing} {asked.remark}")
    resumed = one.person.gonogo("resume", mission)
    standing = one.person.until(mission, "completed")
    holds = (standing[0], one.files("paused")) == ("completed", "12")
    checks.say("it goes on and ends", holds=holds, detail=f"{standing} {resumed.remark}")


def check_stop(one: Controlled, checks: Checks) -> None:
    """Stop inside a command: what runs is killed, what is committed stays."""
    mission = one.begun("stopped")
    began = time.monotonic()
    one.person.gonogo("stop", mission, "--message", "enough")
    gone = one.wait(lambda: one.held() == 0)
    took = time.monotonic() - began
    standing = one.person.until(mission, "cancelled")
    holds = (standing[0], one.files("stopped"), gone) == ("cancelled", "1", True)
    checks.say("a stop kills the running command", holds=holds, detail=f"{standing}, after {took:.1f} s")
    checks.figure("stop, until the command is gone", f"{took:.1f} s, with two processes of the engine")


def check_cut_off(one: Controlled, restart: Callable[[], None], checks: Checks) -> None:
    """Kill the container in the middle of an execution; the next one on its volumes knows where it was."""
    mission = one.begun("cut")
    one.engine.signal("executor", "KILL")
    one.wait(lambda: not one.engine.runs("executor"))
    checks.say("a killed container answers no health check", holds=not one.healthy())
    one.let_go("cut")
    one.engine.forget("executor")
    one.engine.remove("orchestrator")
    restart()
    standing = one.person.until(mission, "paused")
    holds = (standing, one.files("cut")) == (("paused", "interrupted"), "1")
    checks.say("a killed container's mission waits for a person", holds=holds, detail=str(standing))
    resumed = one.person.gonogo("resume", mission)
    standing = one.person.until(mission, "completed")
    holds = (standing, one.files("cut")) == (("completed", "success"), "12")
    checks.say("it goes on where it was", holds=holds, detail=f"{standing} {resumed.remark}")
    again = one.person.gonogo("execute", mission)
    checks.say("and is executed once", holds=again.code == ALREADY_EXECUTED, detail=again.remark)


def check_end(one: Controlled, checks: Checks) -> None:
    """Ask the container to end in the middle of an execution: it is not healthy any more, and ends its work first."""
    mission = one.begun("ended")
    healthy = one.healthy()
    one.engine.signal("executor", "TERM")
    told = one.wait(lambda: not one.healthy())
    one.let_go("ended")
    checks.say("one that is asked to end is not healthy while it ends", holds=healthy and told, detail=mission)
    gone = one.wait(lambda: not one.engine.runs("executor"))
    holds = gone and one.files("ended") == "12"
    checks.say("it ends its work first", holds=holds, detail=one.files("ended"))
