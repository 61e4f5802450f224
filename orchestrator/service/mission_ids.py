"""Which mission a person means who writes the beginning of its id."""

from typing import Final

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.service.event_log import EventReader
from orchestrator.service.streams import MISSIONS

SHORTEST_BEGINNING: Final = 3


def id_that_begins(reader: EventReader, beginning: str) -> str:
    """Return the only mission's id that has such a beginning and goes on after it.

    Raises:
        RequestRefusedError: there is none, there are several, or so little is no beginning.
    """
    if len(beginning) < SHORTEST_BEGINNING or not beginning.isprintable():
        raise no_mission(beginning)
    rows = reader.projection_keys(MISSIONS, after_key=beginning, limit=2)
    found = [row.key for row in rows if row.key.startswith(beginning)]
    if not found:
        raise no_mission(beginning)
    if len(found) > 1:
        raise RequestRefusedError(
            Reason.NOT_FOUND, f"several missions begin with {beginning!r}", "Write more of the mission's id."
        )
    return found[0]


def no_mission(reference: str) -> RequestRefusedError:
    """Return the refusal for a mission that is not there."""
    return RequestRefusedError(
        Reason.NOT_FOUND, f"no mission {reference[:64]!r}", "List the missions with `gonogo list`."
    )
