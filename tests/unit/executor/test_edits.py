"""Edits of a text's bytes."""

from collections.abc import Callable

import pytest

from executor.domain.errors import StepFailedError
from executor.workspace.edits import append_text, replace_text


def test_every_occurrence_is_replaced() -> None:
    """All occurrences go; line ends and bytes that are not UTF-8 stay as they are."""
    content = b"colour \xff\r\ncolour\n"
    assert replace_text(b"f", content, old=b"colour", new=b"color", expected=2) == b"color \xff\r\ncolor\n"


@pytest.mark.parametrize(("content", "expected"), [(b"none", 0), (b"x", 2), (b"xxx", 2), (b"", 1)])
def test_another_count_is_refused(content: bytes, expected: int) -> None:
    """None at all, or not as many as the plan says, is a conflict that names both numbers."""
    with pytest.raises(StepFailedError) as caught:
        replace_text(b"f", content, old=b"x", new=b"y", expected=expected)
    assert caught.value.fault.reason == "CONFLICT"
    assert f"occurs {content.count(b'x')} times" in caught.value.fault.message


def test_nothing_to_look_for_is_refused() -> None:
    """An empty text occurs everywhere, and so means nothing."""
    with pytest.raises(StepFailedError) as caught:
        replace_text(b"f", b"content", old=b"", new=b"y", expected=0)
    assert caught.value.fault.reason == "PLAN_INVALID"


def test_append_adds_exactly_the_text() -> None:
    """No line feed is added between what is there and what comes."""
    assert append_text(b"f", b"one", text=b"two\n") == b"onetwo\n"


def test_binary_content_is_refused() -> None:
    """A NUL byte makes a file binary; text edits leave it alone and say what to do."""
    edits: list[Callable[[], bytes]] = [
        lambda: replace_text(b"f", b"x\0", old=b"x", new=b"y", expected=0),
        lambda: append_text(b"f", b"x\0", text=b"y"),
    ]
    for edit in edits:
        with pytest.raises(StepFailedError) as caught:
            edit()
        assert caught.value.fault.reason == "UNSUPPORTED"
        assert "write_file" in caught.value.fault.remedy
