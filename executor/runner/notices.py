"""What a report says besides: nothing that keeps it from success, but what whoever decides should know."""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from executor.domain.report import CommandEvidence, Notice, StepReport, TestEvidence
from executor.workspace.manifest import Manifest
from gonogo.safe_text import shown_path

NAMED_PATHS = 20


def output_notices(steps: Iterable[StepReport]) -> Iterator[Notice]:
    """Yield a notice for each stream of which the report shows the beginning and the end only."""
    for step in steps:
        evidence = step.evidence.command if isinstance(step.evidence, TestEvidence) else step.evidence
        if not isinstance(evidence, CommandEvidence):
            continue
        for name, excerpt in (("stdout", evidence.stdout), ("stderr", evidence.stderr)):
            if excerpt.truncated:
                message = f"{step.step_id}: of {excerpt.total_bytes} bytes of {name} only beginning and end are shown"
                yield Notice(kind="output_cut", path="", message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIds:
    """The users and groups that a sandbox knows; files of others its commands can not change."""

    users: frozenset[int]
    groups: frozenset[int]

    @classmethod
    def of_this_process(cls) -> Self | None:
        """Return an ordinary user's own two, or None for root, whose sandboxes know all."""
        if os.geteuid() == 0:
            return None
        return cls(users=frozenset({os.geteuid()}), groups=frozenset({os.getegid()}))


def sandbox_notices(manifest: Manifest | None, known: KnownIds | None) -> Iterator[Notice]:
    """Yield what the commands of a plan did not see, or could not change, of the workspace as it is.

    Args:
        manifest: of the workspace, where a command ran at all.
        known: the users and groups that the sandbox knows; None for all.
    """
    if manifest is None:
        return
    why = "commands do not see it: the executor's policy calls it volatile"
    yield from _named("volatile_hidden", sorted(manifest.volatile), why)
    if known is not None:
        foreign = sorted(manifest.owned_by_others(known.users, known.groups))
        why = "belongs to a user or group that the sandbox does not know: no command can change it"
        yield from _named("foreign_owner", foreign, why)


def _named(kind: str, paths: Collection[bytes], message: str) -> Iterator[Notice]:
    """Name the first paths, and say how many more there are."""
    for path in list(paths)[:NAMED_PATHS]:
        yield Notice(kind=kind, path=shown_path(path), message=message)
    if len(paths) > NAMED_PATHS:
        yield Notice(kind=kind, path="", message=f"and {len(paths) - NAMED_PATHS} more: {message}")
