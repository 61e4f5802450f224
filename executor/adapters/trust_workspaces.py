"""The trust file's tables of workspaces: their labels, and what programs that run for real may reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from executor.adapters.trust_tables import Table, TrustFileError, choices, identifier, listed
from executor.domain.plan import LiveAccess

ACCESSES: Final = tuple(access.value for access in LiveAccess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspaces:
    """What the tables say, by workspace; only of those that say it."""

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    live_access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_workspaces(place: str, value: object) -> Workspaces:
    """Read the tables. A workspace whose table gives no labels may have any, like one without a table."""
    labels: dict[str, tuple[str, ...]] = {}
    live_access: dict[str, tuple[str, ...]] = {}

    def workspace(place: str, value: object) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        table = Table(place, value)
        found = table.take_or("labels", listed(identifier), None), table.take_or("live_access", choices(ACCESSES), ())
        table.check_empty()
        if not value:
            raise TrustFileError(f"{place} says nothing", "write labels or live_access, or leave the table out")
        if found[0] is not None and len(set(found[0])) != len(found[0]):
            raise TrustFileError(f"labels in {place} names a label twice", "name each once")
        return found

    for name, (some_labels, access) in Table(place, value).take_all(workspace).items():
        identifier(f"the name of a workspace in {place}", name)
        if some_labels is not None:
            labels[name] = some_labels
        if access:
            live_access[name] = access
    return Workspaces(labels=labels, live_access=live_access)
