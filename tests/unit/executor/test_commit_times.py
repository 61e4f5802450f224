"""Modification times that a step set itself, committed and undone."""

import os
from dataclasses import replace

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.plan import CreateFile
from executor.workspace.commit import Applied
from tests.unit.executor.commit_house import EVERYTHING, Site, site, times

__all__ = ["site"]

SET = 1_600_000_000_123_456_789


class TestTimes:
    """Modification times that a step set itself."""

    def commit(self, site: Site, *changes: Change) -> Applied:
        applied = site.committer.apply("x-1", changes)
        assert site.committer.verify(changes) == ()
        assert site.committer.time_differences(changes) == ()
        return applied

    def test_every_kind_of_change_can_carry_one(self, site: Site) -> None:
        """Files, links and directories, new, replaced, moved and filled in the same commit; all undone exactly."""
        (site.root / "link").symlink_to("file")
        before = times(site)
        edits = (*EVERYTHING, CreateFile(path="sub/three", content=b"3", mode=0o644))
        changes = [replace(one, mtime_ns=SET if one.new else None) for one in site.changes(*edits)]
        sub, link = site.directory.node(b"sub"), site.directory.node(b"link")
        for path, node in ((b"sub", sub), (b"link", link)):
            changes.append(Change(path=path, kind=ChangeKind.METADATA, old=node, new=node, mtime_ns=SET))
        applied = self.commit(site, *changes)
        found = times(site)
        assert {path for path, mtime in found.items() if mtime == SET} == {
            "file", "sub", "sub/two", "sub/three", "one", "made", "made/file", "link",
        }  # fmt: skip
        assert site.committer.undo(applied).success
        assert times(site) == before

    def test_a_time_alone_is_a_change(self, site: Site) -> None:
        """The object stays the same inode with the same content."""
        node, inode = site.directory.node(b"file"), (site.root / "file").stat().st_ino
        applied = self.commit(site, Change(path=b"file", kind=ChangeKind.METADATA, old=node, new=node, mtime_ns=SET))
        status = (site.root / "file").stat()
        assert (status.st_mtime_ns, status.st_ino) == (SET, inode)
        os.utime(site.root / "file", ns=(SET, SET + 1))
        undone = site.committer.undo(applied)
        assert not undone.success
        assert "changed by somebody else" in undone.differences[0]

    def test_what_has_no_time_of_its_own_gets_the_commit_s(self, site: Site) -> None:
        """A new file, and the directory that it comes into, are as young as the commit."""
        before = os.stat(site.staging).st_mtime_ns  # noqa: PTH116 - the file system's own clock
        self.commit(site, *site.changes(CreateFile(path="sub/new", content=b"", mode=0o644)))
        assert times(site)["sub/new"] >= before
        assert times(site)["sub"] >= before

    def test_another_time_is_told(self, site: Site) -> None:
        """Verification names the path whose time is not what the change set says."""
        node = Node(type=NodeType.DIRECTORY, mode=0o755)
        change = Change(path=b"made", kind=ChangeKind.CREATE, old=None, new=node, mtime_ns=SET)
        self.commit(site, change)
        (site.root / "made" / "theirs").write_bytes(b"")
        assert site.committer.verify((change,)) == ("made: another modification time than the report's",)
