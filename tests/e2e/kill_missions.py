"""Missions of several kinds for a suite that kills services: what each asks for, and what it must have left at its end.

Every mission has a folder of its own in its workspace, and every step leaves something there by which it is seen
whether the step was made not at all, once, twice or in part.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gonogo.v1 import evidence_pb2
from tests.e2e.counting_server import KEY, CountingServer

MANY: Final = 20
"""Files that one command leaves: a step of which a part was committed is seen by them."""
PAUSE: Final = {"deadline_seconds": 600, "step_approval_seconds": 600}


@dataclass(kw_only=True)
class Killed:
    """One mission, and what is known of it."""

    kind: str
    workspace: Path
    name: str
    plan: str
    live: bool = False
    mission_id: str = ""
    request_id: str = ""
    sequences: list[int] = field(default_factory=list)
    """Of all events that its watcher saw, over all connections."""
    unknown: int = 0
    """How often a person was asked whether an effect had happened."""

    @property
    def folder(self) -> Path:
        return self.workspace / self.name


Make = Callable[[str, Path, CountingServer], Killed]


def _plan(name: str, workspace: Path, policy: str, steps: list[dict[str, Any]], **scope: object) -> str:
    said = {"objective": "Survive", "workspace": workspace.name, "failure_policy": policy, "steps": steps}
    return json.dumps({**said, "pause": PAUSE, "scope": {"paths": [f"{name}/**"], **scope}})


def _append(name: str, number: int) -> dict[str, Any]:
    return {"append_text": {"path": f"{name}/log.txt", "content": f"{number}\n"}}


def _many(name: str, number: int) -> dict[str, Any]:
    script = f"for one in $(seq {MANY}); do echo {number} > {name}/many-{number}-$one; done"
    return {"run_command": {"argv": ["sh", "-ec", script]}}


def _wait(seconds: float) -> dict[str, Any]:
    return {"run_tests": {"argv": ["sleep", str(seconds)]}}


def _post(server: CountingServer, milliseconds: int, *, back: bool) -> dict[str, Any]:
    asked = {"method": "POST", "url": server.address(milliseconds), "content": "x", "idempotency_header": KEY}
    step: dict[str, Any] = {"http_request": asked}
    if back:
        step["compensation"] = {"http_request": {**asked, "url": server.address(0)}}
    return step


def edits(policy: str) -> Make:
    """Files are appended to and made, with a pause for breath in between."""

    def make(name: str, workspace: Path, _server: CountingServer) -> Killed:
        steps = [_append(name, 1), _many(name, 2), _wait(0.03), _append(name, 4), _many(name, 5), _append(name, 6)]
        return Killed(
            kind=f"edits, {policy}", workspace=workspace, name=name, plan=_plan(name, workspace, policy, steps)
        )

    return make


def plain(policy: str) -> Make:
    """Many typed edits, without a program: what is before them in a queue does not concern them."""

    def make(name: str, workspace: Path, _server: CountingServer) -> Killed:
        steps = [_append(name, number) for number in range(1, 41)]
        plan = _plan(name, workspace, policy, steps)
        return Killed(kind=f"typed edits, {policy}", workspace=workspace, name=name, plan=plan)

    return make


def tests(name: str, workspace: Path, _server: CountingServer) -> Killed:
    """Two test runs that take a while, and edits around them."""
    steps = [_append(name, 1), _wait(0.15), _append(name, 3), _wait(0.15), _many(name, 5)]
    return Killed(kind="test runs", workspace=workspace, name=name, plan=_plan(name, workspace, "pause", steps))


def approvals(name: str, workspace: Path, _server: CountingServer) -> Killed:
    """A step in the middle waits for a signature of its own."""
    steps = [_append(name, 1), {**_many(name, 2), "needs_approval": True}, _append(name, 3)]
    return Killed(kind="a step approval", workspace=workspace, name=name, plan=_plan(name, workspace, "pause", steps))


def requests(milliseconds: int, *, back: bool) -> Make:
    """A request that is answered late, or not in time."""

    def make(name: str, workspace: Path, server: CountingServer) -> Killed:
        scope: dict[str, Any] = {"network": "listed_domains", "domains": ["127.0.0.1"], "max_duration_seconds": 1}
        steps = [_append(name, 1), _post(server, milliseconds, back=back), _append(name, 3)]
        plan = _plan(name, workspace, "pause", steps, **scope)
        return Killed(kind=f"a request, {milliseconds} ms", workspace=workspace, name=name, plan=plan, live=True)

    return make


KINDS: Final[tuple[Make, ...]] = (
    edits("pause"),
    requests(100, back=True),
    edits("roll_back"),
    tests,
    approvals,
    edits("continue"),
    requests(1500, back=False),
)
QUEUED: Final[tuple[Make, ...]] = (plain("roll_back"), requests(300, back=False), plain("pause"), plain("stop"))


def prepare(mission: Killed) -> None:
    """Make what its steps need."""
    mission.folder.mkdir()
    (mission.folder / "log.txt").write_text("begun\n")


def faults(mission: Killed, receipt: evidence_pb2.Receipt, server: CountingServer) -> dict[str, list[str]]:
    """Compare what a mission has left with its receipt: what is lost, doubled or mixed, in words."""
    found: dict[str, list[str]] = {"lost": [], "doubled": [], "mixed": []}
    stands = {step.step_id: step.success and not step.rollback_succeeded for step in receipt.steps}
    lines = (mission.folder / "log.txt").read_text().splitlines()
    for number, step in enumerate(json.loads(mission.plan)["steps"], 1):
        done = stands.get(f"s{number}", False)
        if "append_text" in step:
            count = lines.count(step["append_text"]["content"].strip())
            _counted(found, f"{mission.name} s{number}", count, expected=int(done))
        elif "run_command" in step:
            made = len(list(mission.folder.glob(f"many-{number}-*")))
            if made not in {0, MANY}:
                found["mixed"].append(f"{mission.name} s{number}: {made} of {MANY} files")
            _counted(found, f"{mission.name} s{number}", int(made > 0), expected=int(done))
    for one in receipt.steps:
        if one.HasField("effect"):
            _effect(found, one, server)
    return found


def _effect(found: dict[str, list[str]], step: evidence_pb2.StepReceipt, server: CountingServer) -> None:
    key = step.effect.idempotency_key
    happened = step.effect.state in {evidence_pb2.EFFECT_STATE_DONE, evidence_pb2.EFFECT_STATE_COMPENSATED}
    if step.effect.state != evidence_pb2.EFFECT_STATE_UNKNOWN:
        _counted(found, key, server.happened[key], expected=int(happened))
    elif server.happened[key] > 1:
        found["doubled"].append(key)


def _counted(found: dict[str, list[str]], what: str, count: int, *, expected: int) -> None:
    if count < expected:
        found["lost"].append(f"{what}: it is not there, and the receipt says that it is")
    elif count > expected:
        found["doubled"].append(f"{what}: it is there {count} times, and the receipt says {expected}")
