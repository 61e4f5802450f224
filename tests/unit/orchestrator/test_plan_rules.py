"""What makes a draft a plan, and which paths a scope covers."""

import time

import pytest

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.plan import (
    Action,
    AppendText,
    CallTool,
    Compensation,
    CreateDirectory,
    DeletePath,
    FailurePolicy,
    ListDirectory,
    LiveAccess,
    MovePath,
    NetworkAccess,
    PatchFile,
    PauseDefault,
    PauseRules,
    PlanDraft,
    ReadFile,
    ReadinessCheck,
    ReplaceText,
    RunCommand,
    RunLive,
    RunTests,
    Scope,
    SearchBodies,
    SearchFiles,
    SetMode,
    Stage,
    Step,
    TestExpectation,
    UndoStep,
    WriteFile,
)
from orchestrator.domain.plan_rules import completed
from orchestrator.domain.scope import pattern_of

LIMIT = 1000


def done(*actions: Action, scope: Scope | None = None, policy: FailurePolicy | None = None) -> PlanDraft:
    """Complete a draft of these actions."""
    steps = tuple(Step(action=action) for action in actions)
    draft = PlanDraft(objective="x", workspace="site", scope=scope, failure_policy=policy, steps=steps)
    return completed(draft, max_content_bytes=LIMIT)


@pytest.mark.quick
def test_defaults_are_filled_in() -> None:
    """A completed plan leaves nothing open."""
    plan = done(WriteFile(path="a", content=""), RunTests(argv=("pytest",), env={}))

    assert plan.scope == Scope(network=NetworkAccess.NONE, max_pages=1, max_duration_seconds=30)
    assert plan.failure_policy is FailurePolicy.PAUSE
    assert plan.pause == PauseRules(
        deadline_seconds=86_400, default_action=PauseDefault.ROLL_BACK, step_approval_seconds=3_600
    )
    assert [(step.step_id, step.stage) for step in plan.steps] == [("s1", Stage.EDIT), ("s2", Stage.TEST)]
    assert all(step.description for step in plan.steps)
    tests = plan.steps[1].action
    assert isinstance(tests, RunTests)
    assert tests.expect is TestExpectation.PASS


STAGES = [
    ("analyze the logs", Stage.RETRIEVE),
    ("Implement the parser", Stage.EDIT),
    ("verify that it builds", Stage.TEST),
    ("debug the crash", Stage.REPAIR),
    ("design the schema", Stage.PLAN),
    ("make -s all", Stage.EDIT),
    ("check, then fix", Stage.TEST),
]


@pytest.mark.parametrize(("description", "stage"), STAGES)
def test_a_command_s_stage_is_what_its_description_says(description: str, stage: Stage) -> None:
    """The first telling word decides; where none is, a command edits."""
    step = Step(description=description, action=RunCommand(argv=("make",), env={}))
    plan = completed(PlanDraft(objective="x", workspace="w", steps=(step,)), max_content_bytes=LIMIT)

    assert plan.steps[0].stage is stage


def test_a_stage_that_is_not_the_kind_s_is_refused() -> None:
    """Where the kind fixes the stage, a plan can not say another."""
    step = Step(stage=Stage.TEST, action=ReadFile(path="a"))

    with pytest.raises(RequestRefusedError, match="belongs to the stage retrieve"):
        completed(PlanDraft(objective="x", workspace="w", steps=(step,)), max_content_bytes=LIMIT)


def test_an_undo_edits_and_names_no_path() -> None:
    """Which paths it changes only the executor knows; a scope is held against them there."""
    plan = done(UndoStep(mission_id="m-1", step_id="s2"), scope=Scope(paths=("docs/**",)))

    [step] = plan.steps
    assert (step.stage, step.target, step.description) == (Stage.EDIT, "s2 of m-1", "undo step s2 of m-1")


