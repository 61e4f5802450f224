"""The planner without a model: which sentences it understands, and which it must refuse."""

import time
from collections.abc import Sequence

import pytest

from orchestrator.adapters.chat_grammar import GrammarPlanner, nearest_forms
from orchestrator.domain.intent import (
    FORMS,
    MAX_MESSAGE_BYTES,
    MAX_OBJECTIVE,
    Control,
    Feedback,
    Intent,
    IntentKind,
    Proposal,
    Question,
    StepDraft,
    StepValue,
    Unclear,
    UnclearReason,
    kind_of,
)

PLANNER = GrammarPlanner()


def proposal(text: str, *steps: StepDraft, workspace: str | None = None) -> Proposal:
    return Proposal(workspace=workspace, objective=" ".join(text.split()), steps=steps)


def step(kind: str, description: str, **fields: StepValue) -> StepDraft:
    return StepDraft(kind=kind, fields=fields, description=description)


def create(path: str, content: str, held: str) -> StepDraft:
    return step("create_file", f"Create {path} holding {held}", path=path, content=content)


def write(path: str, content: str, held: str) -> StepDraft:
    return step("write_file", f"Write {held} to {path}", path=path, content=content)


def replace(path: str, old: str, new: str) -> StepDraft:
    return step("replace_text", f"Replace '{old}' with '{new}' in {path}", path=path, old=old, new=new)


def append(path: str, content: str, held: str) -> StepDraft:
    return step("append_text", f"Append {held} to {path}", path=path, content=content)


def delete(path: str) -> StepDraft:
    return step("delete_path", f"Delete {path}", path=path)


def delete_tree(path: str) -> StepDraft:
    return step("delete_path", f"Delete {path} and all it holds", path=path, recursive=True)


def move(path: str, to: str) -> StepDraft:
    return step("move_path", f"Move {path} to {to}", path=path, to=to)


def directory(path: str) -> StepDraft:
    return step("create_directory", f"Create directory {path}", path=path)


def mode(path: str, bits: str) -> StepDraft:
    return step("set_mode", f"Set the mode of {path} to {bits}", path=path, mode=bits)


def read(path: str) -> StepDraft:
    return step("read_file", f"Read {path}", path=path)


def listing(path: str) -> StepDraft:
    return step("list_directory", f"List {path}", path=path)


def search(pattern: str, path: str) -> StepDraft:
    return step("search_files", f"Search for '{pattern}' in {path}", pattern=pattern, path=path, literal=True)


def run(*argv: str) -> StepDraft:
    return step("run_command", f"Run: {_as_list(argv)}", argv=argv)


def suite(*argv: str, junit: str | None = None) -> StepDraft:
    named = {} if junit is None else {"junit": junit}
    return step("run_tests", f"Run the tests: {_as_list(argv)}", argv=argv, **named)


def _as_list(argv: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in argv) + "]"


DEFAULT_TESTS = suite("python3", "-m", "pytest", "-q", "--junitxml=build/junit.xml", junit="build/junit.xml")

