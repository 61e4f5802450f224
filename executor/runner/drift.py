"""Whether the workspace is still what was seen of it: at the end of a dry run, and at gate 6 before an execution.

Stat comes first; where stat differs, the content's digest decides, as far as one is known. It is known of every path
that a step names or changes: there a mere touch is no drift. Of what a command may have read without a trace only stat
is known, and any difference counts.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from executor.domain.changes import ChangeKind, Node, NodeType, States
from executor.domain.errors import ExecutorError, StepFailedError, StoreError
from executor.domain.plan import ListDirectory, Plan, SearchFiles, Step
from executor.domain.redaction import Redactor, no_secrets
from executor.domain.report import ListEvidence, Report, SearchEvidence
from executor.runner.base import base_of
from executor.steps.retrieve import retrieve
from executor.workspace.manifest import Manifest, ManifestWalk
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import ROOT, Directory, join, parent_of, relative, same_stamp
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace
from gonogo.digests import digest as digest_of

MANIFEST_BYTES = 1 << 30
_LEAVING = frozenset({ChangeKind.DELETE, ChangeKind.MOVE, ChangeKind.TYPE_CHANGE})
_IN_PLACE = frozenset({ChangeKind.MODIFY, ChangeKind.METADATA})


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDrift:
    """Compares the workspace with a report's base; the port `executor.runner.ports.FindDrift`."""

    objects: ObjectStore
    redactor: Callable[[], Redactor] = no_secrets
    """What listings and searches were told without; the digests that they are compared by are."""

    def __call__(self, plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
        """Return the paths that differ, sorted."""
        root = workspace.open()
        if not report.manifest_digest:
            return tuple(sorted(self._known(plan, report, workspace, root)[0]))
        with ManifestWalk(root, volatile=workspace.volatile, hidden=workspace.hidden) as walk:
            drifted, same = self._known(plan, report, workspace, root)
            differing = self._stored(report.manifest_digest).differences(walk.finish())
        return tuple(sorted(drifted.union(differing) - same))

    def _known(
        self, plan: Plan, report: Report, workspace: Workspace, root: Directory
    ) -> tuple[set[bytes], set[bytes]]:
        """Compare what is known by digest; return the paths that differ, and those that do not."""
        base = base_of(plan, report.steps)
        drifted = {path for path, node in base.states.items() if not _is(root, path, node)}
        drifted |= {parent for parent in _parents_of_new(base.states) if not _is_directory(root, parent)}
        drifted |= _more_than_reported(root, base.states, report)
        retrievals: list[tuple[Step, ListEvidence | SearchEvidence]] = [*base.listings, *base.searches]
        for step, found in retrievals:
            if not self._finds_again(root, workspace, step, found):
                drifted.add(_searched(step))
        return drifted, base.states.keys() - drifted

    def _finds_again(
        self, root: Directory, workspace: Workspace, step: Step, found: ListEvidence | SearchEvidence
    ) -> bool:
        action = step.action
        if not isinstance(action, ListDirectory | SearchFiles):
            return False
        try:
            again = retrieve(
                Tree(root, self.objects.batch()), action, hidden=workspace.hidden, redactor=self.redactor()
            )
        except StepFailedError:
            return False
        return isinstance(again, type(found)) and again.digest == found.digest

    def _stored(self, digest: str) -> Manifest:
        data = self.objects.read(digest, 0, MANIFEST_BYTES)
        if digest_of(data) != digest:
            raise StoreError("INTERNAL", "a stored manifest is damaged", "make the dry run again")
        return Manifest.decode(data)


def changed_meanwhile(tree: Tree, workspace: Workspace) -> tuple[bytes, ...]:
    """Return the paths of a tree's base that are no longer what the tree saw of them, sorted.

    Names that come and go where nothing counts, volatile and hidden ones, are no change of a directory.
    """
    changed = {path for path, stamp in tree.stamps.items() if not _is_still(tree, path, stamp)}
    for path, (stamp, names) in tree.listed.items():
        now = tree.base.lstat(path)
        if now is None or stamp is None or not os.path.samestat(now, stamp):
            changed.add(path)
        elif now.st_mtime_ns != stamp.st_mtime_ns:
            paths = {join(path, name) for name in names.symmetric_difference(tree.base.names(path))}
            changed |= {one for one in paths if not workspace.volatile.covers(one) and not workspace.hidden.covers(one)}
    return tuple(sorted(changed))


def _is_still(tree: Tree, path: bytes, stamp: os.stat_result | None) -> bool:
    try:
        now = tree.base.lstat(path)
        if now is None or stamp is None:
            return now is stamp
        if same_stamp(now, stamp) and (stat.S_ISDIR(now.st_mode) or now.st_ctime_ns == stamp.st_ctime_ns):
            return True
        return tree.base.node(path) == tree.consulted[path]
    except (ExecutorError, OSError):
        return False


def _is(root: Directory, path: bytes, expected: Node | None) -> bool:
    """Tell whether a path is what it was; the digest is computed only where the cheap facts agree."""
    try:
        glance = root.state(path, digest=False)
        if glance is None or expected is None or expected.type is not NodeType.FILE:
            return glance == expected
        if (glance.type, glance.mode, glance.size) != (expected.type, expected.mode, expected.size):
            return False
        return root.state(path) == expected
    except ExecutorError:
        return False  # a path that can no longer be reached safely is not what it was


def _parents_of_new(states: States) -> set[bytes]:
    """Return the directories that new names come into and that the plan does not make itself."""
    parents = {parent_of(path) for path, node in states.items() if node is None}
    return {parent for parent in parents if parent != ROOT and parent not in states}


def _more_than_reported(root: Directory, states: States, report: Report) -> set[bytes]:
    """Return what would go along with a directory, or change under another name, though the report does not say so."""
    more: set[bytes] = set()
    seen: set[bytes] = set()  # what changes again is the plan's own file by then
    for change in (change for step in report.steps for change in step.changes):
        path = change.moved_from or change.path
        former = states.get(path)
        if former is not None and former.type is NodeType.DIRECTORY and change.kind in _LEAVING:
            more |= {join(path, name) for name in _names(root, path)} - states.keys()
        if former is not None and former.type is NodeType.FILE and change.kind in _IN_PLACE and path not in seen:
            more |= {path} if _is_shared(root, path) else set()
        seen.add(path)
    return more


def _names(root: Directory, path: bytes) -> list[bytes]:
    try:
        return root.names(path)
    except (ExecutorError, OSError):
        return []  # no longer a directory, or not to be reached: that is told of the path itself


def _is_shared(root: Directory, path: bytes) -> bool:
    try:
        status = root.lstat(path)
    except ExecutorError:
        return False  # as in `_names`
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1


def _is_directory(root: Directory, path: bytes) -> bool:
    node = root.state(path, digest=False)
    return node is not None and node.type is NodeType.DIRECTORY


def _searched(step: Step) -> bytes:
    action = step.action
    return relative(action.path) if isinstance(action, ListDirectory | SearchFiles) else b""
