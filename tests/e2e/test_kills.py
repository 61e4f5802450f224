"""Real processes killed at random moments: nothing is lost, nothing happens twice, nothing is left half made.

In each round missions of several kinds are under way in several workspaces, and a queue waits in one of them. The
orchestrator, the executor or both are killed without warning; then they are started again, and people bring every
mission to its end. `GONOGO_KILL_ROUNDS` says how many rounds there are, `GONOGO_KILL_SEED` draws the same again, as far
as processes let it.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from client.calls import new_request_id
from client.control_calls import APPROVE_STEP, RECONCILE, RESUME, RETRY, STOP
from client.errors import ClientError
from client.json_form import short_name
from client.step_words import sign_reconciliation, sign_step_approval, verify_step
from gonogo import sealing
from gonogo.v1 import events_pb2, evidence_pb2, orchestrator_pb2
from tests.e2e import kill_missions
from tests.e2e.by_hand import prepared, start_executor, start_orchestrator
from tests.e2e.counting_server import CountingServer, counting_server
from tests.e2e.installation import Installation
from tests.e2e.kill_missions import Killed
from tests.e2e.wire_house import Desk, desk, ledger_rows

pytestmark = [pytest.mark.long, pytest.mark.sandbox, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("GONOGO_KILL_ROUNDS", "40"))
HOUSES = 2
WORKSPACES = ("one", "two", "three")
QUEUE = "three"
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.03
LATEST_KILL_SECONDS = 0.9
VICTIMS = ("executor", "orchestrator", "both")
ENDED = frozenset({"completed", "failed", "cancelled"})

T = TypeVar("T")


class House:
    """Both services, killed and started again at the same addresses."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.executor = start_executor(installation.state, installation.workspaces)
        self.orchestrator = start_orchestrator(installation.state, self.executor.address)
        self._executor_address = self.executor.address
        self._orchestrator_address = self.orchestrator.address

    def kill(self, victim: str) -> None:
        """Kill one of them, or both."""
        if victim != "executor":
            self.orchestrator.kill()
        if victim != "orchestrator":
            self.executor.kill()

    async def revive(self) -> None:
        """Start what is dead."""
        state = self.installation.state
        async with asyncio.TaskGroup() as both:
            if self.executor.process.poll() is not None:
                both.create_task(asyncio.to_thread(self._start_executor, state))
            if self.orchestrator.process.poll() is not None:
                both.create_task(asyncio.to_thread(self._start_orchestrator, state))

    def _start_executor(self, state: Path) -> None:
        self.executor = start_executor(state, self.installation.workspaces, listen=self._executor_address)

    def _start_orchestrator(self, state: Path) -> None:
        self.orchestrator = start_orchestrator(state, self._executor_address, listen=self._orchestrator_address)

    def stop(self) -> None:
        """End them."""
        self.orchestrator.stop()
        self.executor.stop()


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with counting_server() as running:
        yield running


@contextmanager
def house(folder: Path) -> Iterator[House]:
    """Run both services over three workspaces; steps may reach this machine."""
    folder.mkdir()
    found = prepared(folder)
    workspaces = {name: folder / name for name in WORKSPACES}
    for path in workspaces.values():
        path.mkdir()
    trust = next(found.state.rglob("trust.toml"))
    head, policy, rest = trust.read_text().partition("\n[policy]\n")
    network = '\n[network]\nprivate_addresses = ["127.0.0.0/8"]\n'
    trust.write_text(f'{head}\ndomains = ["127.0.0.1"]\n{policy}{rest}{network}')
    running = House(Installation(found.state, workspaces))
    try:
        yield running
    finally:
        running.stop()