ONE_STEP = [
    ("create F with 'x'", create("F", "x", "1 character")),
    ("Create a file F with 'x'", create("F", "x", "1 character")),
    ("CREATE THE NEW FILE F WITH 'x'", create("F", "x", "1 character")),
    ("create a file called F containing the text 'hello'", create("F", "hello", "5 characters")),
    ("create file docs/a.md with content: 'hello'", create("docs/a.md", "hello", "5 characters")),
    ("create empty file docs/.keep", create("docs/.keep", "", "nothing")),
    ("create a new empty file named a-b_c.txt", create("a-b_c.txt", "", "nothing")),
    ("create F with ''", create("F", "", "nothing")),
    ("create F with:\n```python\nprint('no')\n```", create("F", "print('no')\n", "12 characters")),
    ("create F with\n````\n```\ninner\n```\n````", create("F", "```\ninner\n```\n", "14 characters")),
    ("create F with\n```\n```", create("F", "", "nothing")),
    (r"create F with 'a\n\tb\\c\'d'", create("F", "a\n\tb\\c'd", "8 characters")),
    ('create F with "it\'s"', create("F", "it's", "4 characters")),
    ("create F with \u201csaid 'so'\u201d", create("F", "said 'so'", "9 characters")),
    ("create F with \u2018x\u2019", create("F", "x", "1 character")),
    ("create F with `x then y`", create("F", "x then y", "8 characters")),
    ("create F with 'two\nlines'", create("F", "two\nlines", "9 characters")),
    ("create F with 'do not delete x, never'", create("F", "do not delete x, never", "22 characters")),
    ("create 'my file.txt' with 'x'", create("my file.txt", "x", "1 character")),
    ("create ./docs//a.md with 'x'", create("docs/a.md", "x", "1 character")),
    ("write 'x' to F", write("F", "x", "1 character")),
    ("write 'x' into the file F", write("F", "x", "1 character")),
    ("write to F: 'x'", write("F", "x", "1 character")),
    ("write to F:\n```\nx\n```", write("F", "x\n", "2 characters")),
    ("replace 'a' with 'b' in F", replace("F", "a", "b")),
    ("replace all occurrences of 'a' by 'b' in the file F", replace("F", "a", "b")),
    ("replace every 'a' with '' in F", replace("F", "a", "")),
    ("in F, replace 'a' with 'b'", replace("F", "a", "b")),
    ("in F replace 'a' with 'b'", replace("F", "a", "b")),
    ("in docs/guide.md: replace 'a' with 'b'", replace("docs/guide.md", "a", "b")),
    ("replace 'not' with 'never' in F", replace("F", "not", "never")),
    ("append 'x' to F", append("F", "x", "1 character")),
    ("append 'x' to the end of F", append("F", "x", "1 character")),
    ("append to F:\n```\nx\n```", append("F", "x\n", "2 characters")),
    ("delete F", delete("F")),
    ("remove the file old.txt", delete("old.txt")),
    ("please delete old.txt", delete("old.txt")),
    ("Now delete old.txt, please!", delete("old.txt")),
    ("delete old.txt.", delete("old.txt")),
    ("delete 'no'", delete("no")),
    ('delete "it\'s"', delete("it's")),
    ("delete a", delete("a")),
    ("delete the directory docs/", delete("docs")),
    ("delete directory build recursively", delete_tree("build")),
    ("remove build with all its contents", delete_tree("build")),
    ("move A to B", move("A", "B")),
    ("move a to b", move("a", "b")),
    ("rename the file a.txt to 'b c.txt'", move("a.txt", "b c.txt")),
    ("create directory docs/images", directory("docs/images")),
    ("make a new folder called x", directory("x")),
    ("create the directory tests", directory("tests")),
    ("make scripts/build.sh executable", mode("scripts/build.sh", "0755")),
    ("make the file F executable", mode("F", "0755")),
    ("set mode of F to 0644", mode("F", "0644")),
    ("set the permissions of F to 600", mode("F", "0600")),
    ("read F", read("F")),
    ("show the file F", read("F")),
    ("read 'm-1'", read("m-1")),
    ("list docs", listing("docs")),
    ("list .", listing(".")),
    ("list ./", listing(".")),
    ("list tests", listing("tests")),
    ("list the files in docs", listing("docs")),
    ("search for 'x' in docs", search("x", "docs")),
    ("find 'a.b' in .", search("a.b", ".")),
    ("search the directory docs for 'x'", search("x", "docs")),
    ("run: make -s lint", run("make", "-s", "lint")),
    ("run the command: make", run("make")),
    ("run: git commit -m 'it is; not | done $(x)'", run("git", "commit", "-m", "it is; not | done $(x)")),
    (r"run: printf a\ b", run("printf", "a b")),
    ("run: find . -not -name x", run("find", ".", "-not", "-name", "x")),
    ("run: pytest -k 'not slow'", run("pytest", "-k", "not slow")),
    ("run: git add .", run("git", "add", ".")),
    ("run the tests", DEFAULT_TESTS),
    ("run tests", DEFAULT_TESTS),
    ("Run all the tests.", DEFAULT_TESTS),
    ("run the tests with: make check", suite("make", "check")),
    (
        "run the tests with: python3 -m pytest --junitxml out/j.xml",
        suite("python3", "-m", "pytest", "--junitxml", "out/j.xml", junit="out/j.xml"),
    ),
]


