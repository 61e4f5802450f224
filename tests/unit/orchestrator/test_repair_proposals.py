"""The repair proposer that needs no model: what it blames, and what it proposes."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from orchestrator.adapters.repair_command import RepairCommand
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.events import FailureDetected
from orchestrator.domain.findings import (
    CaseStatus,
    Findings,
    FoundCase,
    FoundChange,
    FoundKind,
    FoundNode,
    FoundProblem,
    StepFinding,
)
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import (
    Action,
    CreateFile,
    DeletePath,
    HttpRequest,
    MovePath,
    PlanDraft,
    RunCommand,
    RunTests,
    Step,
    WriteFile,
)
from orchestrator.domain.repairs import blame, without_stretch
from orchestrator.service.ports import RepairCase
from orchestrator.service.repair_proposals import RevertingProposer

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OLD = b"def total(items):\n    return sum(items)\n" + b"\n" * 20 + b"def count(items):\n    return len(items)\n"
NEW = OLD.replace(b"sum(items)", b"sum(items) + 1").replace(b"len(items)", b"len(list(items))")
TESTS = Step(step_id="s9", action=RunTests(argv=("pytest",), env={}))


def digest(content: bytes) -> str:
    return "sha256:" + sha256(content).hexdigest()


def node(content: bytes, mode: str = "0644") -> FoundNode:
    return FoundNode(type="file", mode=mode, digest=digest(content))


def modified(path: str, old: bytes, new: bytes) -> FoundChange:
    return FoundChange(path=path, kind=FoundKind.MODIFY, old=node(old), new=node(new))


def edit(step_id: str, path: str, content: bytes) -> Step:
    return Step(step_id=step_id, action=WriteFile(path=path, content=content.decode()))


def done(step_id: str, *changes: FoundChange, kind: str = "write_file") -> StepFinding:
    return StepFinding(step_id=step_id, kind=kind, success=True, changes=changes)


def failed(step_id: str, said: str) -> StepFinding:
    case = FoundCase(name="test_total", status=CaseStatus.FAILED, message=said)
    return StepFinding(step_id=step_id, kind="run_tests", success=False, cases=(case,))


def case_of(
    steps: tuple[Step, ...],
    found: tuple[StepFinding, ...],
    *,
    failure: str = "",
    output: str = "",
    objects: Mapping[str, bytes] | None = None,
) -> RepairCase:
    """Return a case: of a dry run that failed at its last finding, or of an execution that failed at a step."""
    kept = {digest(OLD): OLD, digest(NEW): NEW} if objects is None else objects

    async def read(wanted: str) -> bytes:
        if wanted not in kept:
            raise RequestRefusedError(Reason.NOT_FOUND, "gone", "dry-run again")
        return kept[wanted]

    mission = Mission(
        mission_id="m-1",
        status=MissionStatus.PAUSED if failure else MissionStatus.PROPOSED,
        created_at=NOW,
        updated_at=NOW,
        last_sequence=1,
        objective="change the shop",
        workspace_id="site",
        executor_id="executor-1",
        intent_id="i-1",
        proposer="owner",
    )
    problem = FoundProblem(step_id=found[-1].step_id, path="", reason="TESTS_UNEXPECTED", message="1 failed", remedy="")
    detected = FailureDetected(step_id=failure, reason="DIVERGED", message="the verdict is fail") if failure else None
    return RepairCase(
        mission=mission,
        plan=PlanDraft(objective="change the shop", workspace="site", steps=steps),
        findings=Findings(steps=found, problems=() if failure else (problem,)),
        failure=detected,
        output=output,
        standing=frozenset(one.step_id for one in found if one.success) if failure else frozenset(),
        read_object=read,
        max_content_bytes=1 << 20,
    )


async def proposed(case: RepairCase) -> tuple[Action, ...]:
    draft = await RevertingProposer().propose(case)
    assert draft is not None
    assert draft.workspace == "site"
    assert all(not step.step_id for step in draft.steps)
    return tuple(step.action for step in draft.steps)


async def test_a_failing_dry_run_leaves_out_the_edit_whose_file_the_test_names() -> None:
    """Another edit stays, though it is newer; the tests follow."""
    steps = (edit("s1", "shop/cart.py", NEW), edit("s2", "readme.md", b"new\n"), TESTS)
    cart = modified("shop/cart.py", NEW, OLD)
    found = (done("s1", cart), done("s2", modified("readme.md", b"old\n", b"new\n")))

    case = case_of(steps, (*found, failed("s9", "shop/cart.py: assert 2 == 1")))
    assert await proposed(case) == (steps[1].action, TESTS.action)


@pytest.mark.parametrize("test", ["test_prices.py", "tests/prices.py", "src/prices.spec.ts", "pkg/prices_test.go"])
def test_a_test_is_blamed_only_where_nothing_else_is_left(test: str) -> None:
    """It is named wherever it fails; the cause is rarely in it."""
    code, tested = modified("prices.py", b"a\n", b"b\n"), modified(test, b"a\n", b"b\n")
    said = f"{test}:2: AssertionError\n" * 3
    both, alone = blame([done("s1", code, tested)], said), blame([done("s1", tested)], said)
    assert both is not None
    assert both.change == code
    assert alone is not None
    assert alone.change == tested


async def test_of_a_file_that_changed_in_two_places_only_the_named_one_goes_back() -> None:
    """The traceback names line 2; what was done at the end of the file stays."""
    steps = (edit("s1", "shop/cart.py", NEW), TESTS)
    found = (done("s1", modified("shop/cart.py", OLD, NEW)), failed("s9", 'File "/w/shop/cart.py", line 2, in total'))

    action, tests = await proposed(case_of(steps, found))

    assert isinstance(action, WriteFile)
    assert action.content == NEW.replace(b"sum(items) + 1", b"sum(items)").decode()
    assert tests == TESTS.action


async def test_a_paused_execution_takes_the_committed_change_back_and_goes_on_from_the_step_that_failed() -> None:
    """What is done is not done again: only the reverting step, the tests and what comes after them are left."""
    after = edit("s10", "notes.md", b"done\n")
    steps = (edit("s1", "shop/cart.py", NEW), TESTS, after)
    found = (done("s1", modified("shop/cart.py", OLD, NEW)), done("s9", kind="run_tests"), done("s10"))
    case = replace(case_of(steps, found, failure="s9", output="shop/cart.py failed"), standing=frozenset({"s1"}))

    draft = await RevertingProposer().propose(case)

    assert draft is not None
    assert draft.objective.startswith("Repair: take back shop/cart.py as it was before s1")
    assert draft.steps[0].stage is None
    assert [step.action for step in draft.steps] == [
        WriteFile(path="shop/cart.py", content=OLD.decode(), mode="0644"),
        TESTS.action,
        after.action,
    ]


@pytest.mark.parametrize(
    ("change", "action"),
    [
        (FoundChange(path="a", kind=FoundKind.CREATE, new=node(NEW)), DeletePath(path="a")),
        (
            FoundChange(path="a", kind=FoundKind.CREATE, new=FoundNode(type="directory", mode="0755")),
            DeletePath(path="a", recursive=True),
        ),
        (
            FoundChange(path="a", kind=FoundKind.DELETE, old=node(OLD, "0600")),
            CreateFile(path="a", content=OLD.decode(), mode="0600"),
        ),
        (
            FoundChange(path="b", kind=FoundKind.MOVE, old=node(OLD), new=node(OLD), moved_from="a"),
            MovePath(path="b", to="a"),
        ),
    ],
)
async def test_every_kind_of_change_has_its_way_back(change: FoundChange, action: Action) -> None:
    """What was made is deleted, what was deleted is made again, what was moved moves back."""
    steps = (edit("s1", "a", NEW), TESTS)
    case = case_of(steps, (done("s1", change), done("s9", kind="run_tests")), failure="s9")

    found = await proposed(replace(case, standing=frozenset({"s1"})))

    assert found == (action, TESTS.action)


async def test_a_change_that_a_command_made_is_taken_back_by_a_step_before_the_tests() -> None:
    """A command can not be told to do a part of its work, so it stays, and its bad change is undone after it."""
    command = Step(step_id="s1", action=RunCommand(argv=("make", "all"), env={}))
    found = (done("s1", modified("shop/cart.py", OLD, NEW), kind="run_command"), failed("s9", "shop/cart.py is wrong"))

    actions = await proposed(case_of((command, TESTS), found))

    assert actions == (
        command.action,
        WriteFile(path="shop/cart.py", content=OLD.decode(), mode="0644"),
        TESTS.action,
    )


async def test_an_edit_that_fails_by_itself_is_left_out() -> None:
    """Its file is not as it should be; the rest of the plan does not need it."""
    steps = (edit("s1", "a", b"x"), edit("s2", "b", b"y"))
    found = (StepFinding(step_id="s1", kind="write_file", success=False),)

    assert await proposed(case_of(steps, found)) == (steps[1].action,)


async def test_an_execution_goes_on_without_a_live_step_that_failed() -> None:
    """Its effect may have happened, and is not begun again; in a dry run nobody but its author can mend it."""
    live = Step(step_id="s1", action=HttpRequest(method="POST", url="https://example.org/"))
    steps = (live, edit("s2", "b", b"y"))
    found = (StepFinding(step_id="s1", kind="http_request", success=True),)
    case = replace(case_of(steps, found, failure="s1"), standing=frozenset())

    assert await proposed(case) == (steps[1].action,)
    assert await RevertingProposer().propose(replace(case, plan=replace(case.plan, steps=(live,)))) is None
    assert await RevertingProposer().propose(case_of(steps, found)) is None


@pytest.mark.parametrize("what", ["nothing changed", "former content gone", "binary", "nothing left"])
async def test_where_nothing_sensible_can_be_said_there_is_no_proposal(what: str) -> None:
    """A person makes the plan then."""
    binary = b"\xff\xfe\x00"
    change = modified("a", binary if what == "binary" else OLD, NEW)
    changes = () if what == "nothing changed" else (change,)
    objects = {} if what == "former content gone" else {digest(binary): binary, digest(NEW): NEW}
    steps: tuple[Step, ...] = (edit("s1", "a", NEW), TESTS)
    case = case_of(steps, (done("s1", *changes), done("s9", kind="run_tests")), failure="s9", objects=objects)
    if what == "nothing left":
        case = case_of((edit("s1", "a", NEW),), (StepFinding(step_id="s1", kind="write_file", success=False),))

    assert await RevertingProposer().propose(replace(case, standing=case.standing - {"s9"})) is None


ANSWERING = """
import json, sys
case = json.load(sys.stdin)
assert case["changes"][0]["diff"].startswith("--- a/shop/cart.py")
step = {"step_id": "fix", "write_file": {"path": case["changes"][0]["path"], "content": "better"}}
print(json.dumps({"objective": "a model says so", "workspace": "site", "steps": [step]}))
"""


@pytest.mark.parametrize(
    ("program", "objective"),
    [
        (ANSWERING, "a model says so"),
        ("", "Repair: take back"),
        ("print('I would rather not')", "Repair: take back"),
        ("print('{}')", "Repair: take back"),
        (ANSWERING.replace('"better"', '"\\ud800"'), "Repair: take back"),
        ("raise SystemExit(1)", "Repair: take back"),
        ("import time; time.sleep(60)", "Repair: take back"),
        ("print('x' * 5_000_000)", "Repair: take back"),
    ],
    ids=["answers", "silent", "prose", "nothing in it", "half a character", "fails", "hangs", "floods"],
)
async def test_the_operators_program_is_asked_first_and_can_break_nothing(program: str, objective: str) -> None:
    """What it says is a draft like any other; where it says nothing usable, the reverting proposer is asked."""
    steps = (edit("s1", "shop/cart.py", NEW), TESTS)
    found = (done("s1", modified("shop/cart.py", OLD, NEW)), done("s9", kind="run_tests"))
    case = replace(case_of(steps, found, failure="s9"), standing=frozenset({"s1"}))
    command = shlex.join([sys.executable, "-c", program])

    draft = await RepairCommand(command=command, otherwise=RevertingProposer(), seconds=2).propose(case)

    assert draft is not None
    assert draft.objective.startswith(objective)


def test_lines_beside_every_change_take_the_whole_file_back() -> None:
    """Nobody knows better then."""
    assert without_stretch(OLD, NEW, [12]) == OLD
    assert without_stretch(OLD, NEW, []) == OLD
    assert without_stretch(OLD, NEW, [2]) == NEW.replace(b"sum(items) + 1", b"sum(items)")
    assert without_stretch(OLD, NEW, [2, 24]) == OLD
