"""That a dry run, an execution, events and the log show, keep and hash no secret."""

import dataclasses
import logging
import os
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from executor.domain import events
from executor.domain.changes import ChangeKind
from executor.domain.events import Payload, StepOutput
from executor.domain.plan import (
    Action,
    AppendText,
    CreateFile,
    DeletePath,
    ListDirectory,
    MovePath,
    ReadFile,
    SearchFiles,
    SetMode,
    Stage,
)
from executor.domain.plan import TestExpectation as Expectation
from executor.domain.receipt import (
    ControlRecord,
    EffectRecord,
    EffectState,
    ExecutionResult,
    Outcome,
    StepReceipt,
)
from executor.domain.redaction import Redactor
from executor.domain.report import (
    Excerpt,
    ListEvidence,
    ReadEvidence,
    ReportStatus,
    SearchEvidence,
    TestCase,
    TestCaseStatus,
)
from executor.runner.log_redaction import keep_out_of_log
from executor.runner.ports import Simulation
from executor.runner.redacted import WORDS, redacted, redacted_result, redacted_simulation
from gonogo.digests import digest as digest_of
from tests.unit.executor.plan_house import PlanHouse, plan_house, shell, suite
from tests.unit.executor.secret_house import CANARY, DEPLOY, MARKER, VALUE, file, leaks

__all__ = ["file"]

AT = datetime(2026, 1, 2, tzinfo=UTC)


