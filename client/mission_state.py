"""Where a mission stands, as a proof compares it: what a service says, what a file says, what the events come to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from client.json_form import to_json
from gonogo.v1 import orchestrator_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionState:
    """What the orchestrator says of a mission. Enums are short names, times RFC 3339, nothing is empty text."""

    mission_id: str = ""
    status: str = ""
    objective: str = ""
    workspace_id: str = ""
    executor_id: str = ""
    plan_id: str = ""
    plan_digest: str = ""
    report_id: str = ""
    report_digest: str = ""
    report_status: str = ""
    execution_id: str = ""
    receipt_id: str = ""
    outcome: str = ""
    proposer: str = ""
    created_at: str = ""
    updated_at: str = ""
    last_sequence: int = 0
    cloned_from: str = ""
    session_id: str = ""
    message_id: str = ""
    intent_id: str = ""
    transcription_id: str = ""
    segment: int = 0
    """The segment of the execution that the present plan is for."""

    def as_json(self) -> dict[str, Any]:
        """Return the state as a file holds it."""
        return asdict(self)


NAMES = tuple(field.name for field in fields(MissionState))
NUMBERS = frozenset({"last_sequence", "segment"})
LATER_NAMES = frozenset({"segment"})
"""Names that files of an older release do not have."""


def state_of(mission: orchestrator_pb2.Mission) -> MissionState:
    """Return what the orchestrator says of a mission."""
    return state_shown(to_json(mission))


def state_shown(data: Mapping[str, Any]) -> MissionState:
    """Read a state as the command line shows it: null stands for nothing, and so does what an older release left out.

    Raises:
        KeyError: a name is missing.
        TypeError: a value is no text, or the sequence no number.
    """
    said = dict.fromkeys(LATER_NAMES) | dict(data)
    return state_from_json({name: _nothing(name) if said[name] is None else said[name] for name in NAMES})


def state_from_json(data: Mapping[str, Any]) -> MissionState:
    """Read a state as a file holds it: nothing is left out, and nothing is null.

    Raises:
        KeyError: a name is missing.
        TypeError: a value is no text, or the sequence no number.
    """
    values = {name: data[name] for name in NAMES}
    for name, value in values.items():
        if type(value) is not type(_nothing(name)):
            message = f"{name} is a {type(value).__name__}"
            raise TypeError(message)
    return MissionState(**values)


def _nothing(name: str) -> Any:
    return 0 if name in NUMBERS else ""