REFUSED = [
    (PatchFile(path="a", patch=""), Reason.PLAN_INVALID),
    (AppendText(path="a", content=""), Reason.PLAN_INVALID),
    (ReplaceText(path="a", old="", new="x"), Reason.PLAN_INVALID),
    (ReplaceText(path="a", old="x", new="y" * (LIMIT + 1)), Reason.TOO_LARGE),
    (SearchFiles(pattern="", path="."), Reason.PLAN_INVALID),
    (SetMode(path="a", mode=""), Reason.PLAN_INVALID),
    (SetMode(path="a", mode="4755"), Reason.PLAN_INVALID),
    (CreateDirectory(path="a", mode="rwx"), Reason.PLAN_INVALID),
    (MovePath(path="a", to="../b"), Reason.PATH_OUTSIDE_WORKSPACE),
    (DeletePath(path="."), Reason.PATH_INVALID),
    (ReadFile(path="a/"), Reason.PATH_INVALID),
    (ReadFile(path="./a"), Reason.PATH_INVALID),
    (ReadFile(path="a\u2028b"), Reason.PATH_INVALID),
    (ReadFile(path="x/" * 2100 + "y"), Reason.PATH_INVALID),
    (RunCommand(argv=("a",), cwd="/tmp", env={}), Reason.PATH_OUTSIDE_WORKSPACE),
    (RunCommand(argv=("a",), env={}, success_codes=(256,)), Reason.PLAN_INVALID),
    (RunCommand(argv=("",), env={}), Reason.PLAN_INVALID),
    (RunTests(argv=("a",), junit="../j.xml", env={}), Reason.PATH_OUTSIDE_WORKSPACE),
    (UndoStep(mission_id="", step_id="s1"), Reason.PLAN_INVALID),
    (UndoStep(mission_id="m-1", step_id="s 1"), Reason.PLAN_INVALID),
]


@pytest.mark.parametrize(("action", "reason"), REFUSED)
def test_a_bad_step_is_refused_by_name(action: Action, reason: Reason) -> None:
    """The message names the step, and there is a remedy."""
    with pytest.raises(RequestRefusedError, match="step s1") as caught:
        done(action)

    assert caught.value.reason is reason
    assert caught.value.remedy


SCOPES = [
    (Scope(network=NetworkAccess.LISTED_DOMAINS), Reason.PLAN_INVALID),
    (Scope(network=NetworkAccess.LISTED_DOMAINS, domains=("a b",)), Reason.NETWORK_REFUSED),
    (Scope(network=NetworkAccess.LISTED_DOMAINS, domains=("example.org",) * 1001), Reason.PLAN_INVALID),
    (Scope(max_pages=1001), Reason.PLAN_INVALID),
    (Scope(domains=("example.org",)), Reason.PLAN_INVALID),
    (Scope(paths=("/etc/**",)), Reason.PATH_OUTSIDE_WORKSPACE),
    (Scope(paths=("docs/",)), Reason.PATH_INVALID),
    (Scope(paths=("a",) * 1001), Reason.PLAN_INVALID),
    (Scope(max_duration_seconds=90_000), Reason.PLAN_INVALID),
    (Scope(max_bytes="-1"), Reason.PLAN_INVALID),
    (Scope(max_bytes="1e9"), Reason.PLAN_INVALID),
]


@pytest.mark.parametrize(("scope", "reason"), SCOPES)
def test_a_bad_scope_is_refused(scope: Scope, reason: Reason) -> None:
    """Each with its reason."""
    with pytest.raises(RequestRefusedError) as caught:
        done(ReadFile(path="a"), scope=scope)

    assert caught.value.reason is reason


def test_what_a_live_step_leaves_open_is_filled_in() -> None:
    """Limits, arguments, times and descriptions; where a kind may be of any stage, the description's words decide."""
    make = RunLive(argv=("make", "a\nb"), env={}, access=LiveAccess.HOST, keep_running=ReadinessCheck(port=80))
    drop = Step(action=CallTool(server="shop", tool="add"), compensation=Compensation(action=make))
    steps = (Step(action=SearchBodies(query="x")), Step(description="verify it", action=make), drop)
    done = completed(PlanDraft(objective="x", workspace="w", steps=steps), max_content_bytes=LIMIT)

    assert [step.stage for step in done.steps] == [Stage.RETRIEVE, Stage.TEST, Stage.EDIT]
    assert done.steps[0].action == SearchBodies(query="x", limit=20)
    assert done.steps[2].action == CallTool(server="shop", tool="add", arguments="{}")
    made_up = done.steps[2].compensation
    assert made_up is not None
    assert made_up.description == 'run live ["make", "a\\nb"]'
    assert isinstance(made_up.action, RunLive)
    assert made_up.action.keep_running == ReadinessCheck(port=80, seconds=10)


