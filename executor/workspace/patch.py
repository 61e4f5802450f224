r"""A strict reader and applier of unified diffs for one file, over exact bytes.

What a person reads in a patch is what must happen. So every line of it must mean something (a line outside a hunk, a
hunk whose header miscounts, or a second file is refused rather than skipped), and every hunk must fit at exactly the
place that it names: there is no fuzz and no search. Where the same lines stand elsewhere the error says where.

Lines end at ``\n`` only; a ``\r`` before it belongs to the line, so files with CRLF need patches with CRLF.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from executor.domain.errors import StepFailedError
from executor.workspace.edits import require_text
from executor.workspace.paths import name_of, shown

_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?\r?\n?")
_NAME = re.compile(rb"(?:---|\+\+\+) ([^\t\r\n]*)(?:\t[^\r\n]*)?\r?\n?")
_IGNORED = (b"diff --git ", b"index ")
_NO_FILE = b"/dev/null"
_PREFIX = re.compile(rb"[abciow]/")
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """One hunk: the lines it replaces and those that take their place, line ends included."""

    number: int
    old_start: int
    """Lines of the file that stand before the hunk."""
    new_start: int
    """Lines of the result that stand before the hunk."""
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


class _Reader:
    """The lines of a patch, with a position for messages."""

    def __init__(self, path: bytes, patch: bytes) -> None:
        self.path = path
        self.lines = _split(patch)
        self.position = 0

    @property
    def line(self) -> bytes | None:
        return self.lines[self.position] if self.position < len(self.lines) else None

    def refuse(
        self, why: str, remedy: str = "send a unified diff of this one file, as `diff -u` writes it"
    ) -> StepFailedError:
        message = f"patch of {shown(self.path)!r}, line {self.position + 1}: {why}"
        return StepFailedError("PLAN_INVALID", message, remedy, paths=(self.path,))


def parse(path: bytes, patch: bytes) -> tuple[Hunk, ...]:
    """Read a unified diff of one file that exists before and after.

    Raises:
        StepFailedError: it is not well formed, is of another file or of several, creates, deletes or renames.
    """
    reader = _Reader(path, patch)
    _read_header(reader)
    hunks: list[Hunk] = []
    while (line := reader.line) is not None:
        match = _HUNK.fullmatch(line)
        if match is None:
            if not b"".join(reader.lines[reader.position :]).strip():
                break
            raise reader.refuse(_unexpected(line))
        reader.position += 1
        hunks.append(_read_hunk(reader, match, len(hunks) + 1))
    if not hunks:
        raise reader.refuse("there is no hunk")
    return tuple(hunks)


def apply_patch(path: bytes, content: bytes, patch: bytes) -> bytes:
    """Return the content with the patch applied.

    Raises:
        StepFailedError: the patch is not well formed (`PLAN_INVALID`), does not fit (`CONFLICT`), or the file is
            binary (`UNSUPPORTED`).
    """
    require_text(path, content)
    lines = _split(content)
    result: list[bytes] = []
    done = 0
    for hunk in parse(path, patch):
        _check_fit(path, lines, hunk, done)
        result += lines[done : hunk.old_start]
        if len(result) != hunk.new_start:
            raise _no_fit(path, hunk, f"the hunk's new lines would start at line {len(result) + 1}, not where it says")
        result += hunk.new
        done = hunk.old_start + len(hunk.old)
    result += lines[done:]
    _check_line_ends(path, result)
    return b"".join(result)


def _split(content: bytes) -> list[bytes]:
    """Split after each line feed, and nowhere else."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _read_header(reader: _Reader) -> None:
    while reader.line is not None and reader.line.startswith(_IGNORED):
        reader.position += 1
    line = reader.line
    if line is None or not line.startswith(b"--- "):
        return
    _check_name(reader, line, "use create_file for a file that does not exist yet")
    reader.position += 1
    line = reader.line
    if line is None or not line.startswith(b"+++ "):
        raise reader.refuse("a line with '+++' must follow the one with '---'")
    _check_name(reader, line, "use delete_path to delete a file")
    reader.position += 1


def _check_name(reader: _Reader, line: bytes, remedy: str) -> None:
    match = _NAME.fullmatch(line)
    name = match[1] if match else b""
    if name == _NO_FILE:
        raise reader.refuse("the patch creates or deletes the file", remedy)
    plain = _PREFIX.sub(b"", name, count=1) if _PREFIX.match(name) else name
    if not {name, plain} & {reader.path, name_of(reader.path)}:
        raise reader.refuse(
            f"it is a patch of {shown(name)!r}", "use one step for each file, with the file's own patch"
        )


