"""What persons think of a mission's result."""

from dataclasses import dataclass

from orchestrator.domain.decisions import decide_feedback
from orchestrator.domain.events import Rating
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.requests import Answer, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedbacks:
    """Takes feedback, at any time of a mission's life and as often as somebody gives it."""

    store: MissionStore

    async def record(self, request: Request, reference: str, rating: Rating | None, text: str) -> Answer:
        """Record what somebody thinks; a rating counts for every step kind and tool of the mission's plan.

        Raises:
            RequestRefusedError: there is no such mission, or the words can not be kept.
        """
        mission_id = self.store.find(reference).mission_id
        payloads = decide_feedback(rating, text)
        return await self.store.act(mission_id, request, lambda _mission: Decision(payloads=payloads))