class Campaign:
    """All rounds, and what came of them."""

    def __init__(self, house: House, server: CountingServer, seed: int) -> None:
        self.house = house
        self.server = server
        self.chance = random.Random(seed)
        self.kinds = itertools.cycle(kill_missions.KINDS)
        self.queued = itertools.cycle(kill_missions.QUEUED)
        self.figures: Counter[str] = Counter()
        self.told: list[str] = []
        self._number = itertools.count(1)

    async def round(self, one: Desk) -> None:
        """Have some missions under way, kill, start again, and bring them to their end."""
        missions = [self._made(workspace) for workspace in (*WORKSPACES, QUEUE, QUEUE)]
        await asyncio.gather(*(self._approved(one, mission) for mission in missions))
        watchers = [asyncio.ensure_future(self._watch(one, mission)) for mission in missions]
        sending = [asyncio.ensure_future(self._sent(one, mission)) for mission in missions]
        await asyncio.sleep(self.chance.uniform(0, LATEST_KILL_SECONDS))
        victim = self.chance.choice(VICTIMS)
        under_way = self._under_way()
        self.house.kill(victim)
        await self.house.revive()
        await asyncio.gather(*sending)
        await asyncio.gather(*(self._ended(one, mission) for mission in missions))
        await asyncio.wait_for(asyncio.gather(*watchers), PATIENCE_SECONDS)
        self.figures.update({"rounds": 1, "missions": len(missions), f"killed: {victim}": 1, "caught": under_way})
        for mission in missions:
            await self._judge(one, mission)

    def _made(self, workspace: str) -> Killed:
        name = f"m{next(self._number)}"
        kinds = self.queued if workspace == QUEUE else self.kinds
        mission = next(kinds)(name, self.house.installation.workspaces[workspace], self.server)
        kill_missions.prepare(mission)
        return mission

    def _under_way(self) -> int:
        """Tell how many executions the executor had begun and not ended: a kill that catches none shows nothing."""
        path = self.house.installation.state / "executor" / "ledger.db"
        return _count(path, "select count(*) from executions where outcome is null")

    async def _approved(self, one: Desk, mission: Killed) -> None:
        mission.mission_id = await one.approved(mission.plan)
        mission.request_id = new_request_id()

    async def _sent(self, one: Desk, mission: Killed) -> None:
        """Queue it; the same request again is the same order, however often the answer was lost."""

        async def queue() -> None:
            async for _ in one.client.execute(mission.mission_id, detach=True, request_id=mission.request_id):
                pass

        await self._insistently(queue)

    async def _watch(self, one: Desk, mission: Killed) -> None:
        """Follow its events to the end, with the last token after each break."""
        token = ""
        while True:
            with suppress(ClientError):
                async for part in one.client.watch(mission.mission_id, resume_token=token):
                    token = part.resume_token or token
                    mission.sequences += [event.sequence for event in part.events]
                    if any(event.WhichOneof("payload") in _LAST for event in part.events):
                        return
            await asyncio.sleep(POLL_SECONDS)

    async def _ended(self, one: Desk, mission: Killed) -> None:
        """Have people decide whatever it waits for, until it has ended."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = await self._insistently(lambda: one.client.get(mission.mission_id))
            status = short_name(found.mission, "status")
            if status in ENDED:
                return
            if time.monotonic() > until:
                self.figures["lost"] += 1
                self.told.append(
                    f"{mission.name} ({mission.kind}) never ended: it is {status}: {found.mission.pause.reason}"
                )
                raise AssertionError(self.told[-1])
            with suppress(ClientError):
                if status == "paused":
                    await self._decide(one, mission, found)
                elif status == "proposed":
                    await self._again(one, mission)
            await asyncio.sleep(POLL_SECONDS)

    async def _again(self, one: Desk, mission: Killed) -> None:
        """Take it to the queue anew: what was before it there has changed what its commands see."""
        self.figures["drifted"] += 1
        tried = await one.client.dry_run(mission.mission_id)
        found = await one.client.get(mission.mission_id)
        proposed = orchestrator_pb2.ProposeMissionResponse(mission=found.mission, plan=found.plan)
        await one.client.approve(one.client.verified(proposed, tried), one.signer)
        mission.request_id = new_request_id()
        await self._sent(one, mission)

    async def _decide(self, one: Desk, mission: Killed, found: orchestrator_pb2.GetMissionResponse) -> None:
        pause = found.mission.pause
        match short_name(pause, "kind"):
            case "unknown_effect":
                mission.unknown += 1
                key = f"{found.mission.execution_id}-{pause.step_id}"
                step = self._verified(one, mission, found, events_pb2.PAUSE_KIND_UNKNOWN_EFFECT)
                word = sign_reconciliation(step, one.signer, happened=bool(self.server.happened[key]))
                await one.client.control(mission.mission_id, RECONCILE, document=word)
            case "step_approval":
                step = self._verified(one, mission, found, events_pb2.PAUSE_KIND_STEP_APPROVAL)
                word = sign_step_approval(step, one.signer)
                await one.client.control(mission.mission_id, APPROVE_STEP, document=word)
            case "interrupted" if self.chance.random() < 0.7:
                await one.client.control(mission.mission_id, RESUME)
            case "failure" if self.chance.random() < 0.5:
                await one.client.control(mission.mission_id, RETRY)
            case _:
                await one.client.control(mission.mission_id, STOP, roll_back=self.chance.random() < 0.5)

    def _verified(
        self,
        one: Desk,
        mission: Killed,
        found: orchestrator_pb2.GetMissionResponse,
        kind: events_pb2.PauseKind.ValueType,
    ) -> Any:
        return verify_step(mission.mission_id, found.mission.pause.step_id, found, one.client.executor_key, kind)

    async def _insistently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until somebody answers it."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await call()
            except ClientError as error:
                if time.monotonic() > until or error.reason not in _AWAY:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def _judge(self, one: Desk, mission: Killed) -> None:
        found = await one.client.get(mission.mission_id)
        receipt = sealing.open_sealed(found.receipt.body, evidence_pb2.Receipt)
        rows = ledger_rows(self.house.installation.state, [mission.mission_id])
        told = kill_missions.faults(mission, receipt, self.server)
        if rows != 1:
            told["doubled"].append(f"{mission.name}: {rows} executions")
        if mission.sequences != list(range(1, found.mission.last_sequence + 1)):
            told["gaps"] = [f"{mission.name}: watched {mission.sequences} of {found.mission.last_sequence} events"]
        if not mission.live and (mission.unknown or receipt.execution_status == evidence_pb2.OUTCOME_UNKNOWN):
            told["unknown without a live step"] = [mission.name]
        self.figures["unknown, live steps only"] += mission.unknown
        self.figures[f"outcome: {short_name(receipt, 'execution_status')}"] += 1
        if any(told.values()):
            steps = [
                f"{step.step_id}: {step.success} {step.rollback_succeeded} {step.attempts}" for step in receipt.steps
            ]
            self.told.append(f"{mission.name}: {steps}, abort reason {receipt.abort_reason!r}, errors {receipt.errors}")
            async for part in one.client.watch(mission.mission_id, follow=False):
                self.told += [_line(event) for event in part.events]
        for name, faults in told.items():
            self.figures[name] += len(faults)
            self.told += [f"{name}: {fault} ({mission.kind})" for fault in faults]


_LAST = frozenset({"mission_completed", "mission_failed", "mission_cancelled"})
_AWAY = frozenset({"NOT_RUNNING", "EXECUTOR_UNAVAILABLE", "UNAVAILABLE"})
_FAULTS = ("lost", "doubled", "mixed", "gaps", "unknown without a live step")


def _line(event: events_pb2.Event) -> str:
    name = event.WhichOneof("payload") or ""
    said = str(getattr(event, name)).replace("\n", " ")
    return f"    {event.sequence} {name} {said[:300]}"


def _count(path: Path, query: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        (count,) = ledger.execute(query).fetchone()
    return int(count)


async def _rounds(campaign: Campaign, left: Iterator[int]) -> None:
    async with desk(campaign.house.installation.state) as one:
        for _ in left:
            await campaign.round(one)


async def test_kills_at_random_moments_lose_double_and_mix_nothing(
    tmp_path: Path, server: CountingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mission ends with one true receipt, streams go on without a gap, and only effects are ever unknown."""
    seed = int(os.environ.get("GONOGO_KILL_SEED", "0")) or secrets.randbits(32)
    began, left = time.monotonic(), iter(range(ROUNDS))
    with ExitStack() as running:
        # Several installations at a time: while one of them starts again, another is at work.
        houses = [running.enter_context(house(tmp_path / f"house-{number}")) for number in range(HOUSES)]
        campaigns = [Campaign(one, server, seed + number) for number, one in enumerate(houses)]
        try:
            async with asyncio.TaskGroup() as all_of_them:
                for campaign in campaigns:
                    all_of_them.create_task(_rounds(campaign, left))
        finally:
            figures, told = Counter(dict.fromkeys(_FAULTS, 0)), [line for one in campaigns for line in one.told]
            for campaign in campaigns:
                figures.update(campaign.figures)
            with capsys.disabled():
                said = json.dumps({**figures, "seed": seed})
                print(f"\nkills: {said} in {time.monotonic() - began:.0f} s")  # noqa: T201 - the figures are for people
                print(*told, sep="\n")  # noqa: T201 - as above
    assert not told
    assert figures["caught"], "no kill met a mission that was under way"
