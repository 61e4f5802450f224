"""Facts of risk, computed from the change set and never from what a plan says about itself."""

import re
from collections.abc import Iterable, Iterator

from executor.domain.changes import Change, ChangeKind, NodeType
from executor.domain.report import RiskFact, RiskLevel
from gonogo.safe_text import shown_path

EXECUTABLE_BITS = 0o111
LARGE_BYTES = 64 * 1024 * 1024
MANY_CHANGES = 200

# Files that some program runs or obeys later without being asked again, at any depth. A change to one of them reaches
# further than the workspace's own content.
RUNS_LATER = re.compile(
    rb"""(?:^|/)(?:
        \.git(?:$|/(?:hooks/|config$|info/|modules/|worktrees/)) | \.gitmodules$ | \.gitattributes$
      | \.github/workflows/ | \.gitlab-ci\.ya?ml$ | \.circleci/ | Jenkinsfile$ | azure-pipelines\.ya?ml$ | \.ci/
      | \.vscode/ | \.idea/ | \.devcontainer/ | \.cursor/ | \.claude/ | \.envrc$ | \.direnv/ | \.husky/
      | \.pre-commit-config\.yaml$ | conftest\.py$ | sitecustomize\.py$ | usercustomize\.py$ | [^/]*\.pth$
      | setup\.py$ | package\.json$ | \.npmrc$ | \.yarnrc(?:\.yml)?$ | build\.rs$ | \.cargo/
      | \.bashrc$ | \.zshrc$ | \.profile$ | \.bash_profile$ | crontab$ | [^/]*\.service$
    )""",
    re.VERBOSE,
)


def risk_facts(changes: Iterable[Change]) -> tuple[RiskFact, ...]:
    """Return the facts of a change set, highest level first, then by path."""
    kept = tuple(changes)
    facts = [fact for change in kept for fact in _facts_of(change)]
    if len(kept) > MANY_CHANGES:
        facts.append(_fact("many_changes", "", f"{len(kept)} paths change", RiskLevel.MEDIUM))
    return tuple(sorted(facts, key=lambda fact: (-fact.level, fact.path, fact.kind)))


def highest(facts: Iterable[RiskFact]) -> RiskLevel:
    """Return the highest level among facts; low where there are none."""
    return max((fact.level for fact in facts), default=RiskLevel.LOW)


def _facts_of(change: Change) -> Iterator[RiskFact]:
    path = shown_path(change.path)
    if RUNS_LATER.search(change.path):
        yield _fact("runs_later", path, "a file that some program runs or obeys later", RiskLevel.HIGH)
    if change.kind is ChangeKind.DELETE:
        yield _fact("delete", path, "is deleted", RiskLevel.MEDIUM)
    if change.kind is ChangeKind.TYPE_CHANGE:
        yield _fact("type_change", path, "becomes something else", RiskLevel.MEDIUM)
    if change.moved_from:
        yield _fact("move", path, f"is moved from {shown_path(change.moved_from)}", RiskLevel.LOW)
    yield from _facts_of_result(change, path)


def _facts_of_result(change: Change, path: str) -> Iterator[RiskFact]:
    new, old = change.new, change.old
    if new is None:
        return
    if new.type is NodeType.SYMLINK:
        yield _fact("symlink", path, f"is a link to {shown_path(new.link_target)}", RiskLevel.MEDIUM)
    if new.type is NodeType.FILE and new.size >= LARGE_BYTES:
        yield _fact("large", path, f"has {new.size} bytes", RiskLevel.MEDIUM)
    gained = new.mode & ~(old.mode if old is not None else 0) & EXECUTABLE_BITS
    if new.type is NodeType.FILE and gained:
        yield _fact("executable", path, f"becomes executable ({new.mode:04o})", RiskLevel.MEDIUM)
    elif old is not None and old.type is new.type and old.mode != new.mode:
        yield _fact("mode", path, f"mode {old.mode:04o} becomes {new.mode:04o}", RiskLevel.LOW)


def _fact(kind: str, path: str, detail: str, level: RiskLevel) -> RiskFact:
    return RiskFact(kind=kind, path=path, detail=detail, level=level)