@pytest.mark.quick
@pytest.mark.parametrize(("text", "expected"), ONE_STEP)
def test_sentence_becomes_one_step(text: str, expected: StepDraft) -> None:
    """Each form of sentence gives exactly its step, whatever its case, articles, courtesies and quotes."""
    assert PLANNER.understand(text) == proposal(text, expected)


SEVERAL_STEPS = [
    (
        "in site: replace 'colour' with 'color' in docs/guide.md, then delete old.txt, then run: make -s lint",
        "site",
        [replace("docs/guide.md", "colour", "color"), delete("old.txt"), run("make", "-s", "lint")],
    ),
    ("delete a then delete b", None, [delete("a"), delete("b")]),
    ("delete a and then delete b", None, [delete("a"), delete("b")]),
    ("delete a; then delete b", None, [delete("a"), delete("b")]),
    ("delete a; delete b", None, [delete("a"), delete("b")]),
    ("delete a\ndelete b\n", None, [delete("a"), delete("b")]),
    ("delete a,\nthen delete b", None, [delete("a"), delete("b")]),
    ("Delete a. Then delete b.", None, [delete("a"), delete("b")]),
    ("first delete a, then finally, delete b", None, [delete("a"), delete("b")]),
    ("please in site: delete a", "site", [delete("a")]),
    ("In workspace my.site: delete a", "my.site", [delete("a")]),
    ("in site:\n- delete a\n- delete b", "site", [delete("a"), delete("b")]),
    ("1. delete a\n2. delete b", None, [delete("a"), delete("b")]),
    ("delete a, b and c", None, [delete("a"), delete("b"), delete("c")]),
    ("delete the files a, 'b c', and d", None, [delete("a"), delete("b c"), delete("d")]),
    ("in F, G and H: replace 'a' with 'b'", None, [replace(path, "a", "b") for path in "FGH"]),
    ("replace 'a' with 'b' in F and G", None, [replace("F", "a", "b"), replace("G", "a", "b")]),
    ("search for 'x' in docs and src", None, [search("x", "docs"), search("x", "src")]),
    ("run: make, then run: ls -l\nthen run: pwd", None, [run("make"), run("ls", "-l"), run("pwd")]),
    ("run: make; and then delete a", None, [run("make"), delete("a")]),
    ("run: echo 'a, then b', then delete a", None, [run("echo", "a, then b"), delete("a")]),
    ("create F with\n```\nx\n```\nthen run the tests", None, [create("F", "x\n", "2 characters"), DEFAULT_TESTS]),
    ("in site: in F replace 'a' with 'b'", "site", [replace("F", "a", "b")]),
]


@pytest.mark.quick
@pytest.mark.parametrize(("text", "workspace", "steps"), SEVERAL_STEPS)
def test_message_becomes_steps_in_order(text: str, workspace: str | None, steps: list[StepDraft]) -> None:
    """Joined sentences and lists of names give their steps in the order written, in the workspace named in front."""
    assert PLANNER.understand(text) == proposal(text, *steps, workspace=workspace)


NO_STEPS: list[tuple[str, Intent]] = [
    ("what is the status of m-4k2", Question(kind="status", mission_ref="m-4k2")),
    ("What\u2019s the status of mission m-4k2?", Question(kind="status", mission_ref="m-4k2")),
    ("status m-4k2", Question(kind="status", mission_ref="m-4k2")),
    ("status of m-4k2", Question(kind="status", mission_ref="m-4k2")),
    ("status", Question(kind="status")),
    ("show m-4k2", Question(kind="status", mission_ref="m-4k2")),
    ("list missions", Question(kind="list")),
    ("list all the missions.", Question(kind="list")),
    ("what is waiting", Question(kind="waiting")),
    ("what is waiting for approval?", Question(kind="waiting")),
    ("result of m-4k2", Question(kind="result", mission_ref="m-4k2")),
    ("what was the result of m-4k2?", Question(kind="result", mission_ref="m-4k2")),
    ("help", Question(kind="help")),
    ("what can you do?", Question(kind="help")),
    ("cancel m-4k2", Control(verb="cancel", mission_ref="m-4k2")),
    ("cancel the mission m-4k2 because it is late", Control(verb="cancel", mission_ref="m-4k2", reason="it is late")),
    ("reject m-4k2", Control(verb="reject", mission_ref="m-4k2")),
    ("reject M because it isn't right.", Control(verb="reject", mission_ref="M", reason="it isn't right.")),
    ("reject M, because no", Control(verb="reject", mission_ref="M", reason="no")),
    ("reject M: too wide", Control(verb="reject", mission_ref="M", reason="too wide")),
    ("approve m-4k2", Control(verb="approve", mission_ref="m-4k2")),
    ("approve", Control(verb="approve")),
    ("execute m-4k2", Control(verb="execute", mission_ref="m-4k2")),
    ("go", Control(verb="execute")),
    ("Go!", Control(verb="execute")),
    ("feedback m-4k2: did not\nhelp, then?", Feedback(text="did not\nhelp, then?", mission_ref="m-4k2")),
    ("feedback on m-4k2: fine", Feedback(text="fine", mission_ref="m-4k2")),
    ("feedback: fine", Feedback(text="fine")),
    ("that was good", Feedback(text="good", rating="good")),
    ("That was bad: it never built", Feedback(text="it never built", rating="bad")),
]


