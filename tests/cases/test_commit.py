"""What was approved is committed, byte for byte, once, and whole: or nothing of it is."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from executor.domain.sealed import SealedBytes
from executor.runner.executions import RefusedError
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.cases import execute_stored
from tests.cases.case import case
from tests.cases.case_house import (
    CaseHouse,
    Step,
    Tried,
    appended,
    case_house,
    created,
    deleted,
    listed,
    made,
    moved,
    names_in,
    python,
    read,
    shell,
    tree_of,
    written,
)

SUCCEEDED = evidence_pb2.OUTCOME_SUCCESS
UNDONE = {evidence_pb2.OUTCOME_ROLLED_BACK, evidence_pb2.OUTCOME_ABORTED}

STEPS: list[Step] = [
    shell("for f in a b c; do echo new > $f; done; rm gone; mkdir n; echo n > n/n; mv moved n/moved; chmod 700 d"),
    shell("echo newer > a; rm -r d; echo last > last"),
]


def lay_out(site: Path) -> None:
    """The workspace that the steps change."""
    for name in ("a", "b", "c", "gone", "moved"):
        (site / name).write_text(f"old {name}\n")
    (site / "d").mkdir()
    (site / "d" / "e").write_text("old\n")


def traced(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Execute the stored request under strace, which looks at renameat2 of the executing thread alone."""
    program = ["strace", "-qq", "-o", str(folder / "trace"), "-e", "trace=renameat2", *options]
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [*program, sys.executable, "-m", "tests.cases.execute_stored", folder],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def tracing() -> None:
    """What stops an executor at a chosen rename."""
    if (
        shutil.which("strace") is None
        or subprocess.run(["strace", "-qq", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine has no strace, or lets no process be traced")


@case("S48")
def test_a_kill_in_the_middle_of_the_commit_leaves_all_or_nothing(tmp_path: Path, tracing: None) -> None:
    """Killed at several of its renames, the executor's next start makes it whole or takes it back, and says so.

    Some of the kills must have left a mixture, or nothing was shown.
    """
    with case_house(tmp_path / "whole") as house:
        lay_out(house.site)
        old = contents(house.site)
        house.mission(*STEPS)
        new = contents(house.site)
    mixed, ends = 0, []
    for number in (1, 3, 5, 8, 11):
        folder = tmp_path / f"kill{number}"
        with case_house(folder) as house:
            lay_out(house.site)
            execute_stored.store(folder, house.approved(house.worked(*STEPS, mission="m-kill")))
        traced(folder, "-e", f"inject=renameat2:signal=KILL:when={number}")
        assert (folder / "began").exists()
        mixed += contents(folder / "site") not in (old, new)
        with case_house(folder) as house:
            receipt = house.receipt("m-kill")
            found = contents(house.site)
            assert (receipt.execution_status, found) in {(SUCCEEDED, new), *((end, old) for end in UNDONE)}, (
                receipt.errors
            )
            ends.append(evidence_pb2.Outcome.Name(receipt.execution_status))
            with pytest.raises(RefusedError) as caught:
                house.execute(execute_request(folder))
            assert caught.value.fault.reason == "ALREADY_EXECUTED"
            house.mission(created("after"))
        with case_house(folder) as house:
            assert house.receipt("m-kill") == receipt, "a second start changes nothing"
    assert mixed >= 2, "the harness must have killed between renames"
    assert ends


def contents(site: Path) -> tuple[tuple[bytes, object], ...]:
    """Names, types, bits and bytes; times are the rollback cases' business."""
    tree = tree_of(site)
    return tuple(sorted((path, (facts[0], facts[5])) for path, facts in tree.items()))


def execute_request(folder: Path) -> ExecuteInput:
    import pickle
    from dataclasses import replace

    request: ExecuteInput = pickle.loads((folder / execute_stored.STORED).read_bytes())
    return replace(request, request_id="q-again")


def saved_meanwhile(folder: Path, *moments: int) -> evidence_pb2.Receipt:
    """Execute a mission on three files, every rename held up, and save the third after so many renames."""
    with case_house(folder) as house:
        for name in ("a", "b", "c"):
            (house.site / name).write_text("old\n")
        found = house.worked(shell("for f in a b c; do echo new >> $f; done"), mission="m-edit")
        execute_stored.store(folder, house.approved(found))
    script = ""
    for moment in moments:
        script += f"until [ $(grep -c renameat2 trace) -ge {moment} ]; do sleep 0.01; done; "
        script += f"echo edited {moment} > site/c~; mv site/c~ site/c; "
    editor = subprocess.Popen(["sh", "-c", script], cwd=folder, stderr=subprocess.DEVNULL)
    traced(folder, "-e", "inject=renameat2:delay_exit=300000")
    assert editor.wait(10) == 0
    with case_house(folder) as house:
        return house.receipt("m-edit")


@case("S50", "X120")
def test_an_editor_between_check_and_rename_is_put_back(tmp_path: Path, tracing: None) -> None:
    """A file saved while the kernel holds the renames up comes back to its name, and the rest is undone."""
    receipt = saved_meanwhile(tmp_path, 1)
    assert (receipt.execution_status, receipt.abort_reason) == (evidence_pb2.OUTCOME_ABORTED, "BASE_DRIFTED")
    site = tmp_path / "site"
    assert [(site / name).read_text() for name in ("a", "b", "c")] == ["old\n", "old\n", "edited 1\n"]
    assert not (site / "c~").exists()


@case("X125")
def test_an_editor_who_saves_again_while_the_first_save_is_put_back(tmp_path: Path, tracing: None) -> None:
    """The last text saved is at the name in the end, or kept and named: a save is never lost to the putting back."""
    receipt = saved_meanwhile(tmp_path, 1, 3)
    assert receipt.execution_status in {evidence_pb2.OUTCOME_ABORTED, evidence_pb2.OUTCOME_UNKNOWN}
    staged = (tmp_path / "state" / "staging" / "site").glob("x-*.?")
    kept = {path.read_text() for path in staged} if receipt.execution_status == evidence_pb2.OUTCOME_UNKNOWN else set()
    assert "edited 3\n" in {(tmp_path / "site" / "c").read_text(), *kept}
    assert [(tmp_path / "site" / name).read_text() for name in ("a", "b")] == ["old\n", "old\n"]


def other_byte(plan: plan_pb2.Plan) -> None:
    plan.steps[0].create_file.content = "approved?\n"


def other_mode(plan: plan_pb2.Plan) -> None:
    plan.steps[0].create_file.mode = "0645"


def other_order(plan: plan_pb2.Plan) -> None:
    first, second = plan.steps[0], plan_pb2.Step()
    second.CopyFrom(plan.steps[1])
    plan.steps[1].CopyFrom(first)
    plan.steps[0].CopyFrom(second)


def extra_file(plan: plan_pb2.Plan) -> None:
    plan.steps.add(step_id="s9", stage=plan_pb2.STAGE_EDIT, create_file=plan_pb2.CreateFile(path="extra", content=""))


def fewer_steps(plan: plan_pb2.Plan) -> None:
    del plan.steps[1]


def other_path(plan: plan_pb2.Plan) -> None:
    plan.steps[1].create_file.path = "B"


def wider_scope(plan: plan_pb2.Plan) -> None:
    plan.scope.max_duration_seconds += 1


def other_policy(plan: plan_pb2.Plan) -> None:
    plan.failure_policy = plan_pb2.FAILURE_POLICY_CONTINUE


def other_words(plan: plan_pb2.Plan) -> None:
    plan.objective += "!"


FORGERIES = (
    other_byte,
    other_mode,
    other_order,
    extra_file,
    fewer_steps,
    other_path,
    wider_scope,
    other_policy,
    other_words,
)
A: list[Step] = [created("a", "approved\n"), created("b", "approved\n")]


@case("S52")
@pytest.mark.parametrize("forge", FORGERIES)
def test_what_was_not_approved_is_refused(house: CaseHouse, forge: Callable[[plan_pb2.Plan], None]) -> None:
    """Approve A, submit B: another byte, bit, order, file or scope is refused in every combination of documents."""
    first = house.worked(*A)
    plan = sealing.open_sealed(first.plan.body, plan_pb2.Plan)
    forge(plan)
    second = house.dry_run(plan)
    before = tree_of(house.site)
    approval = house.signed(house.approval(first))
    bent = house.approval(
        first, plan_digest=second.plan.digest, report_id=second.report.report_id, report_digest=second.sealed.digest
    )
    unsigned = SealedBytes(media_type=sealing.APPROVAL, body=sealing.seal(bent), signatures=approval.signatures)
    for asked, reasons in (
        (house.request(second.plan, first.sealed, approval), {"PLAN_MISMATCH"}),
        (house.request(second.plan, second.sealed, approval), {"PLAN_MISMATCH", "NOT_APPROVED"}),
        (house.request(first.plan, second.sealed, approval), {"PLAN_MISMATCH", "NOT_APPROVED"}),
        (house.request(second.plan, second.sealed, unsigned), {"SIGNATURE_INVALID"}),
        (house.request(second.plan, second.sealed), {"NOT_APPROVED"}),
    ):
        with pytest.raises(RefusedError) as caught:
            house.execute(asked)
        assert caught.value.fault.reason in reasons
        assert tree_of(house.site) == before
    house.execute(house.request(first.plan, first.sealed, approval))
    assert names_in(house.site) == ["a", "b"]


@case("S52")
def test_a_report_that_was_touched_is_refused(house: CaseHouse) -> None:
    """A change set with another digest, mode, order, path or one change more is no report that this executor issued."""
    found = house.worked(*A)

    def digest(report: evidence_pb2.Report) -> None:
        report.steps[0].changes[0].new.digest = "sha256:" + "0" * 64

    def mode(report: evidence_pb2.Report) -> None:
        report.steps[0].changes[0].new.mode = "0645"

    def order(report: evidence_pb2.Report) -> None:
        report.steps.reverse() if hasattr(report.steps, "reverse") else None

    def more(report: evidence_pb2.Report) -> None:
        report.steps[0].changes.add().CopyFrom(report.steps[1].changes[0])

    def status(report: evidence_pb2.Report) -> None:
        report.risk.level = evidence_pb2.RISK_LEVEL_LOW
        report.report_id += "x"

    for touch in (digest, mode, order, more, status):
        report = sealing.open_sealed(found.sealed.body, evidence_pb2.Report)
        touch(report)
        forged = SealedBytes(media_type=sealing.REPORT, body=sealing.seal(report), signatures=found.sealed.signatures)
        bent = house.signed(house.approval(found, report_digest=forged.digest))
        with pytest.raises(RefusedError) as caught:
            house.execute(house.request(found.plan, forged, bent))
        assert caught.value.fault.reason == "REPORT_UNKNOWN"
    assert names_in(house.site) == []


@case("S52", "X121")
def test_contents_that_were_swapped_in_the_store_are_never_committed(house: CaseHouse) -> None:
    """Bytes in the executor's own store that are not what their digest says: nothing else is written under it."""
    found = house.worked(shell("head -c 3000000 /dev/zero | tr '\\0' a > big; echo small > small"))
    stored = [
        path
        for path in (house.state / "executor" / "objects").rglob("*")
        if path.is_file() and path.stat().st_size == 3_000_000
    ]
    assert stored
    for path in stored:
        path.chmod(0o600)
        path.write_bytes(b"b" * 3_000_000)
    receipt = house.execute(found)
    assert receipt.execution_status in UNDONE
    assert receipt.abort_reason in {"DIVERGED", "INTERNAL", "STORE_DAMAGED"}
    assert names_in(house.site) == []


@case("X121")
def test_a_command_is_not_run_a_second_time(house: CaseHouse) -> None:
    """What depends on time, chance and process numbers is committed as it was shown."""
    found = house.worked(
        python("import os, time; open('f', 'w').write(f'{time.time_ns()} {os.urandom(8)} {os.getpid()}')")
    )
    (change,) = found.report.steps[0].changes
    house.execute(found)
    assert (
        json.dumps(change.new.digest)[1:-1]
        == "sha256:"
        + subprocess.run(["sha256sum", house.site / "f"], capture_output=True, text=True, check=True).stdout.split()[0]
    )


LEVELS = {name: plan_pb2.LadderLevel.Value(f"LADDER_LEVEL_{name}") for name in ("L0", "L1", "L2", "L3")}


@case("X122")
@pytest.mark.parametrize("highest", ["L3", "L2", "L1", "L0"])
def test_what_a_ladder_level_can_not_do_is_refused_there(tmp_path: Path, highest: str) -> None:
    """Commands below L2 and changes at L0 are refused with a remedy, all else works; each report says its level."""
    with case_house(tmp_path, more=[f"--max-ladder-level={highest}"]) as house:
        (house.site / "a").write_text("old\n")
        (standing,) = house.core.describe().capabilities.workspaces
        assert standing.ladder_level.name == highest
        assert house.worked(read("a"), listed(".")).report.ladder_level == LEVELS[highest]
        for step, lowest in ((appended("a"), "L1"), (shell("echo x >> a; mkdir d; rm -f b"), "L2")):
            if highest >= lowest:
                house.mission(step)
            else:
                assert house.why_not(step) == "UNSUPPORTED"


@case("X122")
@pytest.mark.parametrize(
    ("highest", "wanted"),
    [("L1", "L3"), ("L2", "L3"), ("L0", "L1"), ("L1", "L2"), ("L3", "L3"), ("L1", "L1"), ("L2", "L1")],
)
def test_a_plan_may_demand_a_level(tmp_path: Path, highest: str, wanted: str) -> None:
    """Below it the executor refuses with the reason and never steps down silently; at or above it the plan runs."""
    with case_house(tmp_path, more=[f"--max-ladder-level={highest}"]) as house:
        (house.site / "a").write_text("old\n")
        scope = plan_pb2.Scope(min_ladder_level=LEVELS[wanted])
        assert house.why_not(read("a"), scope=scope) == ("" if highest >= wanted else "LADDER_TOO_LOW")


@case("X123")
def test_a_plan_of_many_steps_is_committed_in_order(house: CaseHouse) -> None:
    """Two hundred typed steps on one another, each from what the one before left."""
    steps = [made("d"), created("d/f0", "0\n")]
    for number in range(1, 65):
        steps += [
            moved(f"d/f{number - 1}", f"d/f{number}"),
            appended(f"d/f{number}", f"{number}\n"),
            written("d/last", str(number)),
        ]
    house.mission(*steps, deleted("d/last"))
    assert (house.site / "d" / "f64").read_text() == "".join(f"{number}\n" for number in range(65))
    assert names_in(house.site / "d") == ["f64"]


@case("X124")
def test_an_approval_of_one_mission_is_no_approval_of_another(house: CaseHouse) -> None:
    """The same plan under another mission, dry-run anew, needs an approval of its own; a nonce is used once."""
    first, second = house.worked(created("a")), house.worked(created("b"))
    approval = house.signed(house.approval(first))
    for request in (
        house.request(second.plan, second.sealed, approval),
        house.request(second.plan, second.sealed, crossed(house, first, second)),
    ):
        with pytest.raises(RefusedError):
            house.execute(request)
    house.execute(house.request(first.plan, first.sealed, approval))
    with pytest.raises(RefusedError) as caught:
        house.execute(
            house.request(
                second.plan, second.sealed, house.signed(house.approval(second, nonce=house.approval(first).nonce))
            )
        )
    assert caught.value.fault.reason == "NOT_APPROVED"
    assert names_in(house.site) == ["a"]


def crossed(house: CaseHouse, first: Tried, second: Tried) -> SealedBytes:
    """An approval of the second's documents under the first's mission."""
    return house.signed(house.approval(second, mission_id=first.report.mission_id, intent_id=first.report.intent_id))
