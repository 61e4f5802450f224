"""Searching files with ripgrep: no shell, no configuration, no preprocessor, nothing outside the directory.

The tree may hold edits that are in memory only. So ripgrep searches the real directory, where the answers for touched
paths are left out, and then a temporary directory that holds the touched files as they are now. Its order of output
is not relied on: matches are put in order here, which lets it use more than one thread.
"""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executor.domain.changes import Node, NodeType
from executor.domain.errors import StepBlockedError, StepFailedError
from executor.domain.plan import SearchFiles
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import SearchEvidence, SearchMatch
from executor.workspace.globs import Globs
from executor.workspace.paths import ROOT, is_beneath, join, shown
from executor.workspace.tree import Tree
from gonogo.digests import framed_digest
from gonogo.safe_text import shown_path

MAX_MATCHES = 100
MAX_LINES = 200_000
MAX_TEXT = 500
MAX_PATTERN = 10_000
MAX_FILE_BYTES = 64 << 20
"""Files over this size are not searched."""

_MOST_OUTPUT_LINE = 8 << 20
_ERROR_TEXT = 400
_FOUND, _NOTHING = 0, 1
_OPTIONS = (
    "--json",
    "--no-config",
    "--no-messages",
    "--no-mmap",
    "--hidden",
    "--no-ignore",
    "--no-follow",
    "--one-file-system",
    "--case-sensitive",
    "--threads=2",
    f"--max-filesize={MAX_FILE_BYTES}",
)


def search(
    tree: Tree,
    action: SearchFiles,
    path: bytes,
    *,
    hidden: Globs,
    timeout: float,
    redactor: Redactor = NO_SECRETS,
) -> SearchEvidence:
    """Search a file, or everything beneath a directory, hidden paths left out.

    Matches, and the digest over them, are of the lines without secrets.

    Raises:
        StepFailedError: the pattern is not well formed, there are too many matches, or it took too long.
        StepBlockedError: ripgrep is not installed.
    """
    node = tree.node(path)
    if node is None or node.type not in {NodeType.FILE, NodeType.DIRECTORY}:
        message = f"{shown(path)!r} is neither a file nor a directory"
        raise StepFailedError("NOT_FOUND", message, "name a file or directory that exists", paths=(path,))
    ripgrep = _Ripgrep(action, timeout)
    lines = _Lines(redactor=redactor)
    if node.type is NodeType.FILE:
        _search_file(tree, path, node, ripgrep, lines)
    else:
        _search_base(tree, path, hidden, ripgrep, lines)
        _search_touched(tree, path, hidden, ripgrep, lines)
    return lines.evidence()


@dataclass(slots=True)
class _Lines:
    """The matching lines so far: all of them in the digest, the first of them by path and line as text."""

    redactor: Redactor = NO_SECRETS
    count: int = 0
    first: list[tuple[bytes, int, str]] = field(default_factory=list)
    files: dict[bytes, Any] = field(default_factory=dict)

    def add(self, path: bytes, line: int, found: bytes) -> None:
        text = self.redactor.data(found)
        self.count += 1
        if self.count > MAX_LINES:
            raise _too_much(f"more than {MAX_LINES} lines match")
        if path not in self.files:
            self.files[path] = hashlib.sha256()
        self.files[path].update(b"%d:%d:" % (line, len(text)) + text)
        self.first.append((path, line, text.rstrip(b"\r\n").decode("utf-8", "replace")[:MAX_TEXT]))
        if len(self.first) > 10 * MAX_MATCHES:
            self._cut()

    def evidence(self) -> SearchEvidence:
        self._cut()
        matches = tuple(
            SearchMatch(path=shown_path(self.redactor.data(path)), line=line, text=text)
            for path, line, text in self.first
        )
        parts = [
            part for path, hasher in sorted(self.files.items()) for part in (self.redactor.data(path), hasher.digest())
        ]
        return SearchEvidence(count=self.count, matches=matches, digest=framed_digest(parts))

    def _cut(self) -> None:
        self.first.sort()
        del self.first[MAX_MATCHES:]


def _search_file(tree: Tree, path: bytes, node: Node, ripgrep: "_Ripgrep", lines: _Lines) -> None:
    if node.size > MAX_FILE_BYTES:
        raise _too_much(f"{shown(path)!r} is over {MAX_FILE_BYTES} bytes")
    fd = tree.open_content(path)
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        for _, line, text in ripgrep.run("-", stdin=fd):
            lines.add(path, line, text)
    finally:
        os.close(fd)


def _search_base(tree: Tree, path: bytes, hidden: Globs, ripgrep: "_Ripgrep", lines: _Lines) -> None:
    if tree.made_here(path):
        return
    fd = tree.base.open_directory(path)
    try:
        # The descriptor is the directory, whatever its name means by the time ripgrep starts there.
        options = _exclusions(hidden, at_root=path == ROOT)
        for name, line, text in ripgrep.run(".", cwd=f"/proc/self/fd/{fd}", options=options):
            found = join(path, name)
            if not tree.touched(found) and not hidden.covers(found):
                lines.add(found, line, text)
    finally:
        os.close(fd)


