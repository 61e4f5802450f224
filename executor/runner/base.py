"""What a report stands on: the part of the workspace that must still be the same when the mission is executed.

The base is read back from the sealed report alone, so that the drift check needs nothing that the executor remembers:
the former state of every path that a step touches, what reading steps found before any step touched it, and, where
commands ran, the manifest of the tree that they could read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.domain.changes import Node, States, net_states, states_fingerprint, touched
from executor.domain.plan import ListDirectory, Plan, ReadFile, SearchFiles, Step
from executor.domain.report import ListEvidence, ReadEvidence, SearchEvidence, StepReport
from executor.workspace.paths import ROOT, ancestors, relative
from gonogo.digests import framed_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Everything a report was made from."""

    states: States
    """Touched and read paths."""
    listings: tuple[tuple[Step, ListEvidence], ...]
    """Listings that no earlier step of the plan had a part in."""
    searches: tuple[tuple[Step, SearchEvidence], ...]
    """Searches that no earlier step of the plan had a part in."""


def base_of(plan: Plan, reports: Sequence[StepReport]) -> Base:
    """Read the base back from a plan and what its dry run found."""
    states: dict[bytes, Node | None] = {}
    listings: list[tuple[Step, ListEvidence]] = []
    searches: list[tuple[Step, SearchEvidence]] = []
    seen: set[bytes] = set()
    above: set[bytes] = set()  # what was seen, and the directories that hold it
    for step, report in zip(plan.steps, reports, strict=False):
        match step.action, report.evidence:
            case ReadFile(path=path), ReadEvidence(node=node) if relative(path) not in seen:
                states[relative(path)] = node
            case ListDirectory(path=path), ListEvidence() as listing if relative(path) not in above:
                listings.append((step, listing))
            case SearchFiles(path=path), SearchEvidence() as search if relative(path) not in above:
                searches.append((step, search))
            case _:
                pass  # an edit, a command or a test run: its change set tells
        for changed in touched(report.changes):
            seen.add(changed)
            above.update((changed, *ancestors(changed), ROOT))
    before, _ = net_states([report.changes for report in reports])
    return Base(states={**states, **before}, listings=tuple(listings), searches=tuple(searches))


def base_fingerprint(plan: Plan, reports: Sequence[StepReport], manifest_digest: str) -> str:
    """Return the fingerprint of everything a report was made from."""
    base = base_of(plan, reports)
    found = [listing.digest for _, listing in base.listings] + [search.digest for _, search in base.searches]
    parts = [states_fingerprint(base.states), *found, manifest_digest]
    return framed_digest(part.encode() for part in parts)
