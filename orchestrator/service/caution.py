"""What signals lead to: a notice for whoever approves, and, where the operator wants it, one approval more.

That is all they lead to. Caution can make a mission wait longer at the orchestrator's own door. It can not have one
approved, queued or handed over earlier than it would be without signals, and the executor, whose policy alone counts,
does not know of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.domain.mission import Mission
from orchestrator.domain.signals import Confidence
from orchestrator.service.mission_store import MissionStore
from orchestrator.service.signals import Signals

Enough: TypeAlias = Callable[[Mapping[str, str]], bool]
"""Whether approvals are enough, given the key of each person who approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """Judges plans by what outcomes taught."""

    signals: Signals
    store: MissionStore
    below: int = 0
    """A confidence below this, in hundredths of a percent, asks for one more approval; 0: signals ask for none.

    An operator who sets it makes sure that there are so many who can approve.
    """

    def stated(self, workspace_id: str, uses: Iterable[tuple[str, str]]) -> tuple[Confidence, str]:
        """Return what a dry run states of a plan, and a notice; empty where there is nothing to be careful about."""
        confidence = self.signals.confidence(workspace_id, uses)
        return confidence, self._notice(confidence)

    def judged(self, mission: Mission, enough: Enough) -> Enough:
        """Return how a mission's approvals are judged: as they would be, or one more is asked for."""
        return one_more(enough) if self._wants_more(mission) else enough

    def _wants_more(self, mission: Mission) -> bool:
        if not self.below:
            return False
        if mission.confidence_samples and mission.confidence < self.below:
            return True
        return self.signals.confidence(mission.workspace_id, self.store.planned(mission)).doubtful

    def _notice(self, confidence: Confidence) -> str:
        if confidence.doubtful:
            why = "something that it uses fails more often than it works"
        elif confidence.samples and confidence.stated < self.below:
            why = f"such plans succeed in {confidence.stated / 100:.0f} of 100 cases"
        else:
            return ""
        more = "; one approval more than the policy demands is asked for" if self.below else ""
        return f"caution: {why}, as far as its outcomes tell{more}"


def one_more(enough: Enough) -> Enough:
    """Return a judgement that holds where another one does, and would hold without one of the approvals, too."""

    def judged(signed: Mapping[str, str]) -> bool:
        return enough(signed) and any(
            enough({person: key for person, key in signed.items() if person != left_out}) for left_out in signed
        )

    return judged
