"""Unified diffs of what a dry run changed, made here from objects whose digests were checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from client.api import GonogoClient
from client.changes import NetChange, besides, size_of, target_text
from client.errors import RemoteError
from client.render.layout import byte_count, short_digest
from gonogo.safe_text import path_fields, safe_block, safe_line
from gonogo.v1 import evidence_pb2

MAX_TEXT_BYTES = 1024 * 1024
# Beyond this, finding the smallest diff takes longer than anybody waits: the changed middle is shown as a whole.
MAX_COMPARED = 4_000_000
CONTEXT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """One path's change and, where both sides are short text, its unified diff, safe to show."""

    change: NetChange
    lines: tuple[str, ...]
    note: str
    """Why there is no diff, or what changed besides the content."""

    def as_json(self) -> dict[str, object]:
        """Return the diff as scripts read it."""
        return {**self.change.as_json(), "diff": "\n".join(self.lines) or None, "note": self.note}


async def file_diff(client: GonogoClient, mission_id: str, change: NetChange) -> FileDiff:
    """Fetch both sides of a change and compare them."""
    if _content(change.old) == _content(change.new):
        return FileDiff(change=change, lines=(), note=_note(change))
    old = await _text(client, mission_id, change.old)
    new = await _text(client, mission_id, change.new)
    if old is None or new is None:
        return FileDiff(change=change, lines=(), note=_bytes_note(change))
    return FileDiff(change=change, lines=tuple(unified(change, old, new)), note=_note(change))


def unified(change: NetChange, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Return the lines of a unified diff, every line safe to show."""
    before = safe_line(path_fields(change.moved_from or change.path)[0])
    yield f"--- a/{before}" if change.old is not None else "--- /dev/null"
    yield f"+++ b/{safe_line(change.shown_path)}" if change.new is not None else "+++ /dev/null"
    for group in _groups(old, new):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@"
        for tag, left, left_end, right, right_end in group:
            if tag == "equal":
                yield from (" " + safe_block(line) for line in old[left:left_end])
                continue
            yield from ("-" + safe_block(line) for line in old[left:left_end])
            yield from ("+" + safe_block(line) for line in new[right:right_end])


def split_lines(data: bytes) -> list[str] | None:
    """Return the lines of a text, None where it is not one; a missing last line feed is said in a line of its own."""
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not text:
        return []
    lines = text.split("\n")
    if lines[-1] == "":
        return lines[:-1]
    lines[-1] += "\n\\ No newline at end of file"
    return lines


Opcode = tuple[str, int, int, int, int]


def _groups(old: Sequence[str], new: Sequence[str]) -> Iterator[list[Opcode]]:
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start = max(0, head - CONTEXT)
    left, right = old[start : len(old) - tail + CONTEXT], new[start : len(new) - tail + CONTEXT]
    if len(left) * len(right) > MAX_COMPARED:
        inner = head - start
        yield [
            ("equal", start, head, start, head),
            ("replace", start + inner, len(old) - tail, start + inner, len(new) - tail),
        ]
        return
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        yield [(tag, a + start, b + start, c + start, d + start) for tag, a, b, c, d in group]


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _range(start: int, end: int) -> str:
    length = end - start
    return f"{start + 1 if length else start},{length}"


async def _text(client: GonogoClient, mission_id: str, node: evidence_pb2.NodeState | None) -> list[str] | None:
    if node is None:
        return []
    if node.type != evidence_pb2.NODE_TYPE_FILE or (size_of(node) or 0) > MAX_TEXT_BYTES:
        return None
    if size_of(node) == 0:
        return []
    try:
        data = await client.object(mission_id, node.digest, max_bytes=MAX_TEXT_BYTES)
    except RemoteError as error:
        if error.reason == "NOT_FOUND":
            return None
        raise
    return None if data is None else split_lines(data)


def _content(node: evidence_pb2.NodeState | None) -> tuple[object, ...]:
    return () if node is None else (node.type, node.digest, node.link_target, node.raw_link_target)


def _note(change: NetChange) -> str:
    parts: list[str] = []
    if change.moved_from:
        parts.append(f"moved from {path_fields(change.moved_from)[0]}")
    old, new = change.old, change.new
    if old is not None and new is not None and old.mode != new.mode:
        parts.append(f"mode {old.mode} → {new.mode}")
    if new is not None and old is None:
        parts.append(f"{change.kind} {_type(new)} mode {new.mode}")
    if new is None and old is not None:
        parts.append(f"delete {_type(old)}")
    parts += besides(change)
    return safe_line(", ".join(parts))


def _bytes_note(change: NetChange) -> str:
    sides = [
        f"{_type(node)} {byte_count(size_of(node))} {_what(node)}" if node else "nothing"
        for node in (change.old, change.new)
    ]
    return safe_line(", ".join((f"not shown as text: {sides[0]} → {sides[1]}", *besides(change))))


def _what(node: evidence_pb2.NodeState) -> str:
    return f"→ {target_text(node)}" if node.type == evidence_pb2.NODE_TYPE_SYMLINK else short_digest(node.digest)


def _type(node: evidence_pb2.NodeState) -> str:
    names = {
        evidence_pb2.NODE_TYPE_FILE: "file",
        evidence_pb2.NODE_TYPE_DIRECTORY: "directory",
        evidence_pb2.NODE_TYPE_SYMLINK: "symlink",
    }
    return names.get(node.type, "node")
