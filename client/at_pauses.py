"""What a person on a terminal has an execution do that waits: asked once for each pause, with what fits it."""

from dataclasses import dataclass
from typing import Final

from client.api import GonogoClient
from client.approving import ApprovalOptions, Terminal, approve_mission
from client.control_calls import APPROVE_STEP, RECONCILE, RESUME, RETRY, STOP
from client.controlling import control_mission
from client.errors import ClientError
from client.pausing import show_waiting, waiting_error
from client.render.pauses import pause_text
from client.repairing import fetch_repair, require_tried
from client.running import Updates
from client.session import Session
from client.waiting_steps import approve_step, deny_step, reconcile_step
from gonogo.safe_text import safe_block
from gonogo.v1 import executor_pb2, orchestrator_pb2

LEAVE: Final = "leave"
WORDS: Final = {
    RESUME: ("resume",),
    RETRY: ("retry",),
    APPROVE_STEP: ("approve", "deny"),
    RECONCILE: ("happened", "did-not"),
    STOP: ("roll-back", "stop"),
}
ASKED: Final = 3
"""How often an answer that is none of the words is asked for again; then it is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPauses:
    """Asks, and does what the person wants. Use it as `decide` of `client.running.execute_mission`."""

    session: Session
    client: GonogoClient
    options: ApprovalOptions
    terminal: Terminal

    async def __call__(self, mission: orchestrator_pb2.Mission, updates: Updates) -> Updates:
        """Return the stream to go on with.

        Raises:
            ClientError: it is left waiting; what the person wanted was refused.
        """
        if self.terminal.ask is None:
            show_waiting(self.session, mission)
            raise waiting_error(mission)
        self.session.output.note(pause_text(mission.pause, mission.mission_id))
        while True:
            word = self._asked(choices(mission.pause))
            if word == LEAVE:
                raise waiting_error(mission)
            try:
                return await self._done(word, mission, updates)
            except ClientError as error:  # declined, or refused: it waits as before, and the person chooses again
                self.session.output.note(f"{safe_block(error.message)} [{error.reason}]")

    def _asked(self, words: list[str]) -> str:
        ask = self.terminal.ask
        for _ in range(ASKED if ask is not None else 0):
            answer = ask(f"What now: {', '.join(words)}? [{LEAVE}] ").strip().lower() if ask is not None else ""
            if answer in {*words, ""}:
                return answer or LEAVE
        return LEAVE

    async def _done(self, word: str, mission: orchestrator_pb2.Mission, updates: Updates) -> Updates:
        session, client, mission_id, step_id = self.session, self.client, mission.mission_id, mission.pause.step_id
        match word:
            case "resume":
                await control_mission(client, mission, RESUME)
            case "retry":
                await control_mission(client, mission, RETRY)
            case "stop" | "roll-back":
                await client.control(mission_id, STOP, roll_back=word == "roll-back")
            case "approve":
                await approve_step(session, client, mission_id, step_id, self.options, self.terminal)
            case "deny":
                await deny_step(session, client, mission_id, step_id, self.options)
            case "happened" | "did-not":
                happened = word == "happened"
                await reconcile_step(session, client, mission_id, step_id, self.options, happened=happened)
            case _:
                return await self._repaired(mission)
        return updates

    async def _repaired(self, mission: orchestrator_pb2.Mission) -> Updates:
        """Have a repair proposed, shown and approved, and the execution go on with it."""
        repair = await fetch_repair(self.client, mission.mission_id, None, dry_run=True)
        self.session.output.note(safe_block(repair.explanation))
        verified = require_tried(repair)
        await approve_mission(self.session, self.client, verified, self.options, self.terminal)
        return self.client.execute(mission.mission_id)


def choices(pause: executor_pb2.Pause) -> list[str]:
    """Return the words for what can be asked of an execution that waits."""
    fitting = [word for action, words in WORDS.items() if action in pause.actions for word in words]
    if pause.repairable:
        fitting.insert(max(0, len(fitting) - len(WORDS[STOP])), "repair")
    return [*fitting, LEAVE]
