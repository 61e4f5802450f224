"""The core's own promises: one request is one request, an end is always told, nothing is run twice."""

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, NotFoundError, RequestMalformedError, StoreError
from executor.domain.ladder import LadderLevel
from executor.domain.receipt import Outcome
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.clock import EffectiveClock
from executor.runner.dry_runs import Admission
from executor.runner.executions import RefusedError
from executor.runner.requests import ExecuteInput
from executor.runner.run import Recorder, Run
from executor.runner.stored_run import AnyRun
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519, load_signing_key, verify
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.house import House, Person, ignore, stamp
from tests.unit.executor.test_ledger_sqlite import python


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An executor with one workspace and two persons, where one approval is enough."""
    house = House(tmp_path)
    yield house
    house.close()


def receipt_of(document: SealedBytes | None) -> evidence_pb2.Receipt:
    assert document is not None
    return sealing.open_sealed(document.body, evidence_pb2.Receipt)


class TestDryRun:
    @pytest.mark.parametrize("name", ["message_id", "transcription_id"])
    @pytest.mark.parametrize("value", ["two words", "line\nfeed", "\x1b[31m", "é", "x" * 129])
    def test_every_id_of_the_chain_is_one_or_empty(self, house: House, name: str, value: str) -> None:
        """What a plan says that it came from ends up in receipts and on terminals: it is an id, or not there."""
        plan = house.plan()
        setattr(plan, name, value)
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(plan))
        assert caught.value.fault.reason == "PLAN_INVALID"
        assert name in caught.value.fault.message
        plan.ClearField(name)  # type: ignore[arg-type]  # a field's name
        assert house.dry_run(house.sealed_plan(plan)).body

    def test_the_report_names_everything_it_stands_on(self, house: House) -> None:
        """The report carries the chain of ids, the rules in force, and the executor's signature."""
        plan = house.sealed_plan()
        document = house.dry_run(plan)
        report = sealing.open_sealed(document.body, evidence_pb2.Report)
        assert (report.mission_id, report.intent_id, report.plan_id) == ("m-1", "i-m-1", "p-m-1")
        assert report.plan_digest == plan.digest
        assert report.policy_digest == house.policy_digest
        assert report.ledger_epoch == house.ledger.epoch
        assert report.self_approval == evidence_pb2.SELF_APPROVAL_ALLOWED
        assert report.steps[0].changes[0].new.digest == digest(b"hello\n")
        [signature] = document.signatures
        verify(
            house.executor_key.public,
            scheme=ED25519,
            signature=signature.signature,
            media_type=sealing.REPORT,
            body=document.body,
            extra=b"",
        )
        assert house.files() == {}

    def test_the_same_request_is_one_dry_run(self, house: House) -> None:
        """A repeated request gets the first report, also after a restart, and nothing runs again."""
        plan = house.sealed_plan()
        first = house.dry_run(plan, "q")
        assert house.dry_run(plan, "q") == first
        house.use(house.trust)
        assert house.dry_run(plan, "q") == first
        assert house.simulator.runs == 1

    def test_the_same_request_at_the_same_time_is_one_dry_run(self, house: House) -> None:
        """Eight callers with one request id get one report."""
        plan = house.sealed_plan()
        reports: list[SealedBytes] = []
        threads = [threading.Thread(target=lambda: reports.append(house.dry_run(plan, "q"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reports == [reports[0]] * 8
        assert house.simulator.runs == 1

    def test_one_request_id_for_two_plans(self, house: House) -> None:
        """A request id that stood for another body is refused."""
        house.dry_run(house.sealed_plan(), "q")
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(house.plan(content="other")), "q")
        assert caught.value.fault.reason == "REQUEST_REUSED"

    def test_two_reports_of_one_plan_differ(self, house: House) -> None:
        """Every dry run has a report of its own, however alike the plans are."""
        plan = house.sealed_plan()
        assert house.dry_run(plan).digest != house.dry_run(plan).digest

    def test_what_the_steps_need_can_be_read_by_digest(self, house: House) -> None:
        """Contents that a report names are served in parts."""
        house.dry_run(house.sealed_plan())
        assert house.core.get_object(digest(b"hello\n"), 0, 0) == (b"hello\n", 6)
        assert house.core.get_object(digest(b"hello\n"), 2, 3) == (b"llo", 6)
        assert house.core.get_object(digest(b"hello\n"), 6, 3) == (b"", 6)
        with pytest.raises(NotFoundError):
            house.core.get_object(digest(b"other"), 0, 0)
        for name, offset in (("sha256:", 0), (digest(b"hello\n"), 7)):
            with pytest.raises(RequestMalformedError):
                house.core.get_object(name, offset, 0)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            pytest.param({"executor_id": "other"}, "EXECUTOR_MISMATCH", id="another executor"),
            pytest.param({"workspace_id": "other"}, "WORKSPACE_UNKNOWN", id="unknown workspace"),
            pytest.param(
                {"pause": plan_pb2.PauseRules(deadline_seconds=2_592_001)}, "PLAN_INVALID", id="longest pause"
            ),
            pytest.param(
                {"pause": plan_pb2.PauseRules(step_approval_seconds=2_592_001)}, "PLAN_INVALID", id="longest wait"
            ),
            pytest.param({"segment": 1}, "PLAN_INVALID", id="half a repair plan"),
            pytest.param({"failure_policy": 0}, "MALFORMED", id="no failure policy"),
            pytest.param(
                {"scope": plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS)}, "PLAN_INVALID", id="network"
            ),
            pytest.param({"scope": plan_pb2.Scope(domains=["a.example"])}, "PLAN_INVALID", id="domains"),
            pytest.param(
                {"scope": plan_pb2.Scope(network=plan_pb2.NETWORK_ACCESS_LISTED_DOMAINS, domains=["a b"])},
                "NETWORK_REFUSED",
                id="no name",
            ),
            pytest.param({"scope": plan_pb2.Scope(max_bytes="1e9")}, "PLAN_INVALID", id="number as no digits"),
            pytest.param({"steps": []}, "PLAN_INVALID", id="no steps"),
            pytest.param({"plan_id": ""}, "PLAN_INVALID", id="no plan id"),
            pytest.param({"mission_id": "m 1"}, "PLAN_INVALID", id="blank in an id"),
        ],
    )
    def test_a_plan_that_can_not_run_here(self, house: House, changes: dict[str, object], reason: str) -> None:
        """Such a plan is refused with its reason before anything runs."""
        plan = house.plan()
        for name, value in changes.items():
            plan.ClearField(name)  # type: ignore[arg-type]  # names of the message
            if name in {"scope", "steps", "pause"}:
                plan.MergeFrom(plan_pb2.Plan(**{name: value}))  # type: ignore[arg-type]  # names of the message
            else:
                setattr(plan, name, value)
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(plan))
        assert caught.value.fault.reason == reason
        assert caught.value.fault.remedy
        assert house.simulator.runs == 0

    @pytest.mark.parametrize(
        ("action", "reason"),
        [
            pytest.param({"write_file": plan_pb2.WriteFile(path="a", content="x" * 2**21)}, "TOO_LARGE", id="content"),
            pytest.param({"patch_file": plan_pb2.PatchFile(path="a", patch="x" * 2**21)}, "TOO_LARGE", id="patch"),
            pytest.param(
                {"write_file": plan_pb2.WriteFile(path="a", content="", mode="rw")}, "PLAN_INVALID", id="mode"
            ),
            pytest.param({"set_mode": plan_pb2.SetMode(path="a")}, "PLAN_INVALID", id="no mode"),
            pytest.param({"set_mode": plan_pb2.SetMode(path="a", mode="00644")}, "PLAN_INVALID", id="long mode"),
            pytest.param({"set_mode": plan_pb2.SetMode(path="a", mode="٦٤٤")}, "PLAN_INVALID", id="other digits"),
            pytest.param({"run_command": plan_pb2.RunCommand()}, "PLAN_INVALID", id="no program"),
            pytest.param({"run_command": plan_pb2.RunCommand(argv=[""])}, "PLAN_INVALID", id="empty program"),
            pytest.param({"write_file": plan_pb2.WriteFile(path="a")}, "MALFORMED", id="no content"),
            pytest.param({}, "MALFORMED", id="no action"),
            pytest.param({"step_id": "s1", "read_file": plan_pb2.ReadFile(path="a")}, "PLAN_INVALID", id="id twice"),
            pytest.param({"step_id": "", "read_file": plan_pb2.ReadFile(path="a")}, "PLAN_INVALID", id="no id"),
            pytest.param({"stage": 0, "read_file": plan_pb2.ReadFile(path="a")}, "MALFORMED", id="no stage"),
        ],
    )
    def test_a_step_that_can_not_run(self, house: House, action: dict[str, object], reason: str) -> None:
        """Such a step refuses its whole plan."""
        plan = house.plan()
        values = {"step_id": "s2", "stage": plan_pb2.STAGE_EDIT, **action}
        plan.steps.append(plan_pb2.Step(**values))  # type: ignore[arg-type]  # names of the message
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(plan))
        assert caught.value.fault.reason == reason

    def test_a_workspace_that_can_only_be_read(self, house: House) -> None:
        """Without staging nothing could be committed, so nothing that changes anything is dry run there."""
        house.level = LadderLevel.L0
        house.use(house.trust)
        with pytest.raises(ExecutorError) as caught:
            house.dry_run(house.sealed_plan())
        assert (caught.value.fault.reason, caught.value.fault.remedy) == ("UNSUPPORTED", "name a staging directory")
        assert house.simulator.runs == 0

    def test_more_than_a_thousand_steps(self, house: House) -> None:
        """A plan has at most a thousand steps."""
        plan = house.plan()
        plan.steps.extend(
            plan_pb2.Step(step_id=f"t{number}", stage=plan_pb2.STAGE_RETRIEVE, read_file=plan_pb2.ReadFile(path="a"))
            for number in range(1000)
        )
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(plan))
        assert caught.value.fault.reason == "PLAN_INVALID"

    @pytest.mark.parametrize("request_id", ["", "x" * 129, "a\nb"])
    def test_a_request_without_an_id(self, house: House, request_id: str) -> None:
        """A request must have an id that can be stored and shown."""
        with pytest.raises(RequestMalformedError):
            house.core.dry_run(request_id, house.sealed_plan(), ignore)

    def test_too_many_at_once(self) -> None:
        """Beyond the places and the queue a dry run is turned away at once; a place that frees is given."""
        admission = Admission(lambda: 1, waiting=1, patience=0.01)
        with admission.enter():
            with pytest.raises(ExecutorError) as caught, admission.enter():
                pass
            assert caught.value.fault.reason == "OVERLOADED"
        with admission.enter():
            pass


