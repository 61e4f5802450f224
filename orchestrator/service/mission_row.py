"""Where a mission stands, as a row of the projection: canonical JSON of the state, and back.

The row is a function of the state alone and the state one of the events, so that folding the log again gives the
very same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from orchestrator.domain.errors import ContractError, Reason
from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel
from orchestrator.domain.mission import GrantedApproval, Mission, MissionStatus
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.streams import MISSIONS

_TIMES: Final = frozenset({"created_at", "updated_at", "approved_until", "queued_at", "expires_at", "granted_at"})
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {
    "status": MissionStatus,
    "report_status": ReportStatus,
    "report_risk": RiskLevel,
    "outcome": Outcome,
}
_MISSION_FIELDS: Final = tuple(field.name for field in fields(Mission))
_APPROVAL_FIELDS: Final = tuple(field.name for field in fields(GrantedApproval))
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def mission_row(mission: Mission) -> ProjectionRow:
    """Return the row that stands for a mission; rows sort by the time of the proposal, then by id."""
    return ProjectionRow(
        name=MISSIONS,
        key=mission.mission_id,
        status=mission.status.value,
        sort_key=f"{mission.created_at.isoformat(timespec='microseconds')} {mission.mission_id}",
        data=_encode(_written(mission, _MISSION_FIELDS)),
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


def _written(value: Mission | GrantedApproval, names: tuple[str, ...]) -> dict[str, Any]:
    pairs = ((name, getattr(value, name)) for name in names)
    return {name: _plain(item) for name, item in pairs if item not in (None, "", ())}


def _plain(item: Any) -> Any:
    if isinstance(item, datetime):
        return item.isoformat(timespec="microseconds")
    if isinstance(item, tuple):
        return [_written(granted, _APPROVAL_FIELDS) for granted in item]
    return item.value if isinstance(item, StrEnum) else item


def _read(written: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(name, item) for name, item in written.items()}


def _value(name: str, item: Any) -> Any:
    if name in _TIMES:
        return datetime.fromisoformat(item)
    if name in _ENUMS:
        return _ENUMS[name](item)
    if name == "approvals":
        return tuple(GrantedApproval(**_read(granted)) for granted in item)
    return item
