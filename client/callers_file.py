"""The orchestrator's list of callers, as this side writes its beginning and looks at it: `orchestrator/callers.json`.

The orchestrator itself reads it strictly and keeps it; here are the first caller, who can add all others, and what the
doctor says.
"""

import json
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROLES = ("view", "propose", "operate", "administer")
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
RESERVED = frozenset({"gonogo", "orchestrator", "executor", "deadline"})
WRITTEN_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
SOON = timedelta(days=14)
START_AGAIN = "move it away and write a new one with gonogo caller init, then add the others again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found: ``ok``, ``warn`` or ``fail``, what it is and what to do."""

    level: str
    detail: str
    remedy: str = ""


def is_caller_name(text: str) -> bool:
    """Tell whether the orchestrator lets a caller be called so."""
    return NAME.fullmatch(text) is not None and text not in RESERVED


def first_callers(name: str, now: datetime | None = None) -> bytes:
    """Return a list with one caller, who shows a certificate and has every role."""
    added = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    caller = {"name": name, "credential": "certificate", "roles": list(ROLES), "added_at": added}
    return (json.dumps({"version": 1, "callers": [caller]}, indent=2) + "\n").encode()


def look_at(path: Path, now: datetime | None = None) -> Iterator[Seen]:
    """Tell what would keep callers from being served, or soon will."""
    try:
        mode = path.stat().st_mode
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        yield Seen(level="fail", detail="missing: nobody is served", remedy="gonogo caller init")
        return
    except (OSError, ValueError, RecursionError) as error:
        yield Seen(level="fail", detail=f"can not be read, nobody is served: {error}", remedy=START_AGAIN)
        return
    if mode & WRITTEN_BY_OTHERS:
        detail = f"mode {stat.S_IMODE(mode):04o}: others may write it, nobody is served"
        yield Seen(level="fail", detail=detail, remedy=f"chmod 600 {path}")
    callers = found.get("callers") if isinstance(found, dict) else None
    if not isinstance(callers, list) or not all(_is_caller(caller) for caller in callers):
        yield Seen(level="fail", detail="is not a list of callers, nobody is served", remedy=START_AGAIN)
        return
    yield from _standing(callers, now or datetime.now(UTC))


def _is_caller(caller: object) -> bool:
    return isinstance(caller, dict) and isinstance(caller.get("name"), str) and _roles_of(caller) is not None


def _roles_of(caller: Mapping[str, Any]) -> Sequence[str] | None:
    roles = caller.get("roles")
    return roles if isinstance(roles, list) and roles and all(role in ROLES for role in roles) else None


def _standing(callers: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[Seen]:
    expired = [str(caller["name"]) for caller in callers if _ends_before(caller, now)]
    soon = [str(caller["name"]) for caller in callers if _ends_before(caller, now + SOON)]
    administering = [caller for caller in callers if "administer" in caller["roles"] and not _ends_before(caller, now)]
    if not administering:
        yield Seen(level="warn", detail="nobody may administer: no caller can be added or removed", remedy=START_AGAIN)
    if soon:
        detail = (
            f"expired: {', '.join(expired) or 'none'}; soon to expire: {', '.join(sorted(set(soon) - set(expired)))}"
        )
        remedy = "gonogo caller remove NAME, then gonogo caller add NAME again"
        yield Seen(level="warn", detail=detail.removesuffix("; soon to expire: "), remedy=remedy)
    yield Seen(level="ok", detail=f"{len(callers)} callers")


def _ends_before(caller: Mapping[str, Any], moment: datetime) -> bool:
    """Tell whether a caller has expired by then; a time that can not be read has passed."""
    if "expires_at" not in caller:
        return False
    try:
        return datetime.fromisoformat(str(caller["expires_at"])) <= moment
    except (ValueError, TypeError):
        return True
