"""What must hold of two services whatever people, far sides and deaths do to them; asked after every rule.

The judge knows what was asked for (the sealed plans), what the executor says it did (its events), and what really is:
the files, the ledger's rows, and what happened at the far sides. From the first two it works out what the third must
be. It is asked when nothing moves: whatever runs has ended, waits for a person, or hangs on a far side's answer.
"""

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from executor.domain import events as told
from executor.domain.control import PauseKind
from executor.domain.receipt import EffectState
from executor.runner.control_ports import EffectEntry
from executor.runner.ports import Event
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Outcome
from orchestrator.domain.mission import Mission, MissionStatus
from tests.fakes.mortal_pair import Pair

CONTINUE: Final = plan_pb2.FAILURE_POLICY_CONTINUE
BEGIN: Final = (told.StepStarted, told.CheckpointCreated, told.EffectClaimed, told.RollbackStarted)
"""What an execution that waits for a person does not do."""
EFFECTS: Final = {
    EffectState.DONE: "EFFECT_STATE_DONE",
    EffectState.NOT_DONE: "EFFECT_STATE_NOT_DONE",
    EffectState.COMPENSATED: "EFFECT_STATE_COMPENSATED",
}


@dataclass(slots=True)
class Edit:
    """What one committed step did to a file."""

    path: str
    before: bytes | None
    after: bytes | None


@dataclass(slots=True)
class Walk:
    """One execution's events, gone through in their order."""

    plans: dict[int, plan_pb2.Plan]
    segment: int = 0
    next: int = 0
    begun: str = ""
    denied: bool = False
    """A person said of the step that was begun that its effect did not happen: nothing goes on without them."""
    paused: bool = False
    stopped: bool = False
    edits: dict[str, Edit] = field(default_factory=dict)
    """What is committed and not undone, the oldest first."""
    opened: list[int] = field(default_factory=lambda: [0])
    approved: set[str] = field(default_factory=set)
    """The steps that had a signature of their own."""
    resumed: Counter[str] = field(default_factory=Counter)
    """How often it went on, by what somebody had it do."""
    stuck: bool = False
    """Something could not be undone, or is not as it was left."""

    @property
    def plan(self) -> plan_pb2.Plan:
        return self.plans[self.segment]

    def take(self, payload: told.Payload) -> None:
        """Take one more event, which must fit."""
        assert not (self.paused and isinstance(payload, BEGIN)), f"paused, and {payload}"
        match payload:
            case told.SegmentOpened():
                assert payload.segment > self.segment, "a segment was opened twice"
                self.segment, self.next = payload.segment, 0
                self.opened.append(payload.segment)
            case told.StepStarted():
                assert not self.stopped, "a step was begun after the stop"
                step = self.plan.steps[self.next]
                assert payload.step_id == step.step_id, "a step was begun out of order"
                assert not step.needs_approval or step.step_id in self.approved, "a step was begun without its approval"
                self.begun, self.denied = payload.step_id, False
            case told.StepReconciled():
                assert payload.step_id == self.begun, "a word on another step than the one that was begun"
                self.denied = not payload.happened
            case told.EffectClaimed() | told.CheckpointCreated():
                assert payload.step_id == self.begun, "another step than the one that was begun has an effect"
            case told.StepCompleted():
                assert payload.step_id == self.begun, "another step than the one that was begun has ended"
                self.next += payload.success or (self.plan.failure_policy == CONTINUE and not self.denied)
            case told.RollbackStarted():
                self.begun = payload.step_id
            case told.ExecutionPaused():
                self.paused = True
            case _:
                self._turn(payload)

    def _turn(self, payload: told.Payload) -> None:
        """Take note of where it stands, and of what it is as it was left."""
        match payload:
            case told.RollbackCompleted():
                self.stuck |= not payload.success
            case told.DivergenceDetected():
                self.stuck = True
            case told.ExecutionPaused():
                self.paused = True
            case told.ExecutionResumed():
                self.paused = False
                self.resumed[payload.action] += 1
                self.approved |= {payload.step_id} if payload.action == "approve_step" else set()
            case told.ExecutionStopped():
                self.paused, self.stopped = False, True
            case _:
                pass

    def edited(self, step_id: str, files: dict[str, bytes]) -> Edit | None:
        """Return what a step that is done has changed; None where it changes no file."""
        step = next(step for plan in self.plans.values() for step in plan.steps if step.step_id == step_id)
        match step.WhichOneof("action"):
            case "write_file":
                path, after = step.write_file.path, step.write_file.content.encode()
            case "append_text":
                path = step.append_text.path
                after = files.get(path, b"") + step.append_text.content.encode()
            case "delete_path":
                return Edit(step.delete_path.path, files.get(step.delete_path.path), None)
            case _:
                return None
        return Edit(path, files.get(path), after)


