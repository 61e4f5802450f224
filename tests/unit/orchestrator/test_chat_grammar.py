"""The planner without a model: which sentences it understands, and as what."""

import pytest

from orchestrator.adapters.chat_grammar import GrammarPlanner
from orchestrator.domain.intent import MAX_OBJECTIVE, Control, Feedback, Intent, Proposal, Question, StepDraft
from tests.unit.orchestrator.chat_drafts import (
    DEFAULT_TESTS,
    PLANNER,
    append,
    create,
    delete,
    delete_tree,
    directory,
    listing,
    mode,
    move,
    proposal,
    read,
    replace,
    run,
    search,
    suite,
    write,
)

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