def test_a_pause_that_is_said_is_kept() -> None:
    """Each of the three is filled in by itself."""
    said = PauseRules(default_action=PauseDefault.STOP)
    draft = PlanDraft(objective="x", workspace="w", steps=(Step(action=ReadFile(path="a")),), pause=said)

    assert completed(draft, max_content_bytes=LIMIT).pause == PauseRules(
        deadline_seconds=86_400, default_action=PauseDefault.STOP, step_approval_seconds=3_600
    )


OUTSIDE = [
    WriteFile(path="src/a", content=""),
    MovePath(path="docs/a", to="src/a"),
    ListDirectory(path="."),
]


@pytest.mark.parametrize("action", OUTSIDE)
def test_a_step_outside_the_scope_is_refused(action: Action) -> None:
    """Every path of every step is held against the scope."""
    with pytest.raises(RequestRefusedError) as caught:
        done(action, scope=Scope(paths=("docs/**", "old.txt")))

    assert caught.value.reason is Reason.PATH_OUTSIDE_SCOPE


def test_ids_of_steps_are_unique() -> None:
    """Given ids are kept, missing ones filled in, and a clash is refused."""
    steps = (Step(step_id="s2", action=ReadFile(path="a")), Step(action=ReadFile(path="b")))

    with pytest.raises(RequestRefusedError, match="two steps have the id s2"):
        completed(PlanDraft(objective="x", workspace="w", steps=steps), max_content_bytes=LIMIT)


GLOBS = [
    ("docs/**", "docs/a/b", True),
    ("docs/**", "docs", True),
    ("docs/**", "docsx", False),
    ("docs/*", "docs/a", True),
    ("docs/*", "docs/a/b", False),
    ("**", "a/b", True),
    ("**/*.md", "a.md", True),
    ("**/*.md", "a/b/c.md", True),
    ("**/*.md", "a/b.mdx", False),
    ("a/**/z", "a/z", True),
    ("a/**/z", "a/b/c/z", True),
    ("a/**/z", "az", False),
    ("b/**/**", "b", True),
    ("**/b/**", "a/b", True),
    ("**/b/**", "a/b/c", True),
    ("**/b/**", "a/bc", False),
    ("a/**/b/**/c", "a/b/b/x/c", True),
    ("*a*b", "xaab", True),
    ("*a*b", "xa/b", False),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("old.txt", "old.txt", True),
    ("old.txt", "oldxtxt", False),
    ("a[b]", "a[b]", True),
    ("a[b]", "ab", False),
]


@pytest.mark.parametrize(("glob", "path", "covered"), GLOBS)
def test_what_a_pattern_covers(glob: str, path: str, covered: bool) -> None:
    """Stars stay inside a name, double stars cross directories, all else is literal."""
    pattern = pattern_of((glob,))

    assert pattern is not None
    assert bool(pattern.fullmatch(path)) is covered


HARD = [
    ("**/" * 60 + "z", "a/" * 60 + "b"),
    ("*a" * 100 + "z", "a" * 200),
    ("**/*a" * 100 + "/z", "a/" * 60 + "b"),
    ("**/" + "a/" * 500 + "z", "a/" * 2000 + "b"),
]


@pytest.mark.parametrize(("glob", "path"), HARD)
def test_no_pattern_takes_long(glob: str, path: str) -> None:
    """What somebody writes into a scope keeps nobody else waiting."""
    begun = time.process_time()
    pattern = pattern_of((glob,))

    assert pattern is not None
    assert pattern.fullmatch(path) is None
    assert time.process_time() - begun < 0.2


@pytest.mark.parametrize(
    ("paths", "path"),
    [(("a" * 1025,), "a"), (("a" * 1000,) * 132, "a"), (("a*" * 100,) * 600, "a/" * 2000 + "b")],
)
def test_a_scope_that_is_much_work_is_refused(paths: tuple[str, ...], path: str) -> None:
    """Patterns are short, and in sum not too many for the paths of the plan."""
    steps = tuple(Step(action=ReadFile(path=path)) for _ in range(10))
    draft = PlanDraft(objective="x", workspace="w", scope=Scope(paths=paths), steps=steps)

    with pytest.raises(RequestRefusedError, match=r"too (long|many)") as refused:
        completed(draft, max_content_bytes=LIMIT)
    assert (refused.value.reason, bool(refused.value.remedy)) == (Reason.TOO_LARGE, True)


def test_no_patterns_cover_everything() -> None:
    """An empty scope is the whole workspace."""
    assert pattern_of(()) is None
