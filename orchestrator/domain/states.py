"""The diagram of a mission's life, drawn from the table that rules it."""

from collections.abc import Iterator

from orchestrator.domain.mission import ENDED, TRANSITIONS, MissionStatus


def states_diagram() -> str:
    """Return the transition table as a Mermaid state diagram."""
    return "\n".join(("stateDiagram-v2", *_arrows(), *_ends()))


def _arrows() -> Iterator[str]:
    for (status, event_type), following in TRANSITIONS.items():
        if status is not following:
            yield f"    {status.value if status else '[*]'} --> {following.value}: {event_type}"


def _ends() -> Iterator[str]:
    for status in MissionStatus:
        if status in ENDED:
            yield f"    {status.value} --> [*]"


def states_page() -> str:
    """Return the page of the documentation that shows the diagram and what leaves a status as it is."""
    staying: dict[str, list[str]] = {}
    for (status, event_type), following in TRANSITIONS.items():
        if status is following:
            staying.setdefault(event_type, []).append(following.value)
    rows = "\n".join(f"| `{name}` | {', '.join(statuses)} |" for name, statuses in sorted(staying.items()))
    return (
        "# Mission states\n\n"
        "Made by `python -m orchestrator states` from the transition table in `orchestrator/domain/mission.py`.\n\n"
        f"```mermaid\n{states_diagram()}\n```\n\n"
        "Events that leave the status as it is:\n\n"
        f"| event | in |\n|---|---|\n{rows}\n"
    )