class TestExecute:
    def test_the_receipt_links_every_id(self, house: House) -> None:
        """The receipt names message, intent, mission, plan, report, approvals and execution."""
        request = house.ready()
        progress = house.execute(request)
        receipt = receipt_of(progress.receipt)
        report = sealing.open_sealed(request.report.body, evidence_pb2.Report)  # type: ignore[union-attr]  # it is there
        assert (receipt.message_id, receipt.intent_id, receipt.mission_id) == ("msg-1", "i-m-1", "m-1")
        assert (receipt.plan_id, receipt.plan_digest) == ("p-m-1", request.plan.digest)
        assert (receipt.report_id, receipt.report_digest) == (report.report_id, request.report.digest)  # type: ignore[union-attr]  # it is there
        assert [one.approval_digest for one in receipt.approvals] == [request.approvals[0].digest]
        assert receipt.execution_id == progress.record.execution_id
        assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
        assert receipt.after_fingerprint == receipt.expected_after_fingerprint == report.after_fingerprint
        assert (receipt.steps_succeeded, receipt.steps_failed) == (1, 0)
        assert not receipt.divergence_detected
        assert house.core.get_receipt("m-1") == progress.receipt

    def test_events_are_numbered_and_end_with_the_receipt(self, house: House) -> None:
        """The events of an execution count from one, without a gap, to the receipt."""
        events = house.execute(house.ready()).events
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        names = [type(event.payload).__name__ for event in events]
        assert names == [
            "ExecutionStarted",
            "StepStarted",
            "CheckpointCreated",
            "StepCompleted",
            "ExecutionCompleted",
            "ReceiptIssued",
        ]
        assert {event.mission_id for event in events} == {"m-1"}

    def test_what_was_approved_before_the_workspace_became_read_only(self, house: House) -> None:
        """A level that sank since the dry run refuses the execution before anything is claimed; raised, it is done."""
        request = house.ready()
        house.level = LadderLevel.L0
        house.use(house.trust)
        before = house.files()
        with pytest.raises(RefusedError) as caught:
            house.execute(request)
        assert (caught.value.fault.reason, caught.value.fault.remedy) == ("LADDER_TOO_LOW", "name a staging directory")
        assert (house.files(), house.executioner.runs) == (before, [])
        house.level = LadderLevel.L1
        house.use(house.trust)
        assert house.execute(dataclasses.replace(request, request_id="again")).receipt is not None

    def test_the_same_request_attaches_again(self, house: House) -> None:
        """A repeated request returns the execution with all its events, also after a restart, and runs nothing."""
        request = house.ready()
        first = house.execute(request)
        assert house.execute(request) == first
        house.use(house.trust)
        assert house.execute(request) == first
        assert len(house.executioner.runs) == 1

    def test_one_request_id_for_two_bodies(self, house: House) -> None:
        """A request id that stood for another mission is refused."""
        request = house.ready()
        house.execute(request)
        other = house.ready(mission="m-2", path="other.txt")
        with pytest.raises(RefusedError) as caught:
            house.execute(dataclasses.replace(other, request_id=request.request_id))
        assert caught.value.fault.reason == "REQUEST_REUSED"

    def test_a_caller_attaches_while_it_runs(self, house: House) -> None:
        """The same request during the execution returns the running execution at once, and both see its end."""
        request = house.ready()
        attached: list[AnyRun] = []

        def again(execution_id: str) -> None:
            run = house.core.execute(request, attached.append)
            assert not run.progress(0).ended

        house.executioner.during = again
        progress = house.execute(request)
        assert attached[0].progress(0) == progress
        assert len(house.executioner.runs) == 1

    def test_many_callers_at_once_run_it_once(self, house: House) -> None:
        """Of sixteen requests for one mission one executes; the others are told that it was."""
        request = house.ready()
        outcomes: list[str] = []

        def one(number: int) -> None:
            try:
                house.core.execute(dataclasses.replace(request, request_id=f"race-{number}"), ignore)
                outcomes.append("executed")
            except RefusedError as error:
                outcomes.append(error.fault.reason)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(house.executioner.runs) == 1
        assert outcomes.count("executed") == 1
        assert set(outcomes) <= {"executed", "ALREADY_CLAIMED", "ALREADY_EXECUTED"}

    def test_an_executioner_that_breaks_is_brought_to_its_end(self, house: House) -> None:
        """What broke off is recovered at once, the receipt says how it stands, and the mission is not run again."""

        def breaks(execution_id: str) -> None:
            raise ZeroDivisionError("broken")

        house.executioner.during = breaks
        request = house.ready()
        receipt = receipt_of(house.execute(request).receipt)
        assert receipt.execution_status == evidence_pb2.OUTCOME_ABORTED
        assert "broken" in receipt.errors[0]
        with pytest.raises(RefusedError) as caught:
            house.execute(dataclasses.replace(request, request_id="again"))
        assert caught.value.fault.reason == "ALREADY_EXECUTED"

    def test_watchers_see_only_what_is_durable(self, house: House) -> None:
        """During a long execution events appear once the ledger has them."""
        woken = threading.Event()
        seen: list[int] = []

        def watch(execution_id: str) -> None:
            run = house.core.get_execution(execution_id=execution_id)
            assert isinstance(run, Run)
            leave = run.watch(woken.set)
            assert woken.wait(5)
            seen.append(run.progress(0).record.last_sequence)
            assert len(house.ledger.events(execution_id, 0)) == seen[0]
            leave()

        house.executioner.during = watch
        house.execute(house.ready())
        assert seen == [1]

    def test_a_receipt_that_can_not_be_stored_is_told_after_a_restart(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without room for the receipt the caller gets the error, and the next start issues one that says unknown."""
        monkeypatch.setattr("executor.runner.carrying_out.STORE_PAUSE_SECONDS", 0)
        request = house.ready()
        with monkeypatch.context() as patched:
            full = StoreError("STORE_FULL", "full", "make room")

            def fails(*_: object, **__: object) -> None:
                raise full

            patched.setattr(house.ledger, "finish", fails)
            progress = house.execute(request)
        assert progress.failure is not None
        assert progress.failure.fault.reason == "STORE_FULL"
        assert house.core.drain(0)
        house.use(house.trust)
        [receipt] = house.receipts
        assert receipt.result.outcome is Outcome.UNKNOWN

    def test_what_is_not_there(self, house: House) -> None:
        """Unknown missions and executions are not found."""
        with pytest.raises(NotFoundError):
            house.core.get_receipt("m-other")
        with pytest.raises(NotFoundError):
            house.core.get_execution(execution_id="x-other")


class TestDeath:
    """The process dies by SIGKILL in the middle of an execution, and another starts on the same state."""

    @pytest.fixture(params=["claim", "step"])
    def dead(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[House, ExecuteInput, str]:
        process = python("die_in_execution.py", str(tmp_path), request.param)
        process.communicate(timeout=60)
        assert process.returncode == -9
        house = House.__new__(House)
        owner = Person("owner", key=load_signing_key((tmp_path / "owner.key").read_bytes()))
        house.__init__(tmp_path)  # type: ignore[misc]  # the second start of the same house
        house.owner = owner
        house.executor_key = load_signing_key((tmp_path / "executor.key").read_bytes())
        signature = Signature(
            key_id=owner.key.public.key_id, scheme=owner.scheme, signature=(tmp_path / "approval.sig").read_bytes()
        )
        documents = {
            "plan": SealedBytes(media_type=sealing.PLAN, body=(tmp_path / "plan").read_bytes()),
            "report": SealedBytes(media_type=sealing.REPORT, body=(tmp_path / "report").read_bytes()),
            "approval": SealedBytes(
                media_type=sealing.APPROVAL, body=(tmp_path / "approval").read_bytes(), signatures=(signature,)
            ),
        }
        again = house.request(documents["plan"], documents["report"], documents["approval"])
        return house, dataclasses.replace(again, request_id="replayed"), request.param

    def test_the_next_start_finds_nothing_done_and_replays_nothing(self, dead: tuple[House, ExecuteInput, str]) -> None:
        """The mission gets one signed receipt that says that nothing was committed; its replay is refused."""
        house, request, when = dead
        [receipt] = house.receipts
        assert receipt.result.outcome is Outcome.ABORTED
        assert [step.step_id for step in receipt.result.steps] == (["s1"] if when == "step" else [])
        assert "broke off" in receipt.result.errors[0]
        stored = house.core.get_receipt("m-1")
        assert receipt_of(stored).receipt_id == receipt.receipt_id
        progress = house.core.get_execution(mission_id="m-1").progress(0)
        assert progress.ended
        assert [event.sequence for event in progress.events] == list(range(1, len(progress.events) + 1))
        assert type(progress.events[-1].payload).__name__ == "ReceiptIssued"
        with pytest.raises(RefusedError) as caught:
            house.execute(request)
        assert caught.value.fault.reason == "ALREADY_EXECUTED"
        assert house.files() == {}
        house.use(house.trust)
        assert house.receipts == ()
        house.close()


def test_effective_time_never_runs_backwards() -> None:
    """The clock is the highest time that was seen."""
    base = datetime(2026, 1, 1, tzinfo=UTC)
    times = iter([base, base - timedelta(days=1), base + timedelta(seconds=1)])
    clock = EffectiveClock(base - timedelta(days=2), lambda: next(times))
    assert [clock.now() for _ in range(3)] == [base, base, base + timedelta(seconds=1)]


def test_a_recorder_goes_on_where_another_ended() -> None:
    """After a restart the numbers go on without a gap."""
    from executor.domain.events import ExecutionStarted

    recorder = Recorder("m", recorded=4)
    recorder(ExecutionStarted(execution_id="x"))
    assert [event.sequence for event in recorder.after(4)] == [5]
    assert recorder.after(5) == ()
    assert recorder.count == 5


def test_the_description_is_the_trust_files(house: House) -> None:
    """What the executor says about itself is what its operator wrote."""
    told = house.core.describe()
    assert told.trust == house.trust
    assert told.ledger_epoch == house.ledger.epoch
    assert told.public_key == house.executor_key.public.line
    assert stamp(datetime(2026, 1, 1, tzinfo=UTC)).seconds == 1767225600
