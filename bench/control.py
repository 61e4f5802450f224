"""How soon a mission under way obeys, and how soon an executor that died with many of them under way is back.

Each of the hundred executions has committed a step and waits for the approval of the next one, in a workspace of its
own, when the services are killed: what the next start finds is a hundred journals that nobody has brought to an end.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.measure import note, tell
from bench.services import running_services
from client.api import GonogoClient
from client.signing import Signer
from client.state import StateDirectory
from gonogo.signatures import load_signing_key
from gonogo.v1 import events_pb2, orchestrator_pb2, plan_pb2

ROUNDS = 7
STEPS = 400
SLEEP_SECONDS = 2
JOURNALS = 100
AT_ONCE = 8

Part = orchestrator_pb2.ExecuteMissionResponse


class People:
    """Propose, approve and have executed, all in one."""

    def __init__(self, state: Path) -> None:
        key = load_signing_key((state / "keys" / "approver").read_bytes())
        self.client = GonogoClient.connect(StateDirectory(root=state))
        self._signer = Signer(key=key, person="owner")

    async def executed(
        self, workspace: str, steps: list[plan_pb2.Step], seen: Callable[[str, Part], Awaitable[bool]]
    ) -> None:
        """Have a plan executed; `seen` gets each part of the answer, and tells whether that is enough."""
        draft = plan_pb2.PlanDraft(objective="Be controlled", workspace=workspace, steps=steps)
        proposed = await self.client.propose(draft, dry_run=True)
        approval = self.client.approval(self.client.verified(proposed), self._signer)
        mission_id = proposed.mission.mission_id
        async for part in self.client.execute(mission_id, approvals=[approval]):
            if await seen(mission_id, part):
                return


def main() -> None:
    """Measure all three."""
    asyncio.run(_obeyed())
    _restarted()


async def _obeyed() -> None:
    with running_services() as services:
        people = People(services.state)
        note("pause")
        pauses = [await _paused(people, number) for number in range(ROUNDS)]
        note("stop")
        stops = [await _stopped(people) for _ in range(ROUNDS)]
        await people.client.close()
    tell("pause_latency", milliseconds=statistics.median(pauses) * 1000)
    tell("stop_latency", milliseconds=statistics.median(stops) * 1000)


async def _paused(people: People, number: int) -> float:
    """Return the seconds from asking for a pause to hearing of it; a step may have to be finished first."""
    asked = told = 0.0

    async def seen(mission_id: str, part: Part) -> bool:
        nonlocal asked, told
        kinds = {event.WhichOneof("payload") for event in part.events}
        if not asked and "step_completed" in kinds:
            asked = time.perf_counter()
            await people.client.control(mission_id, events_pb2.CONTROL_ACTION_PAUSE)
        if "execution_paused" in kinds:
            told = time.perf_counter()
            await people.client.control(mission_id, events_pb2.CONTROL_ACTION_STOP, roll_back=True)
        return part.HasField("receipt")

    first = plan_pb2.Step(run_tests=plan_pb2.RunTests(argv=["sleep", "0.5"]))
    writes = [_write(f"p{number}-{one}") for one in range(STEPS)]
    await people.executed("work", [_write(f"p{number}"), first, *writes], seen)
    return told - asked


async def _stopped(people: People) -> float:
    """Return the seconds from asking for a stop inside a running program to the receipt."""
    asked = told = 0.0

    async def seen(mission_id: str, part: Part) -> bool:
        nonlocal asked, told
        if not asked and any(event.WhichOneof("payload") == "step_started" for event in part.events):
            await asyncio.sleep(SLEEP_SECONDS / 4)
            asked = time.perf_counter()
            await people.client.control(mission_id, events_pb2.CONTROL_ACTION_STOP)
        told = time.perf_counter()
        return part.HasField("receipt")

    await people.executed(
        "work", [plan_pb2.Step(run_tests=plan_pb2.RunTests(argv=["sleep", str(SLEEP_SECONDS)]))], seen
    )
    return told - asked


def _restarted() -> None:
    names = [f"w{number}" for number in range(JOURNALS)]
    note(f"{JOURNALS} executions under way")
    with running_services(names) as services:
        fresh = services.restart()
        asyncio.run(_all_waiting(services.state, names))
        interrupted = services.restart()
        waiting = asyncio.run(_count_paused(services.state))
    tell(
        f"start_with_{JOURNALS}_interrupted_journals",
        seconds=interrupted,
        seconds_without=fresh,
        restored=waiting,
        milliseconds=(interrupted - fresh) * 1000 / JOURNALS,
    )


async def _all_waiting(state: Path, names: list[str]) -> None:
    people, room = People(state), asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async def seen(_mission_id: str, part: Part) -> bool:
            return any(event.WhichOneof("payload") == "execution_paused" for event in part.events)

        async with room:
            second = _write("b")
            second.needs_approval = True
            await people.executed(name, [_write("a"), second], seen)

    await asyncio.gather(*(one(name) for name in names))
    await people.client.close()


async def _count_paused(state: Path) -> int:
    people = People(state)
    try:
        return len(await people.client.list(status=events_pb2.MISSION_STATUS_PAUSED, limit=JOURNALS))
    finally:
        await people.client.close()


def _write(path: str) -> plan_pb2.Step:
    return plan_pb2.Step(write_file=plan_pb2.WriteFile(path=path, content="x"))