class Judge:
    """Watches one pair."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.missions: list[str] = []
        self.files: dict[str, bytes] = {}
        """What the workspace must hold."""
        self.reached: Counter[str] = Counter()
        """What was seen, by name: a test that never came anywhere would show nothing."""
        self.must_end: set[str] = set()
        """What waited, and was stopped: nothing asks anybody any more."""
        self._walks: dict[str, Walk] = {}
        self._seen: dict[str, tuple[Event, ...]] = {}
        self._ended: set[str] = set()

    def stranger(self, path: str, content: bytes | None) -> None:
        """Take note of what somebody else did to a file."""
        _put(self.files, path, content)

    def check(self) -> None:
        """Look at everything; whoever reads why it does not hold gets the events to it."""
        try:
            self._check()
        except AssertionError as error:
            for mission_id, events in self._seen.items():
                error.add_note("\n".join((mission_id, *(str(event.payload) for event in events))))
            raise

    def _check(self) -> None:
        assert not self.pair.far_sides.unclaimed, "a far side was asked without a row in the ledger"
        news = [item for mission_id in self.missions for item in self._news(mission_id)]
        for event, walk in sorted(news, key=lambda item: item[0].time):
            walk.take(event.payload)
            self._follow(event.payload, walk)
        assert self.on_disk() == self.files
        states = [self.pair.use.missions.store.state(mission_id) for mission_id in self.missions]
        for mission in states:
            self._check_mission(mission)
        self._check_signals(states)

    def on_disk(self) -> dict[str, bytes]:
        """Return what the workspace holds."""
        return self.pair.house.files()

    def claimed(self, mission_id: str) -> bool:
        """Tell whether the executor holds a mission."""
        return self.pair.house.ledger.execution(mission_id=mission_id) is not None

    def _news(self, mission_id: str) -> Iterator[tuple[Event, Walk]]:
        """Yield events that were not seen before; what was seen stays as it was, for ever and over every death."""
        if not self.claimed(mission_id):
            return
        run = self.pair.house.core.get_execution(mission_id=mission_id)
        events = run.progress(0).events
        seen = self._seen.get(mission_id, ())
        assert events[: len(seen)] == seen, "what watchers saw is another now"
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert len({event.event_id for event in events}) == len(events)
        self._seen[mission_id] = events
        walk = self._walks.setdefault(mission_id, Walk(plans={}))
        walk.plans = self._plans(run.execution_id)
        yield from ((event, walk) for event in events[len(seen) :])

    def _plans(self, execution_id: str) -> dict[int, plan_pb2.Plan]:
        ledger = self.pair.house.ledger
        found = {}
        for number, claim in enumerate(ledger.claims_of(execution_id)):
            assert claim.segment == number, "a segment was claimed twice, or out of turn"
            sealed = ledger.plan_of(execution_id, claim.segment)
            assert sealed is not None
            found[claim.segment] = sealing.open_sealed(sealed.body, plan_pb2.Plan)
        return found

    def _follow(self, payload: told.Payload, walk: Walk) -> None:
        """Work out what an event makes of the files."""
        if isinstance(payload, told.ExecutionPaused):
            self.reached[f"paused: {payload.kind.value}"] += 1
        elif isinstance(payload, told.SegmentOpened):
            self.reached["repaired"] += 1
        elif isinstance(payload, told.StepCompleted) and payload.success:
            edit = walk.edited(payload.step_id, self.files)
            if edit is not None:
                walk.edits[payload.step_id] = edit
                _put(self.files, edit.path, edit.after)
        elif isinstance(payload, told.RollbackCompleted):
            self._undone(payload, walk)

    def _undone(self, payload: told.RollbackCompleted, walk: Walk) -> None:
        edit = walk.edits.get(payload.step_id)
        if edit is None:
            return  # it had not been done, or acted on a far side
        assert payload.step_id == list(walk.edits)[-1], "not the newest step was undone"
        del walk.edits[payload.step_id]
        self.reached["undone"] += 1
        theirs = self.files.get(edit.path)
        mine = theirs in {edit.after, edit.before}
        assert payload.success == mine, "a stranger's work was undone, or in the way of nothing"
        if payload.success:
            _put(self.files, edit.path, edit.before)

    def _check_mission(self, mission: Mission) -> None:
        if mission.mission_id in self._ended and mission.has_ended:
            return
        if not self.claimed(mission.mission_id):
            assert mission.status not in {MissionStatus.ACTIVE, MissionStatus.PAUSED, MissionStatus.COMPLETED}
            assert not mission.execution_id
            return
        progress = self.pair.house.core.get_execution(mission_id=mission.mission_id).progress(0)
        self._check_copy(mission)
        entries = self.pair.house.ledger.effects(progress.record.execution_id)
        self._check_rows(entries)
        self._check_asked(progress.record.execution_id, self._walks[mission.mission_id])
        issued = self._of_type(mission, ev.ReceiptIssued)
        if not progress.ended:
            assert not issued
            assert self.pair.house.ledger.receipt(mission.mission_id) is None
            self._check_standing(mission, progress.pause)
            return
        sealed = self.pair.house.core.get_receipt(mission.mission_id)
        assert [payload.receipt_digest for payload in issued] == [sealed.digest]
        receipt = sealing.open_sealed(sealed.body, evidence_pb2.Receipt)
        self._check_end(mission, receipt)
        self._check_effects(receipt, entries)
        self._check_controls(receipt)
        self._ended.add(mission.mission_id)

    def _check_copy(self, mission: Mission) -> None:
        """The orchestrator's copy of an execution is the execution's own record, event for event."""
        theirs = [_plain(event.payload) for event in self._seen[mission.mission_id]]
        store = self.pair.use.missions.store
        ours = [
            _plain(event.payload)
            for event in store.events(mission.mission_id)
            if type(event.payload) in ev.EXECUTION_PAYLOADS and event.actor == mission.executor_id
        ]
        assert len(ours) <= mission.executor_events
        different = [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]]
        assert not different, different[0]
        assert mission.executor_events == len(theirs)

    def _check_rows(self, entries: Iterable[EffectEntry]) -> None:
        """Each effect has a row of its own, and no far side was asked more often than there are rows."""
        rows: Counter[str] = Counter(entry.claim.idempotency_key for entry in entries)
        far = self.pair.far_sides
        for key, count in rows.items():
            assert far.asked[key] <= count
            assert far.happened[key] <= 1, "an effect happened twice"

    def _check_asked(self, execution_id: str, walk: Walk) -> None:
        """Nothing goes on, or ends early, that nobody had do so."""
        controls = self.pair.house.ledger.controls(execution_id)
        wanted = Counter(entry.action_name for entry in controls)
        wanted["repair"] = len(self.pair.house.ledger.claims_of(execution_id)) - 1
        assert walk.resumed <= wanted, "it went on, and nobody had it do so"
        stops = {"stop", "deadline", "deny_step"}
        assert not walk.stopped or stops & set(wanted), "it was stopped by nobody"

    def _check_standing(self, mission: Mission, pause: Any) -> None:
        assert mission.mission_id not in self.must_end, "it was stopped where it waited, and did not end"
        stops = [one for one in self.pair.house.ledger.controls(mission.execution_id) if one.action_name == "stop"]
        asks = pause is None or pause.kind is PauseKind.UNKNOWN_EFFECT
        assert not stops or asks, "it was stopped, and waits for somebody"
        if pause is None:
            assert mission.status is MissionStatus.ACTIVE
            self.reached["hanging"] += 1
            return
        assert mission.status is MissionStatus.PAUSED
        assert mission.pause is not None
        assert mission.pause.kind is not None
        same = (mission.pause.kind.value, mission.pause.results_digest, mission.pause.step_id)
        assert same == (pause.kind.value, pause.results_digest, pause.step_id)
        assert self._walks[mission.mission_id].paused

    def _check_end(self, mission: Mission, receipt: evidence_pb2.Receipt) -> None:
        """Status, outcome and receipt agree with each other and with what was told."""
        walk = self._walks[mission.mission_id]
        outcome = Outcome[evidence_pb2.Outcome.Name(receipt.execution_status).removeprefix("OUTCOME_")]
        self.reached[f"outcome: {outcome.value}"] += 1
        assert mission.outcome is outcome
        assert mission.status in _statuses(outcome, stopped=receipt.abort_reason == "STOPPED")
        begun = [event.payload.step_id for event in self._payloads(mission, told.StepStarted)]
        assert [step.step_id for step in receipt.steps] == list(dict.fromkeys(begun))
        assert [segment.segment for segment in receipt.segments] == walk.opened[1:]
        if outcome is Outcome.SUCCESS:
            assert walk.next == len(walk.plan.steps)
        if outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
            assert not walk.edits, "rolled back, and something stands"
        standing = [step.step_id for step in receipt.steps if step.success and not step.rollback_succeeded]
        assert set(walk.edits) <= set(standing)

    def _check_controls(self, receipt: evidence_pb2.Receipt) -> None:
        """Whatever people had it do is in the receipt."""
        ledger, execution_id = self.pair.house.ledger, receipt.execution_id
        repairs = len(ledger.claims_of(execution_id)) - 1
        assert len(receipt.controls) == len(ledger.controls(execution_id)) + repairs, "a control is not in the receipt"

    def _check_effects(self, receipt: evidence_pb2.Receipt, entries: Sequence[EffectEntry]) -> None:
        """What the receipt says of effects is what really happened, where a person could tell."""
        far = self.pair.far_sides
        stand = False
        for step in receipt.steps:
            if not step.HasField("effect"):
                continue
            key = step.effect.idempotency_key
            state = evidence_pb2.EffectState.Name(step.effect.state)
            self.reached[state] += 1
            really = bool(far.happened[key])
            if state in {EFFECTS[EffectState.DONE], EFFECTS[EffectState.COMPENSATED]}:
                assert really
            if state == EFFECTS[EffectState.NOT_DONE]:
                assert not really
            if state == EFFECTS[EffectState.COMPENSATED]:
                assert far.happened[f"{key}-c"] == 1
            stand |= state == EFFECTS[EffectState.DONE]
        if receipt.execution_status == evidence_pb2.OUTCOME_PARTIAL:
            assert stand or self._walks[receipt.mission_id].edits, "partial, and nothing stands"
        if receipt.execution_status == evidence_pb2.OUTCOME_UNKNOWN:
            unsure = any(entry.record is None or entry.record.state is EffectState.UNKNOWN for entry in entries)
            assert unsure or self._walks[receipt.mission_id].stuck, "unknown, and nothing says why"
        if stand:
            aborted = {evidence_pb2.OUTCOME_ROLLED_BACK, evidence_pb2.OUTCOME_ABORTED}
            assert receipt.execution_status not in aborted, "an effect stands, and the receipt says that nothing does"
        told_of = {step.effect.idempotency_key for step in receipt.steps if step.HasField("effect")}
        assert {entry.claim.idempotency_key.removesuffix("-c") for entry in entries} <= told_of

    def _check_signals(self, missions: Iterable[Mission]) -> None:
        """A mission that ended has one set of signals, any other has none; what is counted is their sum."""
        counted: Counter[tuple[str, str]] = Counter()
        for mission in missions:
            signals = self._of_type(mission, ev.SignalRecorded)
            told_of = [
                type(event.payload).__name__ for event in self.pair.use.missions.store.events(mission.mission_id)
            ]
            assert bool(signals) == mission.has_ended, f"{mission.mission_id} is {mission.status.value}: {told_of}"
            uses = [(signal.kind, signal.tool) for signal in signals]
            assert len(set(uses)) == len(uses)
            counted.update({(one.kind, one.tool): one.succeeded + one.failed for one in signals})
        rates = self.pair.use.signals.learnt().rates
        assert {(rate.kind, rate.tool): rate.samples for rate in rates if rate.samples} == +counted

    def _of_type(self, mission: Mission, kind: type[Any]) -> list[Any]:
        events = self.pair.use.missions.store.events(mission.mission_id)
        return [event.payload for event in events if isinstance(event.payload, kind)]

    def _payloads(self, mission: Mission, kind: type[Any]) -> list[Any]:
        return [event for event in self._seen[mission.mission_id] if isinstance(event.payload, kind)]


def _statuses(outcome: Outcome, *, stopped: bool) -> set[MissionStatus]:
    if outcome is Outcome.SUCCESS:
        return {MissionStatus.COMPLETED}
    if outcome is Outcome.UNKNOWN:
        return {MissionStatus.PAUSED, MissionStatus.CANCELLED}  # a person may give such a mission up
    return {MissionStatus.CANCELLED, MissionStatus.FAILED} if stopped else {MissionStatus.FAILED}


def _put(files: dict[str, bytes], path: str, content: bytes | None) -> None:
    if content is None:
        files.pop(path, None)
    else:
        files[path] = content


def _plain(payload: object) -> tuple[str, dict[str, object]]:
    """Return a payload of either service in a form that can be compared."""
    assert dataclasses.is_dataclass(payload)
    values = {one.name: getattr(payload, one.name) for one in dataclasses.fields(payload)}
    return type(payload).__name__, {name: _value(value) for name, value in values.items()}


def _value(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_value, value))
    return value.name.lower() if isinstance(value, enum.Enum) else value


def is_unknown_effect(mission: Mission) -> bool:
    """Tell whether a mission waits for a word on an effect."""
    kind = mission.pause.kind if mission.pause is not None else None
    return kind is not None and kind.value == PauseKind.UNKNOWN_EFFECT.value
