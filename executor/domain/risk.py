"""Facts of risk, computed from the change set and never from what a plan says about itself."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.report import RiskFact, RiskLevel
from executor.domain.runs_later import (
    RUNS_BY_ITSELF,
    RUNS_BY_ITSELF_FOLDED,
    RUNS_WHEN_BUILT,
    RUNS_WHEN_BUILT_FOLDED,
)
from gonogo.safe_text import shown_path

EXECUTABLE_BITS = 0o111
WORLD_WRITABLE = 0o002
LARGE_BYTES = 64 * 1024 * 1024
MANY_CHANGES = 200
HEAD_BYTES = 8192

RISK_FACTS = (
    "binary",
    "delete",
    "executable",
    "irreversible",
    "keeps_running",
    "large",
    "live_effect",
    "many_changes",
    "mode",
    "move",
    "network_read",
    "runs_later",
    "runs_when_built",
    "symlink",
    "type_change",
    "unversioned",
    "world_writable",
)
"""The kinds of all facts that there are; rules of the trust file name them."""

_PROGRAM_MAGIC = (
    b"\x7fELF",
    b"MZ",
    b"\0asm",
    b"\xca\xfe\xba\xbe",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the facts need to know besides the change set.

    `head`: the first bytes of the file that is at a path in the end. `folds`: whether the directory of a path takes
    names that differ in case for the same. `versioned`: whether a path lies in a directory that git keeps versions of.
    `git_directory`: whether a directory, whatever its name, is what git keeps a repository in.
    """

    head: Callable[[bytes, Node], bytes]
    folds: Callable[[bytes], bool]
    versioned: Callable[[bytes], bool]
    git_directory: Callable[[bytes], bool]


ALONE = Around(
    head=lambda _path, _node: b"", folds=lambda _: False, versioned=lambda _: True, git_directory=lambda _: False
)
# What git obeys that is started in a repository's own directory, whatever its name, and how deep in it that is.
_OBEYED_BY_GIT = re.compile(rb"(?P<directory>.+)/(?:config(?:\.worktree)?|commondir|hooks/[^/]+|info/[^/]+)")


def risk_facts(changes: Iterable[Change], around: Around = ALONE) -> tuple[RiskFact, ...]:
    """Return the facts of a change set, highest level first, then by path."""
    kept = tuple(changes)
    facts = [fact for change in kept for fact in _facts_of(change, around)]
    if len(kept) > MANY_CHANGES:
        facts.append(_fact("many_changes", "", f"{len(kept)} paths change", RiskLevel.MEDIUM))
    facts += _unversioned(kept, around)
    return ranked(facts)


def ranked(facts: Iterable[RiskFact]) -> tuple[RiskFact, ...]:
    """Return facts, the highest level first, then by path."""
    return tuple(sorted(facts, key=lambda fact: (-fact.level, fact.path, fact.kind)))


def highest(facts: Iterable[RiskFact]) -> RiskLevel:
    """Return the highest level among facts; low where there are none."""
    return max((fact.level for fact in facts), default=RiskLevel.LOW)


def _facts_of(change: Change, around: Around) -> Iterator[RiskFact]:
    path = shown_path(change.path)
    yield from _facts_of_name(change, path, around)
    if change.kind is ChangeKind.DELETE:
        yield _fact("delete", path, "is deleted", RiskLevel.MEDIUM)
    if change.kind is ChangeKind.TYPE_CHANGE:
        yield _fact("type_change", path, "becomes something else", RiskLevel.MEDIUM)
    if change.moved_from:
        yield _fact("move", path, f"is moved from {shown_path(change.moved_from)}", RiskLevel.LOW)
    if change.new is not None:
        yield from _facts_of_result(change, change.new, path)
        yield from _facts_of_content(change, change.new, path, around)


def _facts_of_name(change: Change, path: str, around: Around) -> Iterator[RiskFact]:
    if _named(change, RUNS_BY_ITSELF, RUNS_BY_ITSELF_FOLDED, around) or _obeyed_by_git(change.path, around):
        yield _fact("runs_later", path, "a file that some program runs or obeys later", RiskLevel.HIGH)
    elif _named(change, RUNS_WHEN_BUILT, RUNS_WHEN_BUILT_FOLDED, around):
        yield _fact("runs_when_built", path, "a file that a build, a test run or an agent obeys", RiskLevel.MEDIUM)


def _obeyed_by_git(path: bytes, around: Around) -> bool:
    found = _OBEYED_BY_GIT.fullmatch(path)
    return found is not None and around.git_directory(found["directory"])


def _named(change: Change, exact: re.Pattern[bytes], folded: re.Pattern[bytes], around: Around) -> bool:
    return any(
        folded.search(path) and (exact.search(path) or around.folds(path))
        for path in (change.path, change.moved_from)
        if path
    )


def _facts_of_result(change: Change, new: Node, path: str) -> Iterator[RiskFact]:
    old = change.old
    if new.type is NodeType.SYMLINK:
        if old is None or old.link_target != new.link_target or change.moved_from:
            yield _fact("symlink", path, f"is a link to {shown_path(new.link_target)}", RiskLevel.MEDIUM)
        return
    if new.type is NodeType.FILE and new.size >= LARGE_BYTES:
        yield _fact("large", path, f"has {new.size} bytes", RiskLevel.MEDIUM)
    gained = new.mode & ~(old.mode if old is not None else 0)
    if gained & WORLD_WRITABLE:
        yield _fact("world_writable", path, f"everybody may write it ({new.mode:04o})", RiskLevel.MEDIUM)
    if new.type is NodeType.FILE and gained & EXECUTABLE_BITS:
        yield _fact("executable", path, f"becomes executable ({new.mode:04o})", RiskLevel.MEDIUM)
    elif old is not None and old.type is new.type and old.mode != new.mode:
        yield _fact("mode", path, f"mode {old.mode:04o} becomes {new.mode:04o}", RiskLevel.LOW)


def _facts_of_content(change: Change, new: Node, path: str, around: Around) -> Iterator[RiskFact]:
    """Nobody reads a binary file in a diff; a program in machine code can do more than show something."""
    if new.type is not NodeType.FILE or (change.old and change.old.digest == new.digest):
        return
    head = around.head(change.path, new)
    if head.startswith(_PROGRAM_MAGIC):
        yield _fact("binary", path, "is a program in machine code", RiskLevel.MEDIUM)
    elif b"\0" in head[:HEAD_BYTES]:
        yield _fact("binary", path, "is binary: no diff shows what changed", RiskLevel.LOW)


def _unversioned(changes: tuple[Change, ...], around: Around) -> Iterator[RiskFact]:
    """Say once for all paths that git could not bring them back."""
    count = sum(1 for change in changes if not around.versioned(change.path))
    if count:
        paths = "1 path is" if count == 1 else f"{count} paths are"
        detail = f"{paths} outside version control: only an undo of gonogo's brings back what was there"
        yield _fact("unversioned", "", detail, RiskLevel.LOW)


def _fact(kind: str, path: str, detail: str, level: RiskLevel) -> RiskFact:
    return RiskFact(kind=kind, path=path, detail=detail, level=level)