class TestDryRun:
    """Everything that a plan can have shown."""

    @pytest.fixture
    def house(self, tmp_path: Path) -> Iterator[PlanHouse]:
        with plan_house(tmp_path / "house") as opened:
            opened.redactor = Redactor([DEPLOY])
            (opened.root / "conf.ini").write_text(f"[site]\ntoken = {VALUE}\nname = x\n")
            yield opened

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        (tmp_path / "house").mkdir()

    def told(self, house: PlanHouse, *actions: Action, status: ReportStatus = ReportStatus.SUCCESS) -> Simulation:
        """Dry-run some actions; nothing of the value is in what it found, in the events or in what was kept."""
        found = redacted_simulation(house.simulate(house.plan(*actions)), house.redactor)
        assert found.status is status, found.problems
        everything = repr(found).encode() + repr(house.events).encode()
        assert house.redactor.find(everything) is None
        assert leaks(house.folder / "objects", CANARY) == []
        assert all(house.redactor.find(data) is None for data in house.small.values())
        return found

    def test_a_read_shows_the_file_without_it(self, house: PlanHouse) -> None:
        """The digest is of the file as it is: what is executed is compared with it."""
        evidence = self.told(house, ReadFile(path="conf.ini")).steps[0].evidence
        assert isinstance(evidence, ReadEvidence)
        assert evidence.preview.head == f"[site]\ntoken = {MARKER}\nname = x\n"
        assert evidence.node.digest == digest_of((house.root / "conf.ini").read_bytes())

    def test_a_preview_that_is_cut_in_the_middle_of_it_shows_neither_end(self, house: PlanHouse) -> None:
        """At each place where it can lie across a cut."""
        for before in range(3060, 3075):
            data = b"a" * before + CANARY + b"b" * 5000 + CANARY + b"c" * (before - 2060)
            (house.root / "large").write_bytes(data)
            evidence = self.told(house, ReadFile(path="large")).steps[0].evidence
            assert isinstance(evidence, ReadEvidence)
            assert not any(VALUE[at : at + 5] in evidence.preview.head for at in range(18))
            assert not any(VALUE[at : at + 5] in evidence.preview.tail for at in range(18))

    def test_a_search_shows_lines_without_it_and_finds_them_again(self, house: PlanHouse) -> None:
        """Match and digest are of the redacted line; the check for drift and the execution agree."""
        action = SearchFiles(pattern="token", path=".", literal=True)
        plan = house.plan(action)
        found = self.told(house, action)
        evidence = found.steps[0].evidence
        assert isinstance(evidence, SearchEvidence)
        assert [match.text for match in evidence.matches] == [f"token = {MARKER}"]
        assert house.drift(plan, found) == ()
        assert house.execute(plan, found).outcome is Outcome.SUCCESS

    def test_a_listing_shows_names_and_links_without_it(self, house: PlanHouse) -> None:
        """The name of a file may be the secret."""
        (house.root / f"{VALUE}.txt").write_text("")
        (house.root / "link").symlink_to(f"/run/{VALUE}")
        found = self.told(house, ListDirectory(path="."))
        evidence = found.steps[0].evidence
        assert isinstance(evidence, ListEvidence)
        assert f"{MARKER}.txt".encode() in [name for name, _ in evidence.entries]
        assert f"/run/{MARKER}".encode() in [node.link_target for _, node in evidence.entries]
        assert house.drift(house.plan(ListDirectory(path=".")), found) == ()

    @pytest.mark.parametrize(
        "script",
        [
            "cat conf.ini",
            "base64 conf.ini",
            "base64 -w 13 conf.ini",
            "od -An -v -tx1 conf.ini | tr -d '\\n'",
            "cat conf.ini >&2",
            "head -c 25 conf.ini; sleep 0.2; tail -c +26 conf.ini",
            'yes "$(cat conf.ini)" | head -c 300000',
        ],
    )
    def test_output_is_told_without_it_in_whatever_pieces_it_comes(self, house: PlanHouse, script: str) -> None:
        """Excerpts, digests and events are all of the redacted stream."""
        found = self.told(house, shell(script))
        said = "".join(one.text for one in house.events if isinstance(one, StepOutput))
        assert MARKER in said
        assert MARKER in repr(found)

    def test_the_digest_of_output_is_over_what_is_shown(self, house: PlanHouse) -> None:
        """It would else tell a guess from the value."""
        evidence = self.told(house, shell("cat conf.ini")).steps[0].evidence
        shown = f"[site]\ntoken = {MARKER}\nname = x\n".encode()
        assert (evidence.stdout.digest, evidence.stdout.total_bytes) == (digest_of(shown), len(shown))  # type: ignore[union-attr]  # a command's

    def test_a_failing_command_does_not_say_it_in_its_problem(self, house: PlanHouse) -> None:
        """The end of what it said is part of the message."""
        found = self.told(house, shell("cat conf.ini >&2; exit 3"), status=ReportStatus.FAILED)
        assert MARKER in found.problems[0].message

    def test_a_test_run_with_it_in_its_results_is_counted_and_told_without_it(self, house: PlanHouse) -> None:
        """The JUnit file's text is nobody's to see, nor that of a broken one in the message."""
        suited = (
            "printf '<testsuite><testcase><failure>%s</failure></testcase></testsuite>' \"$(cat conf.ini)\" > j.xml"
        )
        found = self.told(house, suite(suited, junit="j.xml", expect=Expectation.FAIL))
        assert found.steps[0].evidence.failures == 1  # type: ignore[union-attr]  # a test run's
        broken = "printf '<%s/>' $(cut -d ' ' -f 3 conf.ini | sed -n 2p) > j.xml"
        failed = self.told(house, suite(broken, junit="j.xml"), status=ReportStatus.FAILED)
        assert failed.problems[0].reason == "JUNIT_UNREADABLE"

    @pytest.mark.parametrize(
        ("action", "path"),
        [
            (shell("cp conf.ini copy.ini"), "copy.ini"),
            (shell("{ head -c 100000 /dev/zero; cat conf.ini; } > large"), "large"),
            (shell("truncate -s 1M sparse; cat conf.ini >> sparse"), "sparse"),
            (shell("base64 -w 0 conf.ini > copy.b64"), "copy.b64"),
            (AppendText(path="conf.ini", content="more = 1\n"), "conf.ini"),
            (shell("sed -i s/token.*/token=/ conf.ini"), "conf.ini"),
            (DeletePath(path="conf.ini", recursive=False), "conf.ini"),
            (shell("ln -s /run/$(sed -n 's/token = //p' conf.ini) link"), "link"),
            (shell("touch $(sed -n 's/token = //p' conf.ini)"), MARKER),
        ],
    )
    def test_a_change_that_holds_it_is_unsafe_and_kept_nowhere(
        self, house: PlanHouse, action: Action, path: str
    ) -> None:
        """New or old content, name or link target: the path is named, and its bytes are no object."""
        found = self.told(house, action, status=ReportStatus.UNSAFE)
        assert ("SECRET_EXPOSED", path) in [(one.reason, one.path) for one in found.problems]
        assert "deploy" in found.problems[0].message

    def test_a_file_that_holds_it_can_be_moved_and_given_bits(self, house: PlanHouse) -> None:
        """Neither shows its content, and neither keeps it."""
        plan = house.plan(SetMode(path="conf.ini", mode=0o600), MovePath(path="conf.ini", to="site.ini"))
        found = self.told(house, *(step.action for step in plan.steps))
        assert [one.changes[0].kind for one in found.steps] == [ChangeKind.METADATA, ChangeKind.MOVE]
        assert house.execute(plan, found).outcome is Outcome.SUCCESS
        assert VALUE in (house.root / "site.ini").read_text()

    def test_a_workspace_with_it_in_a_name_has_no_list_of_names_kept(self, house: PlanHouse) -> None:
        """The list of what commands saw can not be told without the name, so the dry run does not succeed."""
        (house.root / VALUE).write_text("")
        found = self.told(house, shell("true"), status=ReportStatus.UNSAFE)
        assert found.manifest_digest == ""

    def test_an_attribute_that_holds_it_is_not_reported(self, house: PlanHouse) -> None:
        """A report names attributes exactly; this one it can not."""
        os.setxattr(house.root / "conf.ini", "user.token", CANARY)
        found = self.told(house, ReadFile(path="conf.ini"), status=ReportStatus.UNSAFE)
        assert found.problems[0].reason == "SECRET_EXPOSED"
        self.told(house, SetMode(path="conf.ini", mode=0o600), status=ReportStatus.UNSAFE)

    def test_a_sandboxed_command_is_given_none(
        self, house: PlanHouse, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither its own environment nor that of any process it sees has one, nor can it open a secret's file."""
        monkeypatch.setenv("DEPLOY_TOKEN", VALUE)
        house.redactor = Redactor()
        found = house.simulate(
            house.plan(shell(f"cat {file}; tr '\\0' '\\n' < /proc/1/environ; cat /proc/*/environ; env"))
        )
        evidence = found.steps[0].evidence
        assert "HOME=" in evidence.stdout.head  # type: ignore[union-attr]  # a command's
        assert VALUE not in repr(evidence)
        assert "No such file" in evidence.stderr.head  # type: ignore[union-attr]  # a command's

    def test_without_a_redactor_all_of_it_shows(self, house: PlanHouse) -> None:
        """These tests can fail: an executor that does not know the secret tells it."""
        house.redactor = Redactor()
        found = house.simulate(
            house.plan(
                ReadFile(path="conf.ini"), CreateFile(path="x", content=CANARY, mode=0o644), shell("cat conf.ini")
            )
        )
        assert found.status is ReportStatus.SUCCESS
        assert VALUE in repr(found.steps[0])
        assert VALUE in repr(found.steps[2])
        assert VALUE in repr(house.events)
        assert CANARY in house.small.values()


class TestWords:
    """What is told in words."""

    def test_every_event_is_in_the_table(self) -> None:
        """A new kind of event must say which of its fields are words."""
        assert set(typing.get_args(Payload)) <= WORDS.keys()

    def test_every_text_of_the_tables_classes_is_words_or_known_not_to_be(self) -> None:
        """A new text field is noticed here."""
        names = {
            field.name
            for one, words in WORDS.items()
            for field in dataclasses.fields(one)
            if "str" in str(field.type) and field.name not in words
        }
        assert names == {
            "abort_reason",
            "action",
            "action_type",
            "after_fingerprint",
            "answer_digest",
            "approval_id",
            "approver",
            "change_set_digest",
            "checkpoint_id",
            "digest",
            "execution_id",
            "executor_id",
            "idempotency_key",
            "key_id",
            "kind",
            "mission_id",
            "operation",
            "person",
            "plan_digest",
            "plan_id",
            "reason",
            "receipt_digest",
            "receipt_id",
            "reconciliation_id",
            "refusal_id",
            "report_digest",
            "results_digest",
            "revocation_id",
            "step_id",
            "stream",
        }

    def test_the_log_shows_neither_messages_nor_traces_with_it(self) -> None:
        """Whatever logger a record comes from, and whatever error made it."""
        written = StringIO()
        handler = logging.StreamHandler(written)
        logging.getLogger().addHandler(handler)
        end = keep_out_of_log(lambda: Redactor([DEPLOY]))
        try:
            logger = logging.getLogger("some.library")
            logger.error("the token %s is wrong", VALUE)
            try:
                int(VALUE)
            except ValueError:
                logger.exception("failed")
            logger.error("here", stack_info=True)
        finally:
            end()
            logging.getLogger().removeHandler(handler)
        assert VALUE not in written.getvalue()
        assert f"the token {MARKER} is wrong" in written.getvalue()
        assert f"with base 10: '{MARKER}'" in written.getvalue()


def test_a_receipt_shows_no_secret_anywhere() -> None:
    """Answers of far sides, test cases, and the words of persons are told without it; ids and digests stay."""
    said = f"it said {VALUE} twice: {VALUE}"
    effect = EffectRecord(
        state=EffectState.DONE,
        idempotency_key="x-1-s1",
        summary=said,
        answer=Excerpt(head=said, tail=said, total_bytes=9, digest=digest_of(b""), truncated=True),
        compensation=said,
    )
    step = StepReceipt(
        step_id="s1",
        operation="call_tool",
        target=said,
        action_type="live",
        stage=Stage.EDIT,
        started_at=AT,
        completed_at=AT,
        duration_ms=1,
        precondition_met=True,
        precondition_detail=said,
        expected_vs_actual_match=True,
        actual_state_change=(),
        success=True,
        rollback_invoked=False,
        rollback_succeeded=False,
        error_message=said,
        test_verdict=None,
        effect=effect,
        test_cases=(TestCase(name=said, status=TestCaseStatus.FAILED, message=said),),
    )
    result = ExecutionResult(
        outcome=Outcome.PARTIAL,
        steps=(step,),
        before=(),
        after=(),
        after_fingerprint="",
        divergence_details=(said,),
        abort_reason="STOPPED",
        errors=(said,),
        controls=(ControlRecord(action="stop", actor=said, reason=said, time=AT),),
    )
    redactor = Redactor([DEPLOY])
    told = redacted_result(result, redactor)
    assert redactor.find(repr(told).encode()) is None
    assert repr(told).count(MARKER) == 26
    assert told.steps[0].effect is not None
    assert told.steps[0].effect.idempotency_key == "x-1-s1"


@pytest.mark.parametrize(
    "payload",
    [
        events.ExecutionPaused(reason=f"it said {VALUE}"),
        events.ExecutionStopped(actor=f"a {VALUE}", reason=f"b {VALUE}", roll_back=False),
        events.ExecutionResumed(action="retry", actor=f"a {VALUE}"),
        events.FailureDetected(step_id="s1", reason="R", message=f"a {VALUE}", kind="call_tool", path=f"b/{VALUE}"),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_what_is_told_of_a_pause_shows_no_secret(payload: Payload) -> None:
    """Whoever said it, and whatever it is about."""
    redactor = Redactor([DEPLOY])
    assert redactor.find(repr(redacted(payload, redactor)).encode()) is None
