"""Properties of the chat planner that no table of examples can show."""

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.chat_grammar import GrammarPlanner
from orchestrator.domain.intent import MAX_OBJECTIVE, Proposal, StepValue, Unclear, UnclearReason

PLANNER = GrammarPlanner()

FRAGMENTS = (
    "create write replace append delete remove move rename make set read show list search find run cancel reject "
    "approve execute go status result feedback that was good bad in to with of for from and then not if please the a "
    "file directory tests missions recursively executable mode old.txt docs/ ../x /etc 'x' \"y\" `z` '' ' \" ` : , ; . "
    "? ! run: site: \\ | $ * \u201cq\u201d \u2019 \u200b \n \t ```\nx\n``` because m-1 don't isn't"
)
WORDS = st.sampled_from(FRAGMENTS.split(" "))
SENTENCE_LIKE = st.lists(WORDS, max_size=14).map(" ".join)

NEGATIONS = st.sampled_from(
    [
        "not",
        "never",
        "don't",
        "Don\u2019t",
        "do not",
        "no",
        "cannot",
        "without",
        "stop",
        "avoid",
        "none",
        "nothing",
        "NOT,",
    ]
)

# Spaces, quotes, backslashes, words of other scripts: whatever a file may be called, in quotes it can be named.
NAMES = st.text(st.sampled_from("abcxyzABC019._- '\"\\\u00e9\u4e2d"), min_size=1, max_size=12).filter(
    lambda name: name not in {".", "..", "~"}
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=60)
SOME_TEXT = TEXTS.filter(bool)
ARGUMENTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
ARGV = st.tuples(st.sampled_from(["make", "python3", "./x.sh"]), ARGUMENTS, ARGUMENTS)

Draft = tuple[str, dict[str, StepValue]]


def draft(kind: str, **fields: st.SearchStrategy[StepValue] | st.SearchStrategy[str]) -> st.SearchStrategy[Draft]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(dict(fields)))


DRAFTS = st.one_of(
    draft("create_file", path=PATHS, content=TEXTS),
    draft("write_file", path=PATHS, content=TEXTS),
    draft("append_text", path=PATHS, content=SOME_TEXT),
    draft("replace_text", path=PATHS, old=SOME_TEXT, new=TEXTS),
    draft("delete_path", path=PATHS),
    draft("move_path", path=PATHS, to=PATHS),
    draft("create_directory", path=PATHS),
    draft("set_mode", path=PATHS, mode=st.from_regex(r"0[0-7]{3}", fullmatch=True)),
    draft("read_file", path=PATHS),
    draft("list_directory", path=PATHS),
    draft("search_files", pattern=SOME_TEXT, path=PATHS, literal=st.just(value=True)),
    draft("run_command", argv=ARGV),
    draft("run_tests", argv=ARGV),
)

SENTENCES: Mapping[str, str] = {
    "create_file": "create a file {path} with {content}",
    "write_file": "write {content} to {path}",
    "append_text": "append {content} to {path}",
    "replace_text": "replace {old} with {new} in {path}",
    "delete_path": "delete {path}",
    "move_path": "move {path} to {to}",
    "create_directory": "create directory {path}",
    "set_mode": "set the mode of {path} to {mode}",
    "read_file": "read {path}",
    "list_directory": "list {path}",
    "search_files": "search for {pattern} in {path}",
    "run_command": "run: {argv}",
    "run_tests": "run the tests with: {argv}",
}


def rendered(step: Draft) -> str:
    """The sentence that asks for a step, written without the code under test."""
    kind, fields = step
    return SENTENCES[kind].format_map({key: _written(key, value) for key, value in fields.items()})


def _written(key: str, value: StepValue) -> str:
    if isinstance(value, tuple):
        return " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in value)
    text = str(value)
    if key == "mode" or (key in {"path", "to"} and set(text) <= set("xyz/") and "/" in text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


@given(st.one_of(st.text(max_size=200), SENTENCE_LIKE))
@example("run: '")
@example("\\")
def test_any_text_gets_an_answer(text: str) -> None:
    """The planner never raises and never fails inside; what it does propose has steps and a bounded objective."""
    intent = PLANNER.understand(text)
    if isinstance(intent, Unclear):
        assert intent.reason is not UnclearReason.PLANNER_FAILED
        assert intent.message.isprintable()
    if isinstance(intent, Proposal):
        assert intent.steps
        assert 0 < len(intent.objective) <= MAX_OBJECTIVE


@given(NEGATIONS, st.sampled_from([" ", "\n", "\t", ", ", ". "]), SENTENCE_LIKE)
def test_negation_in_front_never_yields_a_plan(negation: str, joint: str, text: str) -> None:
    """Whatever follows a negation, nothing is proposed."""
    assert not isinstance(PLANNER.understand(negation + joint + text), Proposal)


@given(NEGATIONS, st.lists(DRAFTS, min_size=1, max_size=4), st.integers(min_value=0, max_value=4))
def test_negation_before_any_sentence_refuses_the_whole_message(negation: str, steps: list[Draft], at: int) -> None:
    """A negated sentence among good ones, first or last, leaves no plan and says why."""
    sentences = [rendered(step) for step in steps]
    at = min(at, len(sentences) - 1)
    sentences[at] = f"{negation} {sentences[at]}"
    intent = PLANNER.understand("\n".join(sentences))
    assert isinstance(intent, Unclear)
    assert intent.reason is UnclearReason.NEGATED


@given(
    st.lists(DRAFTS, min_size=1, max_size=6),
    st.sampled_from([", then ", "; then ", "\n", "\nthen ", ", and then "]),
    st.one_of(st.none(), st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)),
)
def test_rendered_proposals_are_read_back(steps: list[Draft], joint: str, workspace: str | None) -> None:
    """Steps written as sentences come back as the same kinds, fields, order and workspace."""
    text = joint.join(rendered(step) for step in steps)
    intent = PLANNER.understand(text if workspace is None else f"in {workspace}: {text}")
    assert isinstance(intent, Proposal), intent
    assert [(step.kind, dict(step.fields)) for step in intent.steps] == steps
    assert intent.workspace == workspace
    assert all(step.description.isprintable() for step in intent.steps)


@given(SENTENCE_LIKE)
def test_same_text_same_answer(text: str) -> None:
    """The planner is deterministic and holds nothing over from one message to the next."""
    before = PLANNER.understand(text)
    PLANNER.understand("create F with '")
    assert PLANNER.understand(text) == before
