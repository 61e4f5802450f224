"""What persons have a mission do once it is under way, and the programs that its live steps left running.

Nothing is decided here: the executor says what becomes of a wish, and what comes of it arrives with the execution's
events. A wish goes on under an id that follows from its request's, so that a retry is the same wish, also when this
process ended before it heard the answer.
"""

from dataclasses import dataclass
from typing import Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain import decisions
from orchestrator.domain.control import LiveProcess
from orchestrator.domain.errors import ExecutorRefusedError, Reason, StateForbidsError, malformed
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import WAITING, Mission, MissionStatus
from orchestrator.domain.plan import shortened
from orchestrator.service.execution import Executions
from orchestrator.service.ports import ControlOrder, Executor
from orchestrator.service.requests import Answer, Request
from orchestrator.service.words import Words

MAX_REASON: Final = 2_000

_SIGNED: Final = frozenset({ControlAction.APPROVE_STEP, ControlAction.RECONCILE})
_UNCLAIMED: Final = frozenset({MissionStatus.PROPOSED, *WAITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants of a mission's execution."""

    action: ControlAction
    reason: str = ""
    roll_back: bool = False
    document: Sealed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Hands wishes to the executor."""

    executions: Executions
    executor: Executor
    words: Words

    async def control(self, request: Request, reference: str, wish: Wish) -> Answer:
        """Have a mission's execution pause, go on or stop, or hand in a signed word about one of its steps.

        A mission that nobody has claimed is not stopped but cancelled. The answer tells how the mission stands as far
        as its events have come; what the wish comes to is told by those that follow.

        Raises:
            RequestRefusedError: the wish is not well formed, or its words hold a secret.
            StateForbidsError: the mission was never executed.
            ExecutorRefusedError: what is wanted does not fit how the execution stands; nothing has changed.
            ExecutorUnavailableError: nobody can tell what became of it; the same request asks again.
        """
        store = self.executions.store
        mission = store.find(reference)
        answer = store.answered(request)
        if answer is not None:
            return answer
        _check(wish)
        if not self._handed_over(mission):
            if wish.action is not ControlAction.STOP or mission.status not in _UNCLAIMED:
                decisions.require_controllable(mission, wish.action)
            elif (cancelled := await self._cancelled(request, mission, wish)) is not None:
                return cancelled
        await self._hand_on(request, mission.mission_id, wish)
        self.executions.take_up(store.state(mission.mission_id))
        return Answer(mission=store.state(mission.mission_id))

    async def processes(self, reference: str) -> tuple[LiveProcess, ...]:
        """Return the programs that keep running, of one mission or (empty) of all."""
        mission_id = self.executions.store.find(reference).mission_id if reference else ""
        return await self.executor.processes(mission_id)

    async def stop_process(self, request: Request, process_id: str) -> LiveProcess:
        """End a program that a live step left running, with all that it started.

        Raises:
            ExecutorRefusedError: there is no such program.
        """
        if not process_id:
            raise malformed("the request names no program", "Take its id from the list of programs that run.")
        return await self.executor.stop_process(_id_of("stop", request), process_id, request.person)

    def _handed_over(self, mission: Mission) -> bool:
        """Whether the executor may hold a mission of which no event says so yet."""
        return mission.status in WAITING and mission.mission_id in self.executions.runs

    async def _cancelled(self, request: Request, mission: Mission, wish: Wish) -> Answer | None:
        """Cancel a mission that nobody has claimed; None where the executor turns out to hold it."""
        try:
            return await self.executions.cancel(request, mission.mission_id, wish.reason or "stopped before it began")
        except StateForbidsError as error:
            if error.reason is Reason.ALREADY_CLAIMED:
                return None
            raise

    async def _hand_on(self, request: Request, mission_id: str, wish: Wish) -> None:
        if wish.document is not None:
            await self.words.keep(mission_id, wish.action, wish.document)
        order = ControlOrder(
            request_id=_id_of("control", request),
            mission_id=mission_id,
            action=wish.action,
            actor=request.person,
            reason=shortened(wish.reason, MAX_REASON),
            roll_back=wish.roll_back,
            document=wish.document,
        )
        try:
            await self.executor.control(order)
        except ExecutorRefusedError:
            if wish.document is not None:
                self.words.refused(wish.document)
            raise


def _check(wish: Wish) -> None:
    decisions.check_words(wish.reason)
    if wish.roll_back and wish.action is not ControlAction.STOP:
        raise malformed("only what is stopped is rolled back", "Set `roll_back` with STOP only.")
    if (wish.document is not None) != (wish.action in _SIGNED):
        raise malformed(
            "a signed document goes with APPROVE_STEP and RECONCILE, and with nothing else",
            "Sign the approval of the step that waits, or the word on its effect, and hand that in.",
        )


def _id_of(kind: str, request: Request) -> str:
    """Return the id under which the executor knows a request: a retry of ours is one of its own."""
    return f"{kind}-" + digest(request.command_id.encode()).removeprefix(PREFIX)[:40]
