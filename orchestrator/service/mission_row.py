"""Where a mission stands, as a row of the projection: canonical JSON of the state, and back.

The row is a function of the state alone and the state one of the events, so that folding the log again gives the
very same bytes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

from orchestrator.domain.control import Pause
from orchestrator.domain.errors import ContractError, Reason
from orchestrator.domain.events import ControlAction, PauseKind
from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel
from orchestrator.domain.mission import GrantedApproval, Mission, MissionStatus, PlanSignature, Segment
from orchestrator.domain.plan import PauseDefault
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.streams import MISSIONS

_TIMES: Final = frozenset(
    {
        *("created_at", "updated_at", "approved_until", "queued_at", "not_before", "queue_expires_at"),
        *("expires_at", "granted_at", "deadline"),
    }
)
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {
    "status": MissionStatus,
    "report_status": ReportStatus,
    "report_risk": RiskLevel,
    "outcome": Outcome,
    "kind": PauseKind,
    "default_action": PauseDefault,
}
_ZEROS: Final = frozenset({"steps_count", "last_sequence", "executor_events", "repairable"})
"""What is written when it is nothing, too. Other zeros are left out, as rows of older releases do not have them."""
# In the order in which canonical JSON has them, so that nothing needs to be sorted for every row.
_MISSION_FIELDS: Final = tuple(sorted(field.name for field in fields(Mission)))
_APPROVAL_FIELDS: Final = tuple(sorted(field.name for field in fields(GrantedApproval)))
_SIGNATURE_FIELDS: Final = tuple(sorted(field.name for field in fields(PlanSignature)))
_PAUSE_FIELDS: Final = tuple(sorted(field.name for field in fields(Pause)))
_mission_values = attrgetter(*_MISSION_FIELDS)
_approval_values = attrgetter(*_APPROVAL_FIELDS)
_signature_values = attrgetter(*_SIGNATURE_FIELDS)
_pause_values = attrgetter(*_PAUSE_FIELDS)
_SEGMENT_FIELDS: Final = tuple(sorted(field.name for field in fields(Segment)))
_segment_values = attrgetter(*_SEGMENT_FIELDS)


def _written_value(value: object) -> object:
    """Return what stands for a value that JSON does not know; enums are texts and need nothing."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, GrantedApproval):
        return _written(_APPROVAL_FIELDS, _approval_values(value))
    if isinstance(value, PlanSignature):
        return _written(_SIGNATURE_FIELDS, _signature_values(value))
    if isinstance(value, Pause):
        return _written(_PAUSE_FIELDS, _pause_values(value))
    if isinstance(value, Segment):
        return _written(_SEGMENT_FIELDS, _segment_values(value))
    raise TypeError(f"no way to write {type(value).__name__}")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_written_value).encode


def mission_row(mission: Mission) -> ProjectionRow:
    """Return the row that stands for a mission; rows sort by the time of the proposal, then by id."""
    return ProjectionRow(
        name=MISSIONS,
        key=mission.mission_id,
        status=mission.status.value,
        sort_key=f"{mission.created_at.isoformat(timespec='microseconds')} {mission.mission_id}",
        data=_encode(_written(_MISSION_FIELDS, _mission_values(mission))),
        just_encoded=True,
    )


def mission_of_row(row: ProjectionRow) -> Mission:
    """Return the mission that a row stands for.

    Raises:
        ContractError: the row is not one that `mission_row` wrote.
    """
    try:
        return Mission(**_read(json.loads(row.data)))
    except (ValueError, TypeError) as error:
        raise ContractError(
            Reason.INTERNAL, f"the row of mission {row.key} can not be read: {error}", "Run `gonogo replay`."
        ) from error


def _written(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    return {name: item for name, item in zip(names, values, strict=True) if item or name in _ZEROS}


def _read(written: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(name, item) for name, item in written.items()}


def _value(name: str, item: Any) -> Any:
    if name in _TIMES:
        return datetime.fromisoformat(item)
    if name in _ENUMS:
        return _ENUMS[name](item)
    nested = _NESTED.get(name)
    return item if nested is None else nested(item)


_NESTED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "approvals": lambda items: tuple(GrantedApproval(**_read(granted)) for granted in items),
    "plan_signatures": lambda items: tuple(PlanSignature(**_read(signed)) for signed in items),
    "earlier": lambda items: tuple(Segment(**({"segment": 0} | _read(segment))) for segment in items),
    "pause": lambda item: Pause(**_read(item)),
    "actions": lambda items: tuple(ControlAction(action) for action in items),
}
"""What rows hold of other classes, by the names of the fields."""
