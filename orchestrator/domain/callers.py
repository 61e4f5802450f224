"""Who may call the orchestrator, and what for.

The table at the end is the only place that says which role a method asks for. A method without a row can not be
served: the wrappers around the handlers look their rows up when the handlers are defined, and a contract test compares
the table with the contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

RESERVED: Final = frozenset({"gonogo", "orchestrator", "executor", "deadline"})
"""Names under which the house itself acts."""
MAX_NAME: Final = 64


class Role(StrEnum):
    """What a caller may do. Roles do not imply each other, except that each implies viewing."""

    VIEW = "view"
    PROPOSE = "propose"
    OPERATE = "operate"
    ADMINISTER = "administer"


class Credential(StrEnum):
    """How a caller shows who it is."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - a kind, no password


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who may call the orchestrator; missions name their proposer by `name`."""

    name: str
    credential: Credential
    roles: frozenset[Role]
    added_at: datetime
    expires_at: datetime | None = None
    """From when on it is refused; None means never."""

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may call one method."""

    role: Role | None = None
    """The role that may call it for any mission; None where nobody may."""
    own: Role | None = None
    """The role that may call it for missions that the caller proposed."""


class Reach(StrEnum):
    """How far a caller gets with a method."""

    NOTHING = "nothing"
    OWN_MISSIONS = "own missions"
    EVERYTHING = "everything"


def reach(roles: frozenset[Role], access: Access) -> Reach:
    """Return how far somebody with these roles gets; without any role, nowhere."""
    if (access.role is Role.VIEW and roles) or access.role in roles:
        return Reach.EVERYTHING
    return Reach.OWN_MISSIONS if access.own in roles else Reach.NOTHING


def is_name(text: str) -> bool:
    """Tell whether a caller may be called so."""
    plain = all(character.isalnum() or character in "._@-" for character in text)
    return 0 < len(text) <= MAX_NAME and text.isascii() and plain and text not in RESERVED


_VIEW: Final = Access(role=Role.VIEW)
_PROPOSE: Final = Access(role=Role.PROPOSE)
_OPERATE: Final = Access(role=Role.OPERATE)
_OPERATE_OR_OWN: Final = Access(role=Role.OPERATE, own=Role.PROPOSE)
_OWN: Final = Access(own=Role.PROPOSE)
_ADMINISTER: Final = Access(role=Role.ADMINISTER)

ACCESS: Final[Mapping[str, Access]] = MappingProxyType(
    {
        # ChatService
        "SendMessage": _PROPOSE,
        "ListMessages": _VIEW,
        # MissionService
        "ProposeMission": _PROPOSE,
        "GetMission": _VIEW,
        "ListMissions": _VIEW,
        "DryRunMission": _OPERATE_OR_OWN,  # a fresh report voids the approvals of the old one
        "ApproveMission": _OPERATE,
        "RejectMission": _OPERATE_OR_OWN,
        "CancelMission": _OPERATE_OR_OWN,
        "ExecuteMission": _OPERATE,
        "WatchMission": _VIEW,
        "GetMissionObject": _VIEW,
        "GetMissionExecutor": _VIEW,
        "SignPlan": _OWN,
        "ExportMission": _VIEW,
        "ControlMission": _OPERATE,
        "RepairMission": _OPERATE,
        "RecordFeedback": _OPERATE,
        "GetQueue": _VIEW,
        "ListMissionProcesses": _VIEW,
        "StopMissionProcess": _OPERATE,
        # SignalService
        "GetSignals": _VIEW,
        # WhiteboardService
        "GetWhiteboard": _VIEW,
        # AuditService
        "GetLog": _VIEW,
        # CallerService
        "AddCaller": _ADMINISTER,
        "ListCallers": _ADMINISTER,
        "RemoveCaller": _ADMINISTER,
    }
)
"""Every method of every service of the orchestrator, by name."""
