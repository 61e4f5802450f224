"""A commit, its undoing and its recovery, cut at every call that changes something on the disk.

Each point is one call of a trace: the process is killed there, or the call fails as on a full or a dying disk. What
the workspace is then is looked at twice: before recovery, where it may be anything, and after it, where it must be
the old tree or the new one to the last bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from tests.faults.calls import KILL, Call
from tests.faults.crew import Figures, Result, crew
from tests.faults.scenarios import MIXED, NEW, OLD
from tests.faults.worker import Point

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("strace"), pytest.mark.timeout(600)]

WHOLE = {OLD, NEW}
# How many of the kills that left a mixture are followed by one at each call of the recovery, and by one that fails.
DOUBLY = 5
FAILING = 2
CONFLICTS = ("refused CommitConflictError", "not undone")


def kills(calls: Iterable[Call]) -> list[Point]:
    return [Point(faults=(call.fault(KILL),)) for call in calls]


def errors(calls: Iterable[Call]) -> list[Point]:
    return [Point(faults=(fault,)) for call in calls for fault in call.faults() if KILL not in fault]


def check_whole(results: Sequence[Result]) -> None:
    """Assert that every point was really cut, and that after recovery nothing is mixed and nothing lies about."""
    assert [str(one) for one in results if one.outcome.broken] == []
    assert [str(one) for one in results if not all(one.outcome.fired)] == []
    assert [str(one) for one in results if one.outcome.states[-1] not in WHOLE] == []
    assert [str(one) for one in results if one.outcome.leftovers] == []


def mixed_before(results: Iterable[Result]) -> list[Result]:
    return [one for one in results if one.outcome.states[0] == MIXED]


def test_a_commit_killed_anywhere_is_made_or_was_never_begun(user: int, table: list[Figures]) -> None:
    """Whichever call of a commit a process dies at, recovery leaves the old tree or the new one."""
    with crew("commit", user, table) as workers:
        results = workers.play(kills(workers.list_calls()), "commit, killed")
    check_whole(results)
    assert len(mixed_before(results)) > 5


def test_a_commit_on_a_failing_disk_undoes_itself(user: int, table: list[Figures]) -> None:
    """Whichever call fails, the commit has either made everything or says that it has changed nothing, and has not."""
    with crew("commit", user, table) as workers:
        results = workers.play(errors(workers.list_calls()), "commit, call fails")
    check_whole(results)
    told = {"applied": NEW, "refused": OLD}
    wrong = [str(one) for one in results if one.outcome.states[0] != told[one.outcome.said[0].split()[0]]]
    assert wrong == []
    assert {one.outcome.states[0] for one in results} >= {OLD}


def test_an_undo_killed_anywhere_is_made_to_its_end(user: int, table: list[Figures]) -> None:
    """Whichever call of an undo a process dies at, recovery brings back every old bit and every old inode."""
    with crew("undo", user, table) as workers:
        results = workers.play(kills(workers.list_calls()), "undo, killed")
    check_whole(results)
    assert {one.outcome.states[-1] for one in results} == {OLD}
    assert len(mixed_before(results)) > 5


def test_an_undo_on_a_failing_disk_says_so_and_can_be_made_again(user: int, table: list[Figures]) -> None:
    """Whichever call fails, the undo says what it could not restore, and the next one restores it."""
    with crew("undo", user, table) as workers:
        results = workers.play(errors(workers.list_calls()), "undo, call fails")
    check_whole(results)
    silent = [one for one in results if one.outcome.said[0] == "undone" and one.outcome.states[0] != OLD]
    assert [str(one) for one in silent] == []


@pytest.mark.parametrize("scenario", ["commit", "undo"])
def test_a_disk_that_goes_on_failing_is_made_good_at_the_next_start(
    scenario: str, user: int, table: list[Figures]
) -> None:
    """From any call on every call of that name fails: what could not be undone then is undone once the disk works."""
    with crew(scenario, user, table) as workers:
        points = [Point(faults=(f"{call.fault('error=EIO')}+",)) for call in workers.list_calls()]
        results = workers.play(points, f"{scenario}, calls go on failing")
    check_whole(results)
    assert len(mixed_before(results)) > 5
    silent = [one for one in mixed_before(results) if not one.outcome.said[0].startswith(CONFLICTS)]
    assert [str(one) for one in silent] == []


def test_recovery_killed_anywhere_is_made_to_its_end(user: int, table: list[Figures]) -> None:
    """Killed in the commit and again at any call of the recovery, the next recovery still leaves one whole tree."""
    with crew("commit", user, table) as workers:
        renames = kills(call for call in workers.list_calls() if call.name == "renameat2")
        first = workers.play([replace(point, list_next=True) for point in renames])
        again = [
            Point(faults=(*one.point.faults, call.fault(KILL)))
            for one in spread(first, DOUBLY)
            for call in one.outcome.calls
        ]
        results = workers.play(again, "commit killed, recovery killed")
        failing = [
            Point(faults=(*one.point.faults, fault))
            for one in spread(first, FAILING)
            for call in one.outcome.calls
            for fault in call.faults()
            if KILL not in fault
        ]
        failed = workers.play(failing, "commit killed, call of recovery fails")
    check_whole(results)
    check_whole(failed)
    assert sum(one.outcome.states[1] == MIXED for one in results) > 5


def spread(results: Sequence[Result], count: int) -> list[Result]:
    """Return some of those that were mixed, from all over."""
    found = mixed_before(results)
    return found[:: max(1, len(found) // count)][:count]
