"""Everybody around two services, and what they do: propose, approve, execute, control, repair, take back, wait."""

import asyncio
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from executor.domain.errors import ExecutorError
from executor.runner.control_ports import ControlEntry
from executor.runner.run import Run
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason
from orchestrator.domain.events import ControlAction, PauseKind
from orchestrator.domain.evidence import ReportStatus
from orchestrator.domain.mission import WAITING, Mission, MissionStatus
from orchestrator.domain.plan import (
    Action,
    AppendText,
    Compensation,
    DeletePath,
    FailurePolicy,
    HttpRequest,
    NetworkAccess,
    PauseDefault,
    PauseRules,
    PlanDraft,
    ReadFile,
    Scope,
    Step,
    WriteFile,
)
from orchestrator.domain.queue import QueueWish
from orchestrator.service.controlling import Wish
from orchestrator.service.controlling import _id_of as order_id
from orchestrator.service.requests import Request
from tests.fakes.dying import Died
from tests.fakes.mortal_pair import Pair, in_time
from tests.fakes.played_far_sides import HOST, address
from tests.property.control_judge import Judge
from tests.unit.executor.house import Person

PATIENCE_SECONDS: Final = 15.0
LIFETIME_SECONDS: Final = 4000
RULES: Final = {"deadline_seconds": 600, "step_approval_seconds": 300}
SCOPE: Final = Scope(domains=(HOST,), network=NetworkAccess.LISTED_DOMAINS)
NEVER: Final = frozenset({Reason.INTERNAL, Reason.AUDIT_FORKED, Reason.MALFORMED, Reason.REQUEST_REUSED})
"""Refusals that nothing here gives a reason for."""

Recipe = tuple[tuple[Any, ...], bool]
"""A step as it is drawn: its kind and what that takes, and whether it wants a signature of its own."""


@dataclass(eq=False)
class Called:
    """Somebody's call for an execution."""

    mission_id: str
    request: Request
    heard: bool = False
    task: "asyncio.Task[None] | None" = None

    @property
    def done(self) -> bool:
        """Nothing comes of it any more; what went wrong in it is said."""
        if self.task is None or not self.task.done():
            return False
        if not self.task.cancelled():
            self.task.result()
        return True