def _search_touched(tree: Tree, path: bytes, hidden: Globs, ripgrep: "_Ripgrep", lines: _Lines) -> None:
    """Search the files that earlier steps changed, made or moved, from copies whose names are only numbers."""
    touched = [
        found
        for found, node in tree.states().items()
        if node is not None
        and node.type is NodeType.FILE
        and node.size <= MAX_FILE_BYTES
        and is_beneath(found, path)
        and not hidden.covers(found)
    ]
    if not touched:
        return
    with tempfile.TemporaryDirectory(prefix="gonogo-search-") as place:
        for number, found in enumerate(touched):
            _copy(tree.open_content(found), Path(place) / str(number))
        for name, line, text in ripgrep.run(".", cwd=place):
            lines.add(touched[int(name)], line, text)


def _copy(fd: int, target: Path) -> None:
    with open(fd, "rb", closefd=True) as source, target.open("xb") as copy:
        source.seek(0)
        shutil.copyfileobj(source, copy, 1 << 20)


def _exclusions(hidden: Globs, *, at_root: bool) -> tuple[str, ...]:
    """Return options that keep ripgrep from even opening hidden files; what counts is the check of each answer."""
    usable = [pattern for pattern in hidden.patterns if at_root or pattern.startswith("**/")]
    escapes = str.maketrans({"\\": r"\\", "{": "[{]", "}": "[}]"})
    return tuple(f"--glob=!/{pattern.removeprefix('./').translate(escapes)}" for pattern in usable)


class _Ripgrep:
    """Runs ripgrep for one pattern, within one time limit for all its runs."""

    def __init__(self, action: SearchFiles, timeout: float) -> None:
        self._program = _program()
        self._pattern = _checked_pattern(action.pattern)
        self._literal = ("--fixed-strings",) if action.literal else ()
        self._timeout = timeout
        self._until = time.monotonic() + timeout

    def run(
        self, target: str, *, cwd: str | None = None, stdin: int = subprocess.DEVNULL, options: tuple[str, ...] = ()
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield (path relative to `cwd`, line number, line) of each matching line."""
        argv = [self._program, *_OPTIONS, *self._literal, *options, "--", self._pattern, target]
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        with process, _killed_at(process, self._until):
            if process.stdout is not None and process.stderr is not None:
                yield from _matches(process.stdout.readline)
                complaint = process.stderr.read(_ERROR_TEXT)
                self._check(process.wait(), complaint)

    def _check(self, code: int, complaint: bytes) -> None:
        if time.monotonic() >= self._until:
            raise _too_much(f"the search took longer than {self._timeout:g} seconds")
        if code not in {_FOUND, _NOTHING}:
            why = complaint.decode("utf-8", "replace").strip() or "some files could not be read"
            remedy = (
                "correct the pattern (ripgrep's syntax), or set literal; or search files that the executor may read"
            )
            raise StepFailedError("PLAN_INVALID", f"the search failed: {why}", remedy)


def _program() -> str:
    program = shutil.which("rg")
    if program is None:
        remedy = "install ripgrep on the executor's host, for instance: apt-get install ripgrep"
        raise StepBlockedError("UNSUPPORTED", "ripgrep (rg) is not installed", remedy)
    return program


def _checked_pattern(pattern: str) -> str:
    if not pattern or len(pattern) > MAX_PATTERN or any(character in pattern for character in "\0\n"):
        message = f"a search pattern is one line of 1 to {MAX_PATTERN} characters"
        raise StepFailedError("PLAN_INVALID", message, "search for a part of one line")
    return pattern


@contextlib.contextmanager
def _killed_at(process: subprocess.Popen[bytes], until: float) -> Iterator[None]:
    """Kill a process at a moment, and in any case when nobody reads it any more."""
    timer = threading.Timer(max(0.0, until - time.monotonic()), process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()


def _matches(readline: Callable[[int], bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    while output := readline(_MOST_OUTPUT_LINE):
        if not output.endswith(b"\n"):
            if len(output) == _MOST_OUTPUT_LINE:
                raise _too_much("a matching line is too long")
            return  # cut off by the time limit, which is reported by itself
        event = json.loads(output)
        if event["type"] == "match":
            data = event["data"]
            yield _bytes_of(data["path"]).removeprefix(b"./"), data["line_number"], _bytes_of(data["lines"])


def _bytes_of(value: Mapping[str, str]) -> bytes:
    """Return a text of ripgrep's JSON, which is base64 where it is not UTF-8."""
    return base64.b64decode(value["bytes"]) if "bytes" in value else value["text"].encode()


def _too_much(what: str) -> StepFailedError:
    return StepFailedError("TOO_LARGE", what, "search a smaller directory, or for a narrower pattern")
