"""The list of cases and the tests say the same."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick
HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "sandbox.jsonl").read_text(encoding="utf-8").splitlines()]


def marked_tests() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every test function of this folder, with the ids in its `case` mark."""
    for path in sorted(HERE.glob("test_*.py")):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [
                    one
                    for one in node.decorator_list
                    if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "case"
                ]
                ids = [ast.literal_eval(word) for mark in marks for word in mark.args]
                yield f"{path.name}::{node.name}", tuple(ids)


def test_every_case_is_written_down_once_and_in_full() -> None:
    """Each has an id of its own, a group, what happens, and what must come of it."""
    ids = [one["id"] for one in CASES]
    assert len(ids) == len(set(ids))
    assert all(one.keys() == {"id", "group", "case", "expect"} and all(one.values()) for one in CASES)


def test_every_case_has_a_test_and_every_test_a_case() -> None:
    """No case without a test, no test without a case, and no id that nobody wrote down."""
    found = dict(marked_tests())
    assert [name for name, ids in found.items() if not ids] == []
    assert {one for ids in found.values() for one in ids} == {one["id"] for one in CASES}


def test_skips_say_why() -> None:
    """Whatever is skipped on some machine names the reason."""
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"skip", "skipif", "xfail"}:
                assert node.func.attr != "xfail"  # type: ignore[attr-defined]  # just looked at
                assert node.args[:1] or node.keywords, path
                if node.func.attr == "skipif":  # type: ignore[attr-defined]  # just looked at
                    assert any(word.arg == "reason" for word in node.keywords), path