@pytest.mark.parametrize(("text", "expected"), NO_STEPS)
def test_questions_control_words_and_feedback(text: str, expected: Intent) -> None:
    """A question, a control word and feedback are told apart, and none of them holds a step."""
    assert PLANNER.understand(text) == expected


NEGATED = [
    "do not delete x",
    "don't delete x",
    "Don\u2019t delete x",
    "don`t delete x",
    "dont delete x",
    "DO NOT delete x",
    "do *not* delete x",
    "(not) delete x",
    "never delete x",
    "please avoid deleting x",
    "please never, ever delete x",
    "stop deleting x",
    "delete nothing",
    "delete no files",
    "delete none",
    "delete neither a nor b",
    "no need to delete x",
    "without deleting x, run the tests",
    "run the tests without deleting x",
    "create F with 'x' instead of deleting y",
    "delete x? no",
    "no, delete x",
    "you must not delete x",
    "you mustn't delete x",
    "you cannot delete x",
    "you can't delete x",
    "you shouldn't delete x",
    "refrain from deleting x",
    "delete x, but keep y",
    "delete a, b except c",
    "delete everything except x",
    "leave x alone",
    "delete a, then do not delete b",
    "do not delete a\ndelete b",
    "delete b.\nDo not delete a.",
    "in site: never delete x",
    "in site: delete x, but don't run: make",
    "skip the deletion of x",
    "delete x unless it is used",
    "rather than delete x move it",
    "don't",
    "not create F with 'x'",
    "do not cancel m-1",
    "don't approve m-1",
    "never reject m-1",
    "delete NOTHING",
    "delete \uff4e\uff4f\uff54hing",
    "run: make but not lint",
    "run: make and never stop",
    "run: nothing",
    "run: make and don't lint, it doesn't work",
    "run: make Not.",
    "prevent x from being deleted",
    "it is unnecessary to delete x",
    "no need to run the tests",
    "do not delete 'x",
    "delete x, then stop",
]


@pytest.mark.quick
@pytest.mark.parametrize("text", NEGATED)
def test_negated_message_is_never_an_action(text: str) -> None:
    """One negated sentence makes the whole message unclear, whatever else it asks for."""
    intent = PLANNER.understand(text)
    assert isinstance(intent, Unclear)
    assert intent.reason is UnclearReason.NEGATED


