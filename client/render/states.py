"""A mission as it stood at one of its events, as the orchestrator's program tells it."""

from collections.abc import Mapping, Sequence
from typing import Any

from client.render.layout import fields, table

_STEP_COLUMNS = ("step_id", "kind", "stage", "status", "target")


def state_text(found: Mapping[str, Any]) -> str:
    """Return the event, the mission's status, ids, digests and outcome, its approvals, and its steps."""
    mission: Mapping[str, Any] = found["mission"]
    event = f"{found['sequence']} of {found['last_sequence']}: {found['event']} by {found['actor']}, {found['time']}"
    told = [(name, _plain(value)) for name, value in mission.items() if not isinstance(value, list | dict)]
    parts = [fields([("event", event), ("status", str(mission["status"])), *_without(told, "status")])]
    parts += [_listed(name, [value]) for name, value in mission.items() if isinstance(value, dict)]
    parts += [_listed(name, value) for name, value in mission.items() if isinstance(value, list)]
    if found["steps"]:
        rows = [tuple(str(step[name]) for name in _STEP_COLUMNS) for step in found["steps"]]
        parts.append(table(_STEP_COLUMNS, rows))
    return "\n\n".join(parts)


def replayed_text(found: Mapping[str, Any]) -> str:
    """Return how the state that the log gives compares with the one that is kept."""
    return fields((name.replace("_", " "), _plain(value)) for name, value in found.items())


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"


def _without(pairs: Sequence[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [pair for pair in pairs if pair[0] != name]


def _listed(name: str, items: Sequence[Mapping[str, Any]]) -> str:
    """Return what the mission has several of, one below the other."""
    lines = [fields((key, _plain(value)) for key, value in item.items()) for item in items]
    return "\n".join(f"{name}:\n{line}" for line in lines)
