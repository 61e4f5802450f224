"""All commands, all faults, in any order, on both services at once: what must never happen, does not.

The rules are what people, strangers, far sides and the machine can do (`control_crowd` does it); `control_judge` says
after each what must hold. A run ends by driving every mission to its end. What differs between two runs of the same
choices is how threads happen to take turns; so nothing that can be drawn hangs on anything but what was drawn.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from orchestrator.domain.events import ControlAction, Rating
from orchestrator.domain.mission import WAITING, MissionStatus
from orchestrator.domain.plan import FailurePolicy, PauseDefault
from tests.fakes.mortal_pair import Pair, quick_lives
from tests.property.bounds import bounded
from tests.property.control_crowd import Crowd, Recipe
from tests.property.control_judge import Judge

pytestmark = pytest.mark.timeout(1800)

EXAMPLES: Final = 120
STEP_COUNT: Final = 25
MOST_MISSIONS: Final = 6
PATHS: Final = ("a.txt", "b.txt", "c.txt")
WORDS: Final = (*("D",) * 8, "ND", "N", "FD", "U", "V", "VD", "UD", "X", "HD", "I", "VVD", "NNU")
EDIT: Final = st.tuples(
    st.sampled_from(("write", "write", "write", "append", "delete", "read")), st.sampled_from(PATHS)
)
LIVE: Final = st.tuples(st.just("live"), st.sampled_from(WORDS), st.sampled_from((None, None, "D", "D", "N", "U")))
STEP: Final = st.tuples(st.one_of(EDIT, EDIT, EDIT, LIVE), st.sampled_from((False,) * 6 + (True,)))
STEPS: Final = st.lists(STEP, min_size=1, max_size=4)
EDITS_AND_READ: Final = ("append", "read", "append")
POLICY: Final = st.sampled_from((*FailurePolicy, FailurePolicy.PAUSE, FailurePolicy.PAUSE))
PICK: Final = st.integers(0, MOST_MISSIONS - 1)
DOOM: Final = st.tuples(st.integers(1, 6), st.booleans())
"""At which of its acts a life ends, and whether when that is done already."""
DOOMS: Final = st.lists(DOOM, max_size=2)
WAITS: Final[dict[str, Recipe]] = {
    "failure": (("live", "ND", "D"), False),
    "step_approval": (("write", "c.txt"), True),
    "unknown_effect": (("live", "UD", "D"), False),
    "requested": (("live", "HD", "D"), False),
}
"""A step for each kind of wait, and what leads there."""
WAYS: Final = ("go_on", "deny", "stop", "roll_back", "repair", "deadline", "revoke", "die")
PEOPLE: Final = st.sampled_from(("owner", "owner", "second"))
PLACES: Final = (
    *("deaths", "hanging", "repaired", "undone", "paused: failure", "paused: step_approval", "paused: unknown_effect"),
    *("paused: requested", "paused: interrupted", "paused: revoked", "EFFECT_STATE_COMPENSATED"),
    *("outcome: success", "outcome: partial", "outcome: rolled_back", "outcome: aborted"),
)
"""Where the judge must have been: one that nothing ever happened before would find nothing."""
OFTEN: Final = ("deaths", "paused: failure", "paused: step_approval", "paused: unknown_effect", "outcome: success")
"""Where every full run comes by chance."""
REACHED: Counter[str] = Counter()


class ControlMachine(RuleBasedStateMachine):
    """Both services, and everybody around them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gonogo-control-"))
        self.closing = ExitStack()
        self.closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.closing.enter_context(quick_lives(lambda: self.pair))
        logging.disable(logging.CRITICAL)  # what dies tells of it, and that is no news
        self.closing.callback(logging.disable, logging.NOTSET)
        self.runner = self.closing.enter_context(asyncio.Runner())
        self.pair = Pair(self.folder)
        self.judge = Judge(self.pair)
        self.crowd = Crowd(self.pair, self.judge)

    @initialize(steps=STEPS, more=STEPS)
    def begin(self, steps: list[Recipe], more: list[Recipe]) -> None:
        """Both services begin on some files, and somebody sends a first mission, and queues a second."""
        self.open()
        self.do(self.crowd.sent(steps, FailurePolicy.PAUSE, PauseDefault.ROLL_BACK, None))
        self.do(self.crowd.sent(more, FailurePolicy.PAUSE, PauseDefault.STOP, 0))

    def open(self) -> None:
        """Both services begin on some files."""
        self.runner.run(self.pair.open())
        for path in PATHS:
            self.do(self.crowd.strange(path, self.crowd.content()))

    def teardown(self) -> None:
        """Everything comes to its end, and all holds then."""
        try:
            if self.pair.opened:
                self.do(self.crowd.to_the_end())
                self.runner.run(self.pair.close())
            REACHED.update(self.judge.reached + self.crowd.refusals)
            REACHED["deaths"] += self.pair.deaths
            REACHED["deaths at a start"] += self.pair.house.stillborn
            REACHED["writes without room"] += self.pair.refused + self.pair.house.life.refused
        finally:
            self.closing.close()

    # What people do

    @rule(steps=STEPS, policy=POLICY, default=st.sampled_from(PauseDefault))
    def propose(self, steps: list[Recipe], policy: FailurePolicy, default: PauseDefault) -> None:
        """Somebody proposes a mission."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            self.do(self.crowd.proposed(steps, policy, default))

    @rule(steps=STEPS, policy=POLICY, default=st.sampled_from(PauseDefault), clear=st.booleans())
    def send(self, steps: list[Recipe], policy: FailurePolicy, default: PauseDefault, clear: bool) -> None:
        """Somebody takes a mission from its proposal to the executor, perhaps once nothing is in its way."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            self.do(self.crowd.sent(steps, policy, default, None, clear=clear))

    @rule(steps=STEPS, policy=POLICY, default=st.sampled_from(PauseDefault), priority=st.integers(-2, 2))
    def send_queued(self, steps: list[Recipe], policy: FailurePolicy, default: PauseDefault, priority: int) -> None:
        """Somebody takes a mission from its proposal into the queue."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            self.do(self.crowd.sent(steps, policy, default, priority))

    @rule(steps=STEPS, policy=POLICY, acts=st.integers(3, 12), late=st.booleans(), again=DOOMS)
    def send_and_die(
        self, steps: list[Recipe], policy: FailurePolicy, acts: int, late: bool, again: Sequence[tuple[int, bool]] = ()
    ) -> None:
        """The executor dies under a mission that nothing is in the way of, and perhaps while it finds out of that."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            self.do(self.crowd.cleared())
            self.pair.house.dooms += again
            self.doom(acts=acts, late=late)
            self.do(self.crowd.sent(steps, policy, PauseDefault.STOP, None))

    @rule(pick=PICK)
    def dry_run(self, pick: int) -> None:
        """Somebody has a plan dry-run, perhaps once more."""
        for mission in self.crowd.one(pick, self.crowd.standing(MissionStatus.PROPOSED, MissionStatus.PAUSED)):
            self.do(self.crowd.refusable(self.pair.use.dry_runs.dry_run(self.pair.asked(), mission.mission_id)))

    @rule(pick=PICK, by=PEOPLE, deny=st.sampled_from((False,) * 7 + (True,)))
    def approve(self, pick: int, by: str, deny: bool) -> None:
        """Somebody approves a report, or denies it for good."""
        for mission in self.crowd.one(pick, self.crowd.to_approve()):
            self.do(self.crowd.approved(mission, by, deny=deny))

    @rule(pick=PICK)
    def execute(self, pick: int) -> None:
        """Somebody has what is approved executed, a repair plan too."""
        for mission in self.crowd.one(pick, self.crowd.to_execute()):
            self.do(self.crowd.executed(mission.mission_id))

    @rule(pick=PICK, priority=st.integers(-2, 2))
    def queue(self, pick: int, priority: int) -> None:
        """Somebody puts a mission into the queue."""
        for mission in self.crowd.one(pick, self.crowd.standing(MissionStatus.APPROVED)):
            self.do(self.crowd.queued(mission.mission_id, priority))

    @rule(pick=PICK, action=st.sampled_from(ControlAction), roll_back=st.booleans(), times=st.integers(1, 2))
    def control(self, pick: int, action: ControlAction, roll_back: bool, times: int) -> None:
        """Somebody wants something of any mission, whether that fits or not, perhaps with the same request twice."""
        for mission in self.crowd.one(pick, self.crowd.standing(*MissionStatus)):
            self.do(self.crowd.controlled(mission, action, roll_back=roll_back, times=times))

    @rule(pick=PICK, way=st.integers(0, 9))
    def decide_too(self, pick: int, way: int) -> None:
        """Somebody else decides."""
        self.decide(pick, way)

    @rule(pick=PICK, way=st.integers(0, 9))
    def decide(self, pick: int, way: int) -> None:
        """Somebody decides what a paused mission waits for, with one of the actions that fit."""
        for mission in self.crowd.one(pick, self.crowd.standing(MissionStatus.PAUSED)):
            actions = mission.pause.actions if mission.pause is not None else ()
            if actions:
                action = actions[way % len(actions)]
                self.do(self.crowd.controlled(mission, action, roll_back=way > 6))

    @rule(pick=PICK, steps=STEPS, policy=POLICY, reach=st.sampled_from((3, 3, 3, 3, 2, 1)))
    def repair(self, pick: int, steps: list[Recipe], policy: FailurePolicy, reach: int) -> None:
        """Somebody plans a repair, and perhaps has it approved, and taken."""
        for mission in self.crowd.one(pick, self.crowd.repairable()):
            self.do(self.crowd.repaired(mission.mission_id, steps, policy, reach))

    @rule(pick=PICK, by=PEOPLE)
    def revoke(self, pick: int, by: str) -> None:
        """Somebody takes an approval back."""
        for mission in self.crowd.one(pick, self.crowd.standing(*WAITING, MissionStatus.ACTIVE, MissionStatus.PAUSED)):
            self.do(self.crowd.revoked(mission.mission_id, by))

    @rule(pick=PICK)
    def revoke_and_go_on(self, pick: int) -> None:
        """Somebody takes back what a mission stands on that waits, and somebody else wants it to go on."""
        waiting = self.crowd.standing(MissionStatus.PAUSED)
        wanted = {ControlAction.RESUME, ControlAction.RETRY}
        for mission in self.crowd.one(pick, [one for one in waiting if one.pause and wanted & set(one.pause.actions)]):
            self.do(self.crowd.revoked(mission.mission_id, "owner"))
            action = next(one for one in mission.pause.actions if one in wanted) if mission.pause else None
            if action is not None:
                self.do(self.crowd.controlled(self.crowd.state(mission.mission_id), action, roll_back=False))

    @rule(pick=PICK, steps=STEPS, policy=POLICY)
    def repair_at_once(self, pick: int, steps: list[Recipe], policy: FailurePolicy) -> None:
        """Somebody has a repair planned, approved and taken."""
        self.repair(pick=pick, steps=steps, policy=policy, reach=3)

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """Somebody gives a mission up."""
        for mission in self.crowd.one(pick, self.crowd.standing(*MissionStatus)):
            cancel = self.pair.use.executions.cancel
            self.do(self.crowd.refusable(cancel(self.pair.asked(), mission.mission_id, "not needed")))

    @rule(pick=PICK, rating=st.sampled_from(Rating))
    def feedback(self, pick: int, rating: Rating) -> None:
        """Somebody says what they think of a mission."""
        for mission in self.crowd.one(pick, self.crowd.standing(*MissionStatus)):
            record = self.pair.use.feedbacks.record
            self.do(self.crowd.refusable(record(self.pair.asked(), mission.mission_id, rating, "")))

    # What the world does

    @rule(path=st.sampled_from(PATHS), gone=st.booleans())
    def stranger(self, path: str, gone: bool) -> None:
        """Somebody else changes a file of the workspace."""
        self.do(self.crowd.strange(path, None if gone else self.crowd.content()))

    @rule(seconds=st.sampled_from((50, 350, 700, 5000)))
    def pass_time(self, seconds: int) -> None:
        """Time passes; deadlines come."""
        self.do(self.crowd.later(seconds))

    @rule()
    def answer(self) -> None:
        """The far side that hung answers."""
        if self.pair.far_sides.hanging:
            self.do(self.crowd.answered())

    @rule(
        action=st.sampled_from((ControlAction.PAUSE, ControlAction.PAUSE, ControlAction.STOP)), roll_back=st.booleans()
    )
    def control_what_hangs(self, action: ControlAction, roll_back: bool) -> None:
        """Somebody has what hangs pause at its next step, or stop; then the far side answers."""
        for mission in self.crowd.standing(MissionStatus.ACTIVE):
            self.do(self.crowd.controlled(mission, action, roll_back=roll_back))
            self.do(self.crowd.answered())

    @rule(acts=st.integers(1, 12), late=st.booleans())
    def doom(self, acts: int, late: bool) -> None:
        """The executor is to die at one of its next acts."""
        self.pair.house.life.ends_in(acts, late=late)

    @rule(acts=st.integers(1, 12), writes=st.integers(1, 7))
    def fill(self, acts: int, writes: int) -> None:
        """The executor's disk is to be full at one of its next acts, until somebody makes room."""
        self.pair.house.life.full_in(acts, writes=writes)

    @rule(pick=PICK, acts=st.integers(1, 4), writes=st.integers(1, 7), way=st.integers(0, 9))
    def decide_on_a_full_disk(self, pick: int, acts: int, writes: int, way: int) -> None:
        """Somebody decides, and the disk has no room for that, or for what comes of it."""
        self.fill(acts=acts, writes=writes)
        self.decide(pick, way)

    @rule(pick=PICK, acts=st.integers(1, 6), late=st.booleans(), way=st.integers(0, 9))
    def decide_and_die(self, pick: int, acts: int, late: bool, way: int) -> None:
        """Somebody decides, and the executor dies of that, or of what comes of it."""
        self.doom(acts=acts, late=late)
        self.decide(pick, way)

    @rule()
    def restart_executor(self) -> None:
        """The executor dies, wherever it is, and begins again."""
        self.do(self.crowd.restarted())

    @rule(dooms=st.lists(DOOM, min_size=1, max_size=2))
    def restart_into_death(self, dooms: list[tuple[int, bool]]) -> None:
        """The executor dies, wherever it is, and so do the next ones, at what they do about what they found."""
        self.do(self.crowd.restarted(dooms))

    @rule(
        steps=STEPS,
        kind=st.sampled_from(tuple(WAITS)),
        way=st.sampled_from(WAYS),
        policy=POLICY,
        dooms=st.lists(DOOM, min_size=1, max_size=3),
    )
    def wait_and_die(
        self, steps: list[Recipe], kind: str, way: str, policy: FailurePolicy, dooms: list[tuple[int, bool]]
    ) -> None:
        """A mission waits, and the executor dies of what ends that; the next ones perhaps of what they found."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            self.have_wait(steps, kind, policy)
            self.end_wait(way, dooms)

    @rule(steps=STEPS, kind=st.sampled_from(tuple(WAITS)), policy=POLICY)
    def have_wait(self, steps: list[Recipe], kind: str, policy: FailurePolicy) -> None:
        """A mission that nothing is in the way of comes to wait for people."""
        if len(self.crowd.missions) < MOST_MISSIONS:
            around = [*steps[:-1], WAITS[kind], *steps[-1:]]
            self.do(self.crowd.sent(around, policy, PauseDefault.ROLL_BACK, None, clear=True))
            if kind == "requested":
                self.control_what_hangs(action=ControlAction.PAUSE, roll_back=False)

    def end_wait(self, way: str, dooms: list[tuple[int, bool]]) -> None:
        """Have the wait of the last mission end, in one of the ways; lives end where that is said."""
        if not (waiting := self.crowd.waiting()):
            return
        mission = waiting[-1]
        actions = mission.pause.actions if mission.pause is not None else ()
        (acts, late), *again = dooms or [(0, False)]
        self.pair.house.dooms += again
        if dooms:
            self.doom(acts=acts, late=late)
        match way:
            case "go_on" | "stop" | "roll_back":
                action = ControlAction.STOP if way != "go_on" or not actions else actions[0]
                self.do(self.crowd.controlled(mission, action, roll_back=way == "roll_back"))
            case "deny":  # of what is no approval of a step, the same as to go on
                action = actions[0] if actions else ControlAction.STOP
                self.do(self.crowd.controlled(mission, action, roll_back=action is ControlAction.APPROVE_STEP))
            case "repair":
                write, read = (("write", "b.txt"), False), (("read", "a.txt"), False)
                self.do(self.crowd.repaired(mission.mission_id, [read, write], FailurePolicy.ROLL_BACK, 3))
            case "deadline":
                self.do(self.crowd.later(700))
            case "revoke":
                self.do(self.crowd.revoked(mission.mission_id, "owner"))
                self.do(self.crowd.controlled(mission, actions[0], roll_back=False))
            case _:
                self.do(self.crowd.restarted())

    @rule(seconds=st.sampled_from((10, 400, 3000)))
    def set_back(self, seconds: int) -> None:
        """Somebody sets the clock back."""
        self.do(self.crowd.later(-seconds))

    @rule(pick=PICK)
    def ask_again(self, pick: int) -> None:
        """Somebody makes a request once more, since the answer was lost."""
        if self.crowd.asked_for:
            self.do(self.crowd.asked_again(pick))

    @rule(cleanly=st.booleans(), both=st.booleans())
    def restart_orchestrator(self, cleanly: bool, both: bool) -> None:
        """The orchestrator ends and begins again, alone or together with the executor."""
        self.do(self.crowd.orchestrator_restarted(cleanly=cleanly, both=both))

    def do(self, work: Coroutine[Any, Any, object]) -> None:
        """Have something done, and judged when nothing moves any more."""
        self.runner.run(self.crowd.all_of(work))


@pytest.mark.long
def test_whatever_people_far_sides_and_deaths_do_what_must_hold_holds() -> None:
    """No effect without a row, none twice, no step out of order, no event lost or doubled, and one receipt for each."""
    # A failure is not made smaller: that takes minutes, and threads do not take the same turns each time.
    # The same rules each time, so that a change is judged by itself; make kills draws new ones.
    same = os.environ.get("GONOGO_RANDOM") != "1"
    wanted = settings(
        bounded(EXAMPLES), stateful_step_count=STEP_COUNT, phases=(Phase.generate,), derandomize=same, database=None
    )
    run_state_machine_as_test(ControlMachine, settings=wanted, _min_steps=STEP_COUNT)  # left alone, it stops early
    print(dict(sorted(REACHED.items())))  # noqa: T201 - pytest shows it where it is wanted
    if wanted.max_examples >= EXAMPLES:
        assert [name for name in OFTEN if not REACHED[name]] == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("acts", range(3, 8))
def test_a_read_between_two_edits_is_not_made_again_though_nobody_was_told_of_it(acts: int, late: bool) -> None:
    """Events of a short execution die with the process; the journal tells that the step behind it was begun."""
    machine = ControlMachine()
    try:
        machine.begin(steps=[(("read", "a.txt"), False)], more=[(("read", "b.txt"), False)])
        steps: list[Recipe] = [((kind, path), False) for kind, path in zip(EDITS_AND_READ, PATHS, strict=True)]
        machine.send_and_die(steps=steps, policy=FailurePolicy.PAUSE, acts=acts, late=late)
        machine.control(pick=2, action=ControlAction.RESUME, roll_back=False, times=1)
        [mission] = machine.crowd.missions[2:]
        assert machine.crowd.state(mission).status is MissionStatus.COMPLETED
    finally:
        machine.teardown()


def test_the_rules_lead_everywhere() -> None:
    """Each kind of pause, of outcome and of effect is reached by rules, with the judge looking on."""
    machine = ControlMachine()
    try:
        script(machine)
    finally:
        machine.teardown()
    reached = machine.judge.reached + Counter(deaths=machine.pair.deaths)
    assert [name for name in PLACES if not reached[name]] == []


def script(machine: ControlMachine) -> None:
    """Use rules one after the other; a mission ends with the sending of the next one."""
    write_a, write_b, write_c = ((("write", path), False) for path in PATHS)
    hangs, fails = (("live", "H", "D"), False), (("live", "N", "D"), False)
    happens, unknown = (("live", "D", "D"), False), (("live", "U", "D"), False)
    pause, stop = FailurePolicy.PAUSE, PauseDefault.STOP
    machine.begin(steps=[write_a, hangs], more=[write_b, happens, (("write", "c.txt"), True)])
    machine.control_what_hangs(action=ControlAction.STOP, roll_back=True)  # then the second one has its turn
    machine.control(pick=1, action=ControlAction.APPROVE_STEP, roll_back=False, times=2)
    machine.send(steps=[happens, hangs, write_b], policy=pause, default=stop, clear=True)
    machine.control_what_hangs(action=ControlAction.PAUSE, roll_back=False)
    machine.revoke_and_go_on(pick=0)
    machine.control(pick=2, action=ControlAction.STOP, roll_back=True, times=1)
    machine.send(steps=[write_a, fails, write_b], policy=pause, default=stop, clear=True)
    machine.repair_at_once(pick=0, steps=[write_c], policy=pause)
    machine.send(steps=[write_a, unknown, fails], policy=FailurePolicy.STOP, default=stop, clear=True)
    machine.control(pick=4, action=ControlAction.RECONCILE, roll_back=False, times=2)
    machine.restart_executor()
    machine.send_and_die(steps=[write_a, write_b], policy=pause, acts=2, late=True)
    machine.control(pick=5, action=ControlAction.STOP, roll_back=True, times=1)