class Crowd:
    """People, strangers, far sides, clock and death, around one pair."""

    def __init__(self, pair: Pair, judge: Judge) -> None:
        self.pair = pair
        self.judge = judge
        self.missions = judge.missions
        self.callers: list[Called] = []
        self.refusals: Counter[str] = Counter()
        self.asked_for: list[tuple[Request, str, Wish]] = []
        """What somebody had executions do, with the request of it."""
        self.latest = pair.clock.ahead
        self.contents = 0

    async def all_of(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something, wait until nothing moves any more, and have all of it judged."""
        await work
        await self.at_rest()
        self.judge.check()

    async def at_rest(self) -> None:
        """Wait until nothing moves any more."""
        missing = await in_time(self.unsettled, PATIENCE_SECONDS)
        assert not missing, f"this never came to rest: {missing}\n{_stacks()}"

    async def unsettled(self) -> str:
        """Say what still moves; empty where nothing does."""
        if self.pair.house.life.dead:
            return "the executor is dead"
        waiting = (one for one in self.callers if not one.done and not one.heard)
        if asked := next(waiting, None):
            return f"a caller of {asked.mission_id} has no answer"
        if any(task.get_coro().__name__ in {"_swept", "_expired"} for task in self.pair.use.dispatcher._tasks):  # type: ignore[union-attr]  # its own coroutines
            return "what ran out of time is looked for"
        behind = map(self._behind, map(self.state, self.missions))
        return self._works() or next(filter(None, behind), "")

    def _works(self) -> str:
        """Say what of the executor is at work."""
        house = self.pair.house
        lives = tuple(house.core._executions._running._by_id.values())
        if untold := next((one.run for one in lives if one.run.failure), None):
            self._look_for_room(untold)
            return "a receipt found no room"
        running = (one for one in lives if one.desk.paused is None and not self._hangs(one.run.execution_id))
        if live := next(running, None):
            return f"{live.run.mission_id} runs"
        if house.core._executions._running._at_work - {live.run.execution_id for live in lives}:
            return "an execution that ended tidies up"
        return ""

    def _look_for_room(self, untold: Run) -> None:
        """Ask for an end that could not be stored; where there still is no room, its operator restarts the executor."""
        house = self.pair.house
        with suppress(Died):
            house.core.get_execution(execution_id=untold.execution_id)
            if untold.failure is None:
                self.refusals["stored late"] += 1
                return
        if not house.life.dead:
            self.pair.restart_executor()

    def _hangs(self, execution_id: str) -> bool:
        return execution_id in self.pair.far_sides.hanging.values()

    def _behind(self, mission: Mission) -> str:
        """Say in what the orchestrator has not caught up with the executor, or the executor with itself."""
        mission_id, runs = mission.mission_id, self.pair.use.executions.runs
        if self.pair.house.ledger.execution(mission_id=mission_id) is None:
            return self._not_begun(mission)
        run = self.pair.house.core.get_execution(mission_id=mission_id)
        progress = run.progress(0)
        moves = {
            "runs": not progress.ended and progress.pause is None and not self._hangs(run.execution_id),
            "has events that are not durable": isinstance(run, Run) and bool(run.pending()),
            "has events that nobody has heard of": mission.executor_events != len(progress.events),
            "has an end of which nobody knows": progress.ended and (mission_id in runs or not mission.receipt_digest),
            "is not written down": self.pair.use.missions.store.has_unwritten(mission_id),
        }
        return next((f"{mission_id} {what}" for what, holds in moves.items() if holds), "")

    def _not_begun(self, mission: Mission) -> str:
        if mission.mission_id in self.pair.use.executions.runs:
            return f"{mission.mission_id} is being handed over"
        held = any(one.status is MissionStatus.ACTIVE or self.is_paused(one) for one in map(self.state, self.missions))
        held |= self.is_behind()
        return f"{mission.mission_id} has its turn" if mission.status is MissionStatus.QUEUED and not held else ""

    async def proposed(self, steps: list[Recipe], policy: FailurePolicy, default: PauseDefault) -> str:
        draft = PlanDraft(
            objective="Try it",
            workspace="site",
            scope=SCOPE,
            failure_policy=policy,
            steps=self.steps(steps),
            pause=PauseRules(default_action=default, **RULES),
        )
        answer = await self.refusable(self.pair.use.missions.propose(self.pair.asked(), draft))
        if answer is None:
            return ""
        self.missions.append(answer.mission.mission_id)
        return str(answer.mission.mission_id)

    async def sent(
        self,
        steps: list[Recipe],
        policy: FailurePolicy,
        default: PauseDefault,
        priority: int | None,
        *,
        clear: bool = False,
    ) -> None:
        if clear:
            await self.cleared()
        mission_id = await self.proposed(steps, policy, default)
        if not mission_id:
            return
        await self.refusable(self.pair.use.dry_runs.dry_run(self.pair.asked(), mission_id))
        if self.state(mission_id).report_status is not ReportStatus.SUCCESS:
            return
        await self.approved(self.state(mission_id), "owner")
        if priority is None:
            await self.executed(mission_id)
        else:
            await self.queued(mission_id, priority)

    async def approved(self, mission: Mission, by: str, *, deny: bool = False) -> None:
        sealed = self.pair.approval(mission.mission_id, self.person(by), seconds=LIFETIME_SECONDS, deny=deny)
        await self.refusable(self.pair.use.approvals.approve(self.pair.asked(), mission.mission_id, sealed))

    async def executed(self, mission_id: str) -> None:
        """Have somebody call for the execution, and stay."""
        asked = Called(mission_id, self.pair.asked())
        self.callers = [one for one in self.callers if not one.done]
        self.callers.append(asked)
        asked.task = asyncio.ensure_future(self.stay(asked))
        await asyncio.wait({asked.task}, timeout=0.001)

    async def stay(self, asked: "Called") -> None:
        """Follow an execution; where nobody can tell whether the request arrived, the same one is made again."""
        while True:
            try:
                async for _ in self.pair.use.executions.execute(asked.request, asked.mission_id):
                    asked.heard = True
            except ExecutorUnavailableError:
                await asyncio.sleep(0.005)
            except OrchestratorError as error:
                self.refused(error)
                return
            else:
                return

    async def queued(self, mission_id: str, priority: int) -> None:
        async def enqueue() -> None:
            wish = QueueWish(priority=priority)
            async for _ in self.pair.use.dispatcher.enqueue(self.pair.asked(), mission_id, wish=wish):
                pass

        await self.refusable(enqueue())

    async def controlled(self, mission: Mission, action: ControlAction, *, roll_back: bool, times: int = 1) -> None:
        request = self.pair.asked()
        denied = roll_back and action is ControlAction.APPROVE_STEP
        roll_back = roll_back and action is ControlAction.STOP
        document = None
        if action in {ControlAction.APPROVE_STEP, ControlAction.RECONCILE}:
            if mission.pause is None:
                return
            owner = self.pair.house.owner
            document = (
                self.pair.step_approval(mission.mission_id, owner, deny=denied)
                if action is ControlAction.APPROVE_STEP
                else self.pair.reconciliation(mission.mission_id, owner)
            )
        wish = Wish(action=action, roll_back=roll_back, document=document)
        self.asked_for.append((request, mission.mission_id, wish))
        for _ in range(times):
            answer = await self.refusable(self.pair.use.controls.control(request, mission.mission_id, wish))
            self._noted(request, mission, wish, answered=answer is not None, denied=denied)

    def _noted(self, request: Request, mission: Mission, wish: Wish, *, answered: bool, denied: bool = False) -> None:
        """Hold both services to what they answered, and to what they recorded though nobody was answered."""
        taken = any(one.request_id == order_id("control", request) for one in self.taken(mission.mission_id))
        assert taken or not answered or not self.judge.claimed(mission.mission_id), "answered, and not recorded"
        if taken and (denied or wish.action is ControlAction.STOP) and self.is_paused(mission):
            self.judge.must_end.add(mission.mission_id)

    async def asked_again(self, pick: int) -> None:
        """Make a former request once more: what was taken is answered, and nothing comes of it."""
        for request, mission_id, wish in self.asked_for[-1 - pick % len(self.asked_for) :][:1]:
            taken = self.taken(mission_id)
            known = any(one.request_id == order_id("control", request) for one in taken)
            answer = await self.refusable(self.pair.use.controls.control(request, mission_id, wish))
            if known:
                self.judge.reached["repeated"] += 1
                assert answer is not None, "what was taken is refused when it comes again"
                assert self.taken(mission_id) == taken, "what was taken is taken once more"

    def taken(self, mission_id: str) -> tuple[ControlEntry, ...]:
        """Return what the executor had recorded that people wanted of a mission."""
        record = self.pair.house.ledger.execution(mission_id=mission_id)
        return () if record is None else self.pair.house.ledger.controls(record.execution_id)

    async def repaired(self, mission_id: str, steps: list[Recipe], policy: FailurePolicy, reach: int) -> None:
        draft = PlanDraft(objective="Repair it", workspace="site", failure_policy=policy, steps=self.steps(steps))
        use = self.pair.use
        await self.refusable(use.repairs.repair(self.pair.asked(), mission_id, draft, dry_run=True))
        mission = self.state(mission_id)
        if reach > 1 and mission in self.to_approve():
            await self.approved(mission, "owner")
            if reach > 2 and self.state(mission_id) in self.to_execute():
                await self.executed(mission_id)

    async def revoked(self, mission_id: str, by: str) -> None:
        try:
            await asyncio.to_thread(self.pair.withdraw, mission_id, self.person(by))
        except Died:
            pass  # the executor died of it; whoever wanted it was told nothing
        except ExecutorError as error:
            self.check_reason(error.fault.reason)

    async def strange(self, path: str, content: bytes | None) -> None:
        place = self.pair.house.site / path
        if content is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(content)
            place.chmod(0o644)
        self.judge.stranger(path, content)

    async def later(self, seconds: int) -> None:
        self.pair.clock.ahead += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.pair.clock.ahead)
        await asyncio.sleep(0.03)  # whoever waits looks at the clock
        self.pair.use.dispatcher._look()

    def is_behind(self) -> bool:
        """Somebody has set the clock back, so that nothing begins."""
        return self.pair.clock.ahead < self.latest

    async def answered(self) -> None:
        self.pair.far_sides.release()
        await asyncio.sleep(0.01)

    async def restarted(self, dooms: Iterable[tuple[int, bool]] = ()) -> None:
        """End the executor; the lives after it end at some of their own first acts."""
        self.pair.house.dooms += dooms
        self.pair.restart_executor()

    async def orchestrator_restarted(self, *, cleanly: bool, both: bool) -> None:
        if both:
            self.pair.restart_executor()
        await self.pair.restart_orchestrator(cleanly=cleanly)

    async def to_the_end(self) -> None:
        """Have every mission come to its end, whatever the executor was to die of."""
        self.pair.house.life.goes_on()
        self.pair.house.dooms.clear()
        await self.cleared()

    async def cleared(self) -> None:
        """Have every mission that is under way come to its end; for that the clock must be right."""
        self.pair.clock.ahead = self.latest
        await self.later(0)
        for _ in range(100):
            await self.answered()
            await self.at_rest()
            under_way = [one for one in map(self.state, self.missions) if self.is_under_way(one)]
            if not under_way:
                return
            for mission in under_way:
                await self.pressed_on(mission)
        raise AssertionError("missions never came to their end")

    async def pressed_on(self, mission: Mission) -> None:
        """Have one mission come nearer to its end."""
        if not self.is_paused(mission) or mission.pause is None:
            return
        word = ControlAction.RECONCILE in mission.pause.actions
        action = ControlAction.RECONCILE if word else ControlAction.STOP
        await self.controlled(mission, action, roll_back=bool(self.contents % 2))

    async def refusable(self, work: Awaitable[Any]) -> Any:
        """Have something done that may well be refused, with a reason that makes sense; None where it is."""
        try:
            return await work
        except OrchestratorError as error:
            self.refused(error)
            return None

    def check_reason(self, reason: str) -> None:
        assert reason not in {one.value for one in NEVER}, reason

    def refused(self, error: OrchestratorError) -> None:
        self.check_reason(error.reason.value)
        self.refusals[f"refused: {error.reason.value}"] += 1

    def state(self, mission_id: str) -> Mission:
        return self.pair.use.missions.store.state(mission_id)

    def standing(self, *statuses: MissionStatus) -> list[Mission]:
        return [mission for mission in map(self.state, self.missions) if mission.status in statuses]

    def one(self, pick: int, found: list[Mission]) -> list[Mission]:
        """Return one of some missions, or none where there is none.

        What can be drawn hangs on nothing but what was drawn: threads do not always take the same turns.
        """
        return [found[pick % len(found)]] if found else []

    def to_approve(self) -> list[Mission]:
        found = self.standing(MissionStatus.PROPOSED, MissionStatus.PAUSED)
        return [
            one
            for one in found
            if one.report_status is ReportStatus.SUCCESS
            and (one.status is MissionStatus.PROPOSED or one.repair_pending)
        ]

    def to_execute(self) -> list[Mission]:
        found = self.standing(*WAITING, MissionStatus.PAUSED)
        return [one for one in found if one.status in WAITING or (one.repair_pending and one.approved_until)]

    def repairable(self) -> list[Mission]:
        found = self.standing(MissionStatus.PROPOSED, MissionStatus.PAUSED)
        return [
            one
            for one in found
            if (one.pause is not None and one.pause.repairable)
            or (one.status is MissionStatus.PROPOSED and one.report_status not in {None, ReportStatus.SUCCESS})
        ]

    def waiting(self) -> list[Mission]:
        """Return the missions that wait for people."""
        return [mission for mission in self.standing(MissionStatus.PAUSED) if self.is_paused(mission)]

    def is_paused(self, mission: Mission) -> bool:
        """It waits, and the executor can be told what for."""
        kind = mission.pause.kind if mission.pause is not None else None
        return mission.status is MissionStatus.PAUSED and kind is not PauseKind.UNKNOWN_OUTCOME

    def is_under_way(self, mission: Mission) -> bool:
        return mission.status in {MissionStatus.QUEUED, MissionStatus.ACTIVE} or self.is_paused(mission)

    def person(self, name: str) -> Person:
        return self.pair.house.owner if name == "owner" else self.pair.house.second

    def content(self) -> bytes:
        self.contents += 1
        return b"content %d\n" % self.contents

    def steps(self, recipes: list[Recipe]) -> tuple[Step, ...]:
        return tuple(self._step(recipe, needs_approval) for recipe, needs_approval in recipes)

    def _step(self, recipe: tuple[Any, ...], needs_approval: bool) -> Step:
        if recipe[0] == "live":
            _, word, back = recipe
            compensation = None if back is None else Compensation(action=self._request("back", back))
            action: Action = self._request("there", word)
            return Step(action=action, needs_approval=needs_approval, compensation=compensation)
        kind, path = recipe
        make: dict[str, Callable[[], Action]] = {
            "write": lambda: WriteFile(path=path, content=self.content().decode()),
            "append": lambda: AppendText(path=path, content=self.content().decode()),
            "delete": lambda: DeletePath(path=path),
            "read": lambda: ReadFile(path=path),
        }
        return Step(action=make[kind](), needs_approval=needs_approval)

    def _request(self, name: str, word: str) -> HttpRequest:
        return HttpRequest(method="POST", url=address(name, word), content="x", idempotency_header="Idempotency-Key")


def _stacks() -> str:
    """Return where the executor's threads are."""
    frames = sys._current_frames()
    threads = [one for one in threading.enumerate() if one.ident in frames and one.name.startswith(("run", "event-"))]
    return "\n".join(f"{one.name}:\n{''.join(traceback.format_stack(frames[one.ident or 0])[-8:])}" for one in threads)
