"""Gate 6: the workspace is still what the report was made from."""

from dataclasses import dataclass

from executor.domain.changes import Node, NodeType, States
from executor.domain.errors import ExecutorError, StepFailedError
from executor.domain.plan import ListDirectory, Plan, SearchFiles, Step
from executor.domain.report import ListEvidence, Report, SearchEvidence
from executor.runner.base import base_of
from executor.steps.retrieve import retrieve
from executor.workspace.manifest import Manifest, manifest
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import ROOT, Directory, parent_of, relative
from executor.workspace.tree import Tree
from executor.workspace.workspace import Workspace

MANIFEST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDrift:
    """Compares the workspace with a report's base; the port `executor.runner.ports.FindDrift`."""

    objects: ObjectStore

    def __call__(self, plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
        """Return the paths that differ, sorted."""
        base = base_of(plan, report.steps)
        root = workspace.open()
        drifted = {path for path, node in base.states.items() if not _is(root, path, node)}
        drifted |= {parent for parent in _parents_of_new(base.states) if not _is_directory(root, parent)}
        retrievals: list[tuple[Step, ListEvidence | SearchEvidence]] = [*base.listings, *base.searches]
        for step, found in retrievals:
            if not self._finds_again(root, workspace, step, found):
                drifted.add(_searched(step))
        if report.manifest_digest:
            drifted.update(self._tree_drift(root, workspace, report.manifest_digest))
        return tuple(sorted(drifted))

    def _finds_again(
        self, root: Directory, workspace: Workspace, step: Step, found: ListEvidence | SearchEvidence
    ) -> bool:
        action = step.action
        if not isinstance(action, ListDirectory | SearchFiles):
            return False
        try:
            again = retrieve(Tree(root, self.objects.batch()), action, hidden=workspace.hidden)
        except StepFailedError:
            return False
        return isinstance(again, type(found)) and again.digest == found.digest

    def _tree_drift(self, root: Directory, workspace: Workspace, digest: str) -> tuple[bytes, ...]:
        now = manifest(root, volatile=workspace.volatile, hidden=workspace.hidden)
        return Manifest.decode(self.objects.read(digest, 0, MANIFEST_BYTES)).differences(now)


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


def _is_directory(root: Directory, path: bytes) -> bool:
    node = root.state(path, digest=False)
    return node is not None and node.type is NodeType.DIRECTORY


def _searched(step: Step) -> bytes:
    action = step.action
    return relative(action.path) if isinstance(action, ListDirectory | SearchFiles) else b""
