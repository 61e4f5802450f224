"""The planner without a model: what it must refuse, with which reason, which help, and how little work."""

import time

import pytest

from orchestrator.adapters.chat_grammar import nearest_forms
from orchestrator.domain.intent import FORMS, MAX_MESSAGE_BYTES, IntentKind, Proposal, Unclear, UnclearReason, kind_of
from tests.unit.orchestrator.chat_drafts import PLANNER

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
    ("in site: in other: delete x", UnclearReason.MIXED),
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