def _read_hunk(reader: _Reader, match: re.Match[bytes], number: int) -> Hunk:
    old_start, old_left, new_start, new_left = (int(text) if text is not None else 1 for text in match.groups())
    start = (old_start - (old_left > 0), new_start - (new_left > 0))
    if min(start) < 0:
        raise reader.refuse("a hunk starts at line 0")
    old: list[bytes] = []
    new: list[bytes] = []
    while old_left > 0 or new_left > 0:
        sides = _read_line(reader, old, new)
        old_left -= b"-" in sides
        new_left -= b"+" in sides
    if old_left < 0 or new_left < 0:
        raise reader.refuse("the hunk has more lines than its header counts", "correct the counts in the @@ line")
    _read_marker(reader, old, new)
    return Hunk(number=number, old_start=start[0], new_start=start[1], old=tuple(old), new=tuple(new))


def _read_line(reader: _Reader, old: list[bytes], new: list[bytes]) -> bytes:
    """Read one line of a hunk into the sides that it belongs to, and return these sides."""
    line = reader.line
    if line is None or line.startswith(b"@@"):
        raise reader.refuse("the hunk has fewer lines than its header counts", "correct the counts in the @@ line")
    if line.startswith(b"\\"):
        _read_marker(reader, old, new)
        return b""
    sides = {b" ": b"-+", b"-": b"-", b"+": b"+"}.get(line[:1])
    if sides is None:
        raise reader.refuse(_unexpected(line), "start each line of a hunk with a blank, '-', '+' or a backslash")
    text = line[1:] if line.endswith(b"\n") else line[1:] + b"\n"
    for sign, lines in ((b"-", old), (b"+", new)):
        if sign in sides:
            lines.append(text)
    reader.position += 1
    return sides


def _read_marker(reader: _Reader, old: list[bytes], new: list[bytes]) -> None:
    r"""Read a "\ No newline at end of file": the line before it has no line feed, on the sides it belongs to."""
    line = reader.line
    if line is None or not line.startswith(b"\\"):
        return
    before = reader.lines[reader.position - 1]
    for signs, lines in ((b" -", old), (b" +", new)):
        if before[:1] in (signs[:1], signs[1:]) and lines:
            lines[-1] = lines[-1].removesuffix(b"\n")
    reader.position += 1


def _check_fit(path: bytes, lines: Sequence[bytes], hunk: Hunk, done: int) -> None:
    if hunk.old_start < done:
        raise _no_fit(path, hunk, "it overlaps the hunk before it, or stands before it")
    end = hunk.old_start + len(hunk.old)
    if tuple(lines[hunk.old_start : end]) == hunk.old and hunk.old_start <= len(lines):
        return
    raise _no_fit(path, hunk, _where_it_differs(lines, hunk) + _elsewhere(lines, hunk))


def _where_it_differs(lines: Sequence[bytes], hunk: Hunk) -> str:
    for offset, wanted in enumerate(hunk.old):
        position = hunk.old_start + offset
        if position >= len(lines):
            return f"the file ends at line {len(lines)}"
        if lines[position] != wanted:
            return f"line {position + 1} is {_quoted(lines[position])}, not {_quoted(wanted)}"
    return f"the file ends at line {len(lines)}"


def _elsewhere(lines: Sequence[bytes], hunk: Hunk) -> str:
    """Say where the hunk's old lines do stand, if anywhere."""
    wanted = b"".join(hunk.old)
    whole = b"".join(lines)
    at = whole.find(wanted) if wanted else -1
    while at > 0 and whole[at - 1 : at] != b"\n":
        at = whole.find(wanted, at + 1)
    if at < 0:
        return ""
    before = whole.count(b"\n", 0, at)
    return f"; the same lines start at line {before + 1}"


def _check_line_ends(path: bytes, result: Sequence[bytes]) -> None:
    for position, line in enumerate(result[:-1]):
        if not line.endswith(b"\n"):
            message = f"patch of {shown(path)!r} leaves line {position + 1} without its end, though it is not the last"
            remedy = "mark only the file's last line with '\\ No newline at end of file'"
            raise StepFailedError("CONFLICT", message, remedy, paths=(path,))


def _no_fit(path: bytes, hunk: Hunk, why: str) -> StepFailedError:
    message = f"patch of {shown(path)!r} does not apply: hunk {hunk.number} at line {hunk.old_start + 1}: {why}"
    return StepFailedError("CONFLICT", message, "make the patch again from the file as it is", paths=(path,))


def _unexpected(line: bytes) -> str:
    if line.startswith((b"--- ", b"diff --git ")):
        return "a second file begins"
    return f"unexpected {_quoted(line)}"


def _quoted(line: bytes) -> str:
    text = repr(line[:_SHOWN].decode("utf-8", "backslashreplace"))
    return text if len(line) <= _SHOWN else text + "…"
