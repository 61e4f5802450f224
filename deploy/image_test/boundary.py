"""The boundary itself: what an image holds, what a container may do, and who reaches whom."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine, EngineError

PYTHON = "/usr/bin/python3"
OUTSIDER = Path(__file__).with_name("outsider.py")
PROGRAMS = re.compile(
    r"/(ba|da|a|z|k|c|tc|fi)?sh$|/(busybox|toybox|perl[\d.]*|pip[\d.]*|apt\S*|dpkg\S*|su|sudo|mount|curl|wget|nc|ssh)$"
)
# Packages that must not be beside the service's own; a module of that name inside of another package is no harm.
FOREIGN = {
    "executor": ("orchestrator", "client", "tests", "pip"),
    "orchestrator": ("executor", "client", "tests", "pip"),
}
CODE = "opt/gonogo"

CONFINED = """
import json, os, pathlib, socket
def tried(work):
    try:
        work()
    except OSError as error:
        return type(error).__name__ + " " + os.strerror(error.errno or 0)
    return "done"
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
routes = [line.split() for line in open("/proc/net/route").read().splitlines()[1:]]
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "capabilities": status["CapEff"].strip("0") + status["CapBnd"].strip("0"),
    "no_new_privileges": status["NoNewPrivs"],
    "root": tried(lambda: open("/written", "w")),
    "code": tried(lambda: open("/opt/gonogo/written", "w")),
    "identity": tried(lambda: open("/var/lib/gonogo/written", "w")),
    "shell": tried(lambda: os.execv("/bin/sh", ["sh", "-c", "true"])),
    "ways_out": [route[0] for route in routes if route[1] == "00000000"],
    "outside": tried(lambda: socket.create_connection(("192.0.2.1", 443), timeout=3)),
    "held": sorted(str(path.relative_to("/var/lib/gonogo")) for path in pathlib.Path("/var/lib/gonogo").rglob("*")),
}))
"""
READ_ONLY = "OSError Read-only file system"
HANDSHAKE = "UNAVAILABLE"
REFUSALS = {
    "plaintext": HANDSHAKE,
    "no certificate": HANDSHAKE,
    "orchestrator's name, another authority": HANDSHAKE,
    "a client's certificate": "PERMISSION_DENIED PEER_NOT_ALLOWED",
    "orchestrator's certificate, no approval": "FAILED_PRECONDITION NOT_APPROVED",
    "orchestrator's certificate, own approval": "FAILED_PRECONDITION APPROVER_UNKNOWN",
}

REVOCATIONS = {
    "no certificate": HANDSHAKE,
    "orchestrator's certificate": "PERMISSION_DENIED PEER_NOT_ALLOWED",
    "a revocation that nobody signed": "FAILED_PRECONDITION SIGNATURE_INVALID",
    "another service": "UNIMPLEMENTED",
}


def check_images(engine: Engine, checks: Checks) -> None:
    """Look through all files of both images."""
    for part, foreign in FOREIGN.items():
        files = engine.files_of(f"gonogo-{part}")
        programs = [file for file in files if PROGRAMS.search(f"/{file}")]
        checks.say(f"{part}'s image has no shell and no installer", holds=not programs, detail=", ".join(programs))
        there = {file.removeprefix(f"{CODE}/").partition("/")[0] for file in files if file.startswith(f"{CODE}/")}
        checks.say(
            f"{part}'s image holds its package and the contract, and none of {', '.join(foreign)}",
            holds={part, "gonogo"} <= there and not there & set(foreign),
            detail=f"{len(there)} packages",
        )


def check_confinement(engine: Engine, checks: Checks) -> None:
    """Look around from inside of both containers."""
    for part in FOREIGN:
        done = engine.execute(part, PYTHON, "-c", CONFINED)
        seen = json.loads(done.stdout or "{}")
        who = {name: seen.get(name) for name in ("uid", "gid", "capabilities", "no_new_privileges")}
        ordinary = {"uid": 65532, "gid": 65532, "capabilities": "", "no_new_privileges": "1"}
        checks.say(f"{part} is an ordinary user without capabilities", holds=who == ordinary, detail=str(who))
        for place in ("root", "code", "identity"):
            checks.say(
                f"{part} can not write its {place}", holds=seen.get(place) == READ_ONLY, detail=str(seen.get(place))
            )
        checks.say(
            f"{part} finds no shell",
            holds=str(seen.get("shell")).startswith("FileNotFound"),
            detail=str(seen.get("shell")),
        )
        check_held(part, seen.get("held", []), checks)
        if part == "executor":
            closed = seen.get("ways_out") == [] and seen.get("outside") == "OSError Network is unreachable"
            checks.say("executor has no route out", holds=closed, detail=str(seen.get("outside")))


def check_held(part: str, held: list[str], checks: Checks) -> None:
    """Each holds what is its own: no private key of another, and no authority's."""
    private = {path for path in held if path.startswith(("keys/", "tls/")) and not path.endswith((".pub", ".pem"))}
    own = {f"keys/{part}", f"tls/{part}.key"}
    foreign = (
        [path for path in held if path == "trust.toml" or path.endswith("ledger.db")] if part != "executor" else []
    )
    checks.say(
        f"{part} holds no key but its own", holds=private == own and not foreign, detail=", ".join(sorted(private))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """Third containers, from the executor's own image, on one network or another, with what an attacker may hold."""

    engine: Engine
    probe: Path
    variables: Mapping[str, str]

    @property
    def executor(self) -> str:
        """Where the executor listens for orchestrators."""
        return f"{self.variables['GONOGO_CONTROL']}.2:50051"

    @property
    def revocations(self) -> str:
        """Where the executor listens for approvers."""
        return f"{self.variables['GONOGO_REVOCATION']}.2:50053"

    def tries(self, network: str, *arguments: str) -> dict[str, str]:
        """Run the program on a network; return what it was answered.

        Raises:
            EngineError: it could not even try.
        """
        prefix = self.variables.get(f"GONOGO_{network.upper()}")
        options = ["--read-only", "--cap-drop", "ALL", "--entrypoint", PYTHON]
        options += ["--mount", f"type=bind,source={self.probe},target=/probe,readonly"]
        program = ["/probe/outsider.py", *arguments]
        address = f"{prefix}.4" if prefix else ""
        done = self.engine.once("gonogo-executor", *program, network=network, address=address, options=options)
        if done.returncode:
            raise EngineError(f"an outsider on {network} could not try: {done.stderr}")
        return {str(key): str(value) for key, value in json.loads(done.stdout).items()}


def check_outsiders(outsider: Outsider, site: Path, checks: Checks) -> None:
    """Have third containers try, from each network."""
    for tried, answer in outsider.tries("control", "calls", outsider.executor, "/probe/tls").items():
        checks.say(f"forged call refused: {tried}", holds=answer.startswith(f"{REFUSALS[tried]}:"), detail=answer)
    checks.say("the workspace is untouched", holds=not (site / "forged.txt").exists())
    knocked = outsider.tries("front", "knocks", outsider.executor, outsider.revocations)
    for address, answer in knocked.items():
        checks.say(f"not reached from the people's network: {address}", holds=answer != "open", detail=answer)
    beside = f"{outsider.revocations.partition(':')[0]}:50051"
    knocked = outsider.tries("revocation", "knocks", outsider.executor, beside, outsider.revocations)
    for address, answer in knocked.items():
        wanted = address == outsider.revocations
        what = "reached" if wanted else "not reached"
        checks.say(f"{what} from the approvers' network: {address}", holds=(answer == "open") == wanted, detail=answer)
    for tried, answer in outsider.tries("revocation", "revocation", outsider.revocations, "/probe/tls").items():
        checks.say(f"forged revocation refused: {tried}", holds=answer.startswith(REVOCATIONS[tried]), detail=answer)


def check_way_out(outsider: Outsider, checks: Checks) -> None:
    """What is on the executor's way out can not come in by it."""
    knocked = outsider.tries("outside", "knocks", outsider.executor, outsider.revocations)
    for address, answer in knocked.items():
        checks.say(f"not reached from the network that leads out: {address}", holds=answer != "open", detail=answer)


def check_replay(outsider: Outsider, mission: str, checks: Checks) -> None:
    """Have an executed mission asked for again, past the orchestrator that would not ask."""
    answer = outsider.tries("control", "replay", outsider.executor, "/probe/tls", mission)["replay"]
    holds = answer.startswith("ALREADY_EXISTS ALREADY_EXECUTED:")
    checks.say("another container on the same ledger executes nothing twice", holds=holds, detail=answer)


def make_probe(folder: Path) -> Path:
    """Lay out what an attacker has: the program, a client's identity, and the orchestrator's, stolen."""
    probe = folder / "probe"
    (probe / "tls").mkdir(parents=True)
    shutil.copy(OUTSIDER, probe)
    for name in ("ca.pem", "client.pem", "client.key", "orchestrator.pem", "orchestrator.key"):
        shutil.copy(folder / "state/tls" / name, probe / "tls")
        (probe / "tls" / name).chmod(0o644)
    for place in (folder, probe, probe / "tls"):
        place.chmod(0o755)
    return probe