UNDECIDED = [
    ("if x exists, delete x", UnclearReason.HEDGED),
    ("delete x if it exists", UnclearReason.HEDGED),
    ("maybe delete x", UnclearReason.HEDGED),
    ("delete maybe", UnclearReason.HEDGED),
    ("perhaps delete x", UnclearReason.HEDGED),
    ("could you tell me how to delete x", UnclearReason.HEDGED),
    ("you might delete x", UnclearReason.HEDGED),
    ("delete x or y", UnclearReason.HEDGED),
    ("how to delete x", UnclearReason.HEDGED),
    ("I think delete x", UnclearReason.HEDGED),
    ("delete a, then maybe delete b", UnclearReason.HEDGED),
    ("run: make if needed", UnclearReason.HEDGED),
    ("should I delete x?", UnclearReason.QUESTION),
    ("what if you delete x?", UnclearReason.QUESTION),
    ("why did you delete x?", UnclearReason.QUESTION),
    ("delete x?", UnclearReason.QUESTION),
    ("delete 'x'?", UnclearReason.QUESTION),
    ("did you delete x? delete y", UnclearReason.QUESTION),
    ("run the tests?", UnclearReason.QUESTION),
    ("cancel m-1?", UnclearReason.QUESTION),
    ("delete x, then status m-1", UnclearReason.MIXED),
    ("status m-1\ndelete x", UnclearReason.MIXED),
    ("cancel m-1, then delete x", UnclearReason.MIXED),
    ("approve m-1, then execute m-1", UnclearReason.MIXED),
    ("reject m-1 because it is wrong, then delete x", UnclearReason.MIXED),
    ("in site: status m-1", UnclearReason.MIXED),
]


@pytest.mark.parametrize(("text", "reason"), UNDECIDED)
def test_hedged_asked_or_mixed_message_is_never_an_action(text: str, reason: UnclearReason) -> None:
    """Conditions, guesses, questions and mixtures are refused with their reason."""
    intent = PLANNER.understand(text)
    assert isinstance(intent, Unclear)
    assert intent.reason is reason


