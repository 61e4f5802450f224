"""Whatever bytes a plan file holds, it is a plan or a plain refusal."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import PlanFileError
from client.planfile import parse
from gonogo.v1 import plan_pb2

WORDS = st.sampled_from(
    [
        "objective",
        "workspace",
        "scope",
        "steps",
        "read_file",
        "write_file",
        "path",
        "content",
        "data",
        "env",
        "argv",
        "run_command",
        "call_tool",
        "arguments",
        "http_request",
        "headers",
        "run_sql",
        "parameters",
        "compensation",
        "pause",
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4)
)
MARKS = "{}[]:,-&*!|>'\"%@`#?~ \n\tab01\\\0\ufeff\u2028"
TEXTS = st.lists(
    st.sampled_from([*MARKS, "objective: ", "steps:\n", "- ", "<<: ", "!!str ", "&a ", "*a ", "---\n"])
).map("".join)


def outcome(data: bytes) -> plan_pb2.PlanDraft | None:
    """Return the plan, or None for a plain refusal; anything else is the failure these tests look for."""
    try:
        return parse(data)
    except PlanFileError as error:
        refused = error
    assert (refused.reason, bool(refused.remedy), refused.line >= 1) == ("PLAN_INVALID", True, True)
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_a_plain_refusal(data: bytes) -> None:
    """No byte string makes the reader fail in another way."""
    outcome(data)


@settings(max_examples=300)
@given(TEXTS)
def test_any_yaml_like_text_is_a_plan_or_a_plain_refusal(text: str) -> None:
    """No mix of YAML's marks makes the reader fail in another way."""
    outcome(text.encode())


@given(VALUES)
def test_any_json_value_is_a_plan_or_a_plain_refusal(value: Any) -> None:
    """No JSON document makes the reader fail in another way."""
    outcome(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50))
def test_a_text_in_json_arrives_as_it_is(text: str) -> None:
    """Every character of a content comes through unchanged."""
    plan = {"objective": "x", "workspace": "w", "steps": [{"write_file": {"path": "a", "content": text}}]}
    expected = plan_pb2.WriteFile(path="a", content=text)
    for escaped in (True, False):
        draft = outcome(json.dumps(plan, ensure_ascii=escaped).encode())
        assert isinstance(draft, plan_pb2.PlanDraft)
        assert draft.steps[0].write_file == expected
