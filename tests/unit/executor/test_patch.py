"""The strict patch applier: exact bytes at exact places, or a reason with hunk and line."""

import difflib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.domain.errors import StepFailedError
from executor.workspace.patch import apply_patch

CONTENT = b"one\ntwo\nthree\nfour\nfive\n"
HEADER = b"--- a/f\n+++ b/f\n"


def refusal(patch: bytes, content: bytes = CONTENT, path: bytes = b"f") -> tuple[str, str]:
    with pytest.raises(StepFailedError) as caught:
        apply_patch(path, content, patch)
    assert caught.value.fault.remedy
    return caught.value.fault.reason, caught.value.fault.message


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        (b"@@ -2 +2 @@\n-two\n+2\n", b"one\n2\nthree\nfour\nfive\n"),
        (b"@@ -0,0 +1,2 @@\n+a\n+b\n", b"a\nb\n" + CONTENT),
        (b"@@ -5,0 +6 @@ section\n+six\n", CONTENT + b"six\n"),
        (b"@@ -1,2 +0,0 @@\n-one\n-two\n", b"three\nfour\nfive\n"),
        (b"@@ -1,2 +1,2 @@\n-one\n+1\n two\n@@ -4,2 +4 @@\n four\n-five\n", b"1\ntwo\nthree\nfour\n"),
        (b"@@ -5 +5 @@\n-five\n+five\n\\ No newline at end of file\n", CONTENT[:-1]),
        (b"@@ -2,2 +2,2 @@\n--- two\n+++ 2\n three\n", b"one\n++ 2\nthree\nfour\nfive\n"),
    ],
)
def test_hunks_apply(patch: bytes, result: bytes) -> None:
    """Changed, added and removed lines, at the beginning, inside and at the end."""
    content = CONTENT.replace(b"two", b"-- two") if b"--- two" in patch else CONTENT
    assert apply_patch(b"f", content, HEADER + patch) == result
    assert apply_patch(b"f", content, patch) == result
    assert apply_patch(b"f", content, b"diff --git a/f b/f\nindex 1..2 100644\n" + HEADER + patch + b"\n") == result


def test_the_last_line_end_is_kept_exactly() -> None:
    """A missing last line feed is context like any other, and can be added."""
    patch = b"@@ -1 +1 @@\n-one\n\\ No newline at end of file\n+one\n"
    assert apply_patch(b"f", b"one", patch) == b"one\n"
    assert refusal(patch, b"one\n")[0] == "CONFLICT"


def test_crlf_is_kept_and_must_match() -> None:
    """Carriage returns belong to the lines; a patch without them does not fit a file with them."""
    patch = b"--- f\r\n+++ f\r\n@@ -1,2 +1,2 @@\r\n one\r\n-two\r\n+2\r\n"
    assert apply_patch(b"f", b"one\r\ntwo\r\n", patch) == b"one\r\n2\r\n"
    assert refusal(patch.replace(b"\r", b""), b"one\r\ntwo\r\n")[0] == "CONFLICT"


def test_bytes_that_are_not_utf8_stay() -> None:
    """Lines around the hunk may hold any bytes but NUL."""
    assert apply_patch(b"f", b"\xff\r\x0b\x85\none\n", b"@@ -2 +2 @@\n-one\n+1\n") == b"\xff\r\x0b\x85\n1\n"
    assert refusal(b"@@ -1 +1 @@\n-one\n+1\n", b"one\n\0")[0] == "UNSUPPORTED"


def test_a_hunk_that_does_not_fit_names_line_and_place() -> None:
    """The message says which hunk, which line differs, and where the same lines do stand."""
    reason, message = refusal(b"@@ -2,2 +2,2 @@\n three\n-four\n+4\n")
    assert reason == "CONFLICT"
    assert "hunk 1 at line 2" in message
    assert "line 2 is 'two\\n', not 'three\\n'" in message
    assert "the same lines start at line 3" in message


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (b"@@ -9 +9 @@\n-nine\n+9\n", "the file ends at line 5"),
        (b"@@ -3 +3 @@\n-three\n+3\n@@ -1 +1 @@\n-one\n+1\n", "stands before it"),
        (b"@@ -3 +7 @@\n-three\n+3\n", "new lines would start at line 3"),
        (b"@@ -9,0 +10 @@\n+ten\n", "the file ends at line 5"),
        (b"@@ -1 +1 @@\n-one\n+1\n\\ No newline at end of file\n", "leaves line 1 without its end"),
    ],
)
def test_hunks_at_impossible_places_conflict(patch: bytes, words: str) -> None:
    """Beyond the end, backwards, or where the result would not be: nothing is guessed."""
    reason, message = refusal(patch)
    assert reason == "CONFLICT"
    assert words in message


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (b"", "there is no hunk"),
        (b"just words\n", "unexpected"),
        (HEADER, "there is no hunk"),
        (b"--- a/f\n@@ -1 +1 @@\n-one\n+1\n", "'+++' must follow"),
        (b"--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n", "creates or deletes"),
        (b"--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", "creates or deletes"),
        (b"--- a/g\n+++ b/g\n@@ -1 +1 @@\n-one\n+1\n", "patch of 'a/g'"),
        (b"rename from f\nrename to g\n", "unexpected"),
        (b"@@ -1 +1 @@\n-one\n+1\n+evil\n", "unexpected"),
        (b"@@ -1 +1 @@\n-one\n+1\n--- a/g\n+++ b/g\n", "a second file begins"),
        (b"@@ -1,2 +1,2 @@\n-one\n+1\n", "fewer lines"),
        (b"@@ -1,3 +1 @@\n-one\n+1\n@@ -5 +5 @@\n-five\n+5\n", "fewer lines"),
        (b"@@ -1,2 +1 @@\n-one\n+1\n+2\n-two\n", "more lines"),
        (b"@@ -1,2 +1,2 @@\n\n-one\n+1\n", "unexpected"),
        (b"@@ -0,1 +1 @@\n-one\n+1\n", "starts at line 0"),
    ],
)
def test_every_line_must_mean_something(patch: bytes, words: str) -> None:
    """A patch that says more, less or other than its headers is refused whole."""
    reason, message = refusal(patch)
    assert reason == "PLAN_INVALID"
    assert words in message


LINES = st.lists(st.sampled_from(["a", "b", "", "-x", "+y", "@@", "\\", "é\r", "--- a/f"]), max_size=8)


@given(old=LINES, new=LINES, last=st.booleans(), context=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_whatever_difflib_writes_applies(old: list[str], new: list[str], last: bool, context: int) -> None:
    """A diff made by the standard library turns the old text into the new one."""
    before, after = [line + "\n" for line in old], [line + "\n" for line in new]
    if last and after:
        after[-1] = after[-1][:-1] or "x"
    text = ""
    for line in difflib.unified_diff(before, after, "f", "f", n=context):
        text += line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
    if text:
        assert apply_patch(b"f", "".join(before).encode(), text.encode()) == "".join(after).encode()


def test_what_git_writes_applies(tmp_path: Path) -> None:
    """A diff made by git turns the old file into the new one."""
    (tmp_path / "f").write_bytes(CONTENT)
    (tmp_path / "g").write_bytes(CONTENT.replace(b"three", b"3") + b"six")
    argv = ["git", "diff", "--no-index", "--no-color", "f", "g"]
    patch = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).stdout
    patch = patch.replace(b"b/g", b"b/f")
    assert apply_patch(b"f", CONTENT, patch) == (tmp_path / "g").read_bytes()