REFUSED = [
    ("", UnclearReason.EMPTY),
    (" \n\t ", UnclearReason.EMPTY),
    ("in site:", UnclearReason.EMPTY),
    ("please", UnclearReason.NOT_UNDERSTOOD),
    ("delete", UnclearReason.NOT_UNDERSTOOD),
    ("delete a b", UnclearReason.NOT_UNDERSTOOD),
    ("delete a, then", UnclearReason.NOT_UNDERSTOOD),
    ("delete a and list", UnclearReason.NOT_UNDERSTOOD),
    ("delete a and create b with 'x'", UnclearReason.NOT_UNDERSTOOD),
    ("delete a, then frobnicate b", UnclearReason.NOT_UNDERSTOOD),
    ("frobnicate b, then delete a", UnclearReason.NOT_UNDERSTOOD),
    ("create F", UnclearReason.NOT_UNDERSTOOD),
    ("create F with x", UnclearReason.NOT_UNDERSTOOD),
    ("replace a with b in F", UnclearReason.NOT_UNDERSTOOD),
    ("replace 'a' with 'b'", UnclearReason.NOT_UNDERSTOOD),
    ("in README: replace 'a' with 'b'", UnclearReason.NOT_UNDERSTOOD),
    ("in a: delete x, then in b: delete y", UnclearReason.NOT_UNDERSTOOD),
    ("run make", UnclearReason.NOT_UNDERSTOOD),
    ("run:", UnclearReason.NOT_UNDERSTOOD),
    ("cancel", UnclearReason.NOT_UNDERSTOOD),
    ("cancel m_1", UnclearReason.NOT_UNDERSTOOD),
    ("feedback m-1", UnclearReason.NOT_UNDERSTOOD),
    ("hello", UnclearReason.NOT_UNDERSTOOD),
    ("delete the file", UnclearReason.NOT_UNDERSTOOD),
    ("create F with 'x", UnclearReason.QUOTING),
    ("create F with 'it's'", UnclearReason.QUOTING),
    ("create F with ```x```", UnclearReason.QUOTING),
    ("create F with\n```\nx", UnclearReason.QUOTING),
    (r"create F with '\d'", UnclearReason.QUOTING),
    ("create F with x'y'", UnclearReason.QUOTING),
    ("delete a,b", UnclearReason.QUOTING),
    ("delete *.txt", UnclearReason.QUOTING),
    ("run: echo 'x", UnclearReason.QUOTING),
    ("run: echo it's", UnclearReason.QUOTING),
    ("run: make \\\n lint", UnclearReason.QUOTING),
    ("run: x\u00a0y", UnclearReason.QUOTING),
    ("replace '' with 'b' in F", UnclearReason.EMPTY_TEXT),
    ("append '' to F", UnclearReason.EMPTY_TEXT),
    ("search for '' in docs", UnclearReason.EMPTY_TEXT),
    ("delete /etc/passwd", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete ../x", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete a/../../x", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete '..'", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("list ..", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("list ../..", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete ~/x", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("move a to /tmp/a", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete a, then delete ../b", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("run the tests with: pytest --junitxml=/tmp/x", UnclearReason.PATH_OUTSIDE_WORKSPACE),
    ("delete .", UnclearReason.INVALID_PATH),
    ("delete ''", UnclearReason.INVALID_PATH),
    (r"delete 'a\nb'", UnclearReason.INVALID_PATH),
    ("delete " + "x" * 256, UnclearReason.INVALID_PATH),
    ("set mode of F to 4755", UnclearReason.INVALID_MODE),
    ("set mode of F to 888", UnclearReason.INVALID_MODE),
    ("set mode of F to u+x", UnclearReason.INVALID_MODE),
    ("run: ''", UnclearReason.COMMAND_AMBIGUOUS),
    ("run: make then delete x", UnclearReason.COMMAND_AMBIGUOUS),
    ("run: make, delete x", UnclearReason.COMMAND_AMBIGUOUS),
    ("delete x\x00", UnclearReason.CONTROL_CHARACTER),
    ("delete x\x1b[2K", UnclearReason.CONTROL_CHARACTER),
    ("create F with 'a\rb'", UnclearReason.CONTROL_CHARACTER),
    ("create F with '\ud800'", UnclearReason.CONTROL_CHARACTER),
    ("delete x\u200by", UnclearReason.HIDDEN_CHARACTER),
    ("delete 'x\u202ey'", UnclearReason.HIDDEN_CHARACTER),
    ("delete 'x\u00a0y'", UnclearReason.HIDDEN_CHARACTER),
    ("run: echo 'x\u2066y'", UnclearReason.HIDDEN_CHARACTER),
    ("do n\u200bot delete x", UnclearReason.HIDDEN_CHARACTER),
    ("x" * (MAX_MESSAGE_BYTES + 1), UnclearReason.TOO_LONG),
    ("\u20ac" * (MAX_MESSAGE_BYTES // 2), UnclearReason.TOO_LONG),
    ("delete a\n" * 1_001, UnclearReason.TOO_MANY_STEPS),
    ("delete " + ", ".join(["a"] * 1_001), UnclearReason.TOO_MANY_STEPS),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_bad_message_is_refused_whole_with_its_reason(text: str, reason: UnclearReason) -> None:
    """What can not be read in exactly one way is refused as a whole, with a reason, a remedy and visible text."""
    intent = PLANNER.understand(text)
    assert isinstance(intent, Unclear)
    assert intent.reason is reason
    assert intent.message.isprintable()
    assert len(intent.message) < 500


SHELL = ["a | b", "a > b", "a < b", "a && b", "a & b", "a; b", "a `b`", "a $(b)", "a $HOME", "a *.txt", "a x?", "a (b)"]


@pytest.mark.parametrize("line", [*SHELL, "X=1 make", "cd docs", "ls ~", "if a", "a # b", "a \u201cb\u201d"])
def test_shell_syntax_in_a_command_is_refused(line: str) -> None:
    """Nothing runs through a shell, so what only a shell would interpret is refused, with the way out."""
    intent = PLANNER.understand(f"run: {line}")
    assert isinstance(intent, Unclear)
    assert intent.reason is UnclearReason.SHELL_SYNTAX
    assert "script" in intent.message


@pytest.mark.parametrize("line", SHELL)
def test_quoted_shell_characters_are_ordinary_arguments(line: str) -> None:
    """The same characters inside quotes reach the program as they are."""
    intent = PLANNER.understand(f"run: sh -c '{line}'")
    assert isinstance(intent, Proposal)
    assert intent.steps[0].fields == {"argv": ("sh", "-c", line)}


def test_one_bad_sentence_leaves_no_plan() -> None:
    """A message is understood whole or refused whole, and the answer says which sentence stopped it and where."""
    intent = PLANNER.understand("delete a, then delete b quickly, then delete c")
    assert intent == Unclear(
        reason=UnclearReason.NOT_UNDERSTOOD,
        message="Sentence 2 was not understood; reading stopped at 'quickly' (character 25). "
        "Expected there: ',', 'and', 'recursively', 'with', the end of the sentence.",
        nearest=nearest_forms(["delete", "b", "quickly"]),
    )
    assert intent.nearest[0] == "delete F (for example: delete old.txt)"


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("delet old.txt", "delete F"),
        ("replase 'a' with 'b' in F", "replace 'a' with 'b' in F"),
        ("run make", "run"),
        ("serch 'x' in docs", "search for 'text' in D"),
        ("what is the state of m-1", "what is the"),
        ("create F", "create"),
        ("in site, delete x", "in WORKSPACE"),
    ],
)
def test_nearest_forms_are_offered(text: str, best: str) -> None:
    """A slip is answered with at most three forms, the likeliest first, each with an example."""
    intent = PLANNER.understand(text)
    assert isinstance(intent, Unclear)
    assert 1 <= len(intent.nearest) <= 3
    assert intent.nearest[0].startswith(best)
    assert all("for example:" in form for form in intent.nearest)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_offered_is_understood(form: object) -> None:
    """No example that a person is shown is refused when they copy it."""
    text = str(form).partition("(for example: ")[2].removesuffix(")")
    assert kind_of(PLANNER.understand(text)) is not IntentKind.UNCLEAR


def test_bidi_text_is_content_but_never_hidden_in_the_objective() -> None:
    """Content may hold any text; the line that people read spells hidden characters out."""
    intent = PLANNER.understand("create F with 'a\u202eb'")
    assert isinstance(intent, Proposal)
    assert intent.steps[0].fields["content"] == "a\u202eb"
    assert intent.objective == r"create F with 'a\u{202e}b'"


def test_objective_ends_on_a_sentence_border() -> None:
    """A long message is cut to the whole sentences that fit into the objective."""
    sentences = [f"delete file-{number}-{'x' * 50}" for number in range(6)]
    intent = PLANNER.understand(", then ".join(sentences))
    assert isinstance(intent, Proposal)
    assert intent.objective == ", then ".join(sentences[:2])
    assert len(intent.steps) == 6


def test_objective_of_one_long_sentence_is_cut_visibly() -> None:
    """Where not even one sentence fits, the cut is marked and the bound is kept."""
    intent = PLANNER.understand("create F with '" + "word " * 100 + "'")
    assert isinstance(intent, Proposal)
    assert intent.objective.endswith("word…")
    assert len(intent.objective) <= MAX_OBJECTIVE


def test_settings_name_what_run_the_tests_runs() -> None:
    """The command behind "run the tests" and its JUnit file are the operator's setting."""
    planner = GrammarPlanner(tests_argv=["make", "check"], tests_junit=None)
    assert planner.understand("run the tests") == proposal("run the tests", suite("make", "check"))


ADVERSARIAL = [
    "delete " + "a, " * 21_000,
    "in " + "a and " * 10_000 + "b replace 'x' with 'y'",
    "a: " * 21_000,
    "run: " + "a, " * 21_000,
    "run: " + "\\a" * 32_000,
    "run: " + ", " * 32_000 + "then",
    'run: "' + "\\x" * 32_000,
    "run: '" + "a" * 64_000,
    "create F with '" + "\\n" * 32_000,
    "create F with '" + "\\\\" * 32_000 + "'",
    "create F with\n```\n" + "``\n" * 21_000,
    "create F with\n```\n" + " " * 65_000,
    "then " * 13_000,
    "." * 65_000,
    "delete " + "." * 65_000 + "x",
    ", " * 32_000,
    " " * 65_000 + "x",
    "\n" * 65_000 + "x",
    "- " * 32_000,
    "'" * 65_000,
    "' " * 32_000,
    "`" * 65_000,
    "a" * 65_000,
    "\u00e9" * 32_000,
    "delete " + "a/" * 32_000,
    "delete " + "\u00e9 " * 21_000,
    "please " * 9_000,
    "the " * 16_000,
    "reject m-1 because " + ", " * 32_000,
    "delete x; " * 6_000,
]


@pytest.mark.parametrize("text", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_largest_messages_cost_bounded_work(text: str) -> None:
    """No text within the size limit costs more than a moment of processor time: the bound is far above the normal."""
    assert len(text.encode()) <= MAX_MESSAGE_BYTES
    before = time.process_time()
    PLANNER.understand(text)
    assert time.process_time() - before < 5
