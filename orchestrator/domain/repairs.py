"""What to blame for a failure, told from what was changed and what the failing program said.

Plain rules, and nothing is certain: what comes of them is a proposal that has its own dry run and its own approval.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Final

from orchestrator.domain.findings import FoundChange, FoundKind, FoundNode, StepFinding
from orchestrator.domain.plan import (
    Action,
    CreateDirectory,
    CreateFile,
    DeletePath,
    MovePath,
    SetMode,
    Step,
    WriteFile,
)

NEAR_LINES: Final = 3
"""How far outside of a changed stretch a line may lie for the stretch to be blamed for it."""
MAX_LINES: Final = 20_000
"""How many lines there may be between the first change of a file and the last, for its stretches to be told apart."""
_TESTS: Final = re.compile(r"(?:^|/)(?:tests?|__tests__|spec)/|(?:^|/)test_[^/]*$|[_.](?:test|spec)\.[^/]*$")
"""Files of tests, as most languages and their tools name them."""
MAX_PAIRS: Final = 400_000
"""How many pairs of equal lines there may be among those: that many are compared, and more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blamed:
    """The change that a failure is most likely about."""

    step_id: str
    change: FoundChange
    lines: tuple[int, ...]
    """Lines of the new content, counted from 1, that the program named; none where it named only the file, or not even
    that."""

    @property
    def named(self) -> bool:
        """Whether the program named the file at all."""
        return bool(self.lines)


def blame(changed: Sequence[StepFinding], said: str) -> Blamed | None:
    """Return the change to blame: the one whose file is named most often, else the newest.

    A test is named wherever it fails, and the cause is rarely in it: files of tests are blamed last.

    Args:
        changed: the steps whose changes stand, in their order.
        said: what the failing program said.
    """
    candidates = [
        (step.step_id, change)
        for step in changed
        for change in step.changes
        if change.is_text and restoring(change, b"") is not None
    ]
    if not candidates:
        return None
    newest = {change.path: (step_id, change) for step_id, change in candidates}
    found = {path: _mentions(path, said) if path in said else [] for path in newest}
    _, path = max(enumerate(newest), key=lambda one: (_TESTS.search(one[1]) is None, len(found[one[1]]), one[0]))
    step_id, change = newest[path]
    return Blamed(step_id=step_id, change=change, lines=tuple(line for line in found[path] if line))


def _mentions(path: str, said: str) -> list[int]:
    """Return a number for each time that a file is named: the line, or 0 where none is."""
    name = rf"(?<![\w.-]){re.escape(path)}(?![\w/-])(?:(?::|\", line |, line |\()(\d{{1,7}}))?"
    return [int(match[1] or 0) for match in re.finditer(name, said)]


def without_stretch(old: bytes, new: bytes, lines: Iterable[int]) -> bytes:
    """Return the new content with the stretches taken back that lie at the named lines.

    A file that changed in one place only, or at whose changed places none of the lines is, goes back as a whole, and so
    does one that it would take long to compare.
    """
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    changed = _changed(before, after)
    wanted = tuple(lines)
    hit = [code for code in changed if any(_is_near(line, code[3], code[4]) for line in wanted)]
    if not hit or len(hit) == len(changed):
        return old
    kept, at = [], 0
    for _, old_from, old_to, new_from, new_to in hit:
        kept += [*after[at:new_from], *before[old_from:old_to]]
        at = new_to
    return b"".join([*kept, *after[at:]])


def _changed(before: Sequence[bytes], after: Sequence[bytes]) -> list[tuple[str, int, int, int, int]]:
    """Return the stretches that differ; none where there is too much between the first of them and the last."""
    most = min(len(before), len(after))
    head = next((at for at in range(most) if before[at] != after[at]), most)
    most -= head
    tail = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    times = Counter(old)
    if len(old) + len(new) > MAX_LINES or sum(times[line] for line in new) > MAX_PAIRS:
        return []
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in codes if tag != "equal"]


def _is_near(line: int, start: int, end: int) -> bool:
    return start - NEAR_LINES < line <= max(end, start + 1) + NEAR_LINES


def restoring(change: FoundChange, content: bytes) -> Action | None:
    """Return the typed action that takes a change back; None where there is none.

    Args:
        change: what was done.
        content: what the file shall hold, where it was one; text.
    """
    old, path = change.old, change.path
    if change.kind is FoundKind.CREATE:
        return DeletePath(path=path, recursive=change.new is not None and change.new.type == "directory")
    if change.kind is FoundKind.MOVE:
        return MovePath(path=path, to=change.moved_from)
    return None if old is None else _former(change.kind, path, old, content)


def _former(kind: FoundKind, path: str, old: FoundNode, content: bytes) -> Action | None:
    match kind, old.type:
        case FoundKind.DELETE, "directory":
            return CreateDirectory(path=path, mode=old.mode)
        case FoundKind.DELETE, "file":
            return CreateFile(path=path, mode=old.mode, content=content.decode())
        case FoundKind.MODIFY, "file":
            return WriteFile(path=path, mode=old.mode, content=content.decode())
        case FoundKind.METADATA, "file" | "directory":
            return SetMode(path=path, mode=old.mode)
        case _:
            return None


def is_writable(content: bytes) -> bool:
    """Tell whether a typed step can hold a content as text."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def repair_step(action: Action, description: str) -> Step:
    """Return a step of a repair; its stage is its kind's, as of any other."""
    return Step(description=description, action=action)


def renewed(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return steps without their ids, so that a repair plan gives them ids of its own."""
    return tuple(replace(step, step_id="") for step in steps)
