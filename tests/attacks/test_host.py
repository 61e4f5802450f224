"""Attacks and mishaps on the executor's own host: folders that commands write to, broken files, floods of the disk."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.forget_spool import ForgetSpool
from executor.adapters.revocation_spool import RevocationSpool
from executor.domain.errors import StoreError
from executor.domain.revocation import RevocationKind, RevocationRecord
from executor.domain.sealed import SealedBytes
from executor.entrypoints import host_revoke
from executor.runner.handed_in import HandedIn
from executor.runner.ports import Revoked
from executor.settings import spool_of
from gonogo.v1 import evidence_pb2
from tests.attacks.target import Target
from tests.fakes.spooled import waited

DENY = evidence_pb2.REVOCATION_KIND_DENY
NOBODY = 65_534


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """An executor as it is started."""
    target = Target(tmp_path)
    yield target
    target.close()


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_another_file(path: Path) -> None:
    path.symlink_to("/dev/zero")


class TestTheFolderOfRevocations:
    @pytest.mark.parametrize("obstacle", [a_folder, a_pipe, a_link_to_nothing, a_link_to_another_file])
    def test_what_can_not_be_taken_in_holds_up_nothing_else(
        self, target: Target, obstacle: Callable[[Path], None]
    ) -> None:
        """Whatever lies first in the folder, the next person's no is taken, and again while it still lies there."""
        spool = RevocationSpool(target.settings.spool)
        waited(spool, spool.hand_in(target.revocation(by=target.bob, mission="m-before")))
        obstacle(target.settings.spool / "0.revocation")
        for number in range(2):
            name = spool.hand_in(target.revocation(by=target.bob, mission=f"m-{number}", kind=DENY))
            assert waited(spool, name)["in_time"]
        target.core._handed_in.close()  # type: ignore[union-attr]  # after whatever it is about to do
        assert spool.waiting() == ("0",)

    def test_nothing_is_executed_before_what_waits_was_read(self, target: Target) -> None:
        """A revocation that can not be read may be one that holds: the executor does not start, and says which."""
        spool = RevocationSpool(target.settings.spool)
        waited(spool, spool.hand_in(target.revocation(by=target.bob, mission="m-before")))
        target.close()
        (target.settings.spool / "0.revocation").mkdir()
        name = spool.hand_in(target.revocation(by=target.bob))
        with pytest.raises(StoreError, match="0 can not be read"):
            target.open()
        target._closing.close()
        assert spool.answer(name) is not None
        (target.settings.spool / "0.revocation").rmdir()
        target.open()

    def test_no_fault_ends_the_thread(self) -> None:
        """Even a fault without a name stops one document only."""
        record = RevocationRecord(
            revocation_id="rv",
            mission_id="m",
            person="bob",
            kind=RevocationKind.DENY,
            reason="",
            recorded_at=datetime.now(UTC),
            document=SealedBytes(media_type="", body=b""),
        )

        class Broken:
            """A folder with a poisoned document in it."""

            def __init__(self) -> None:
                self.settled: list[str] = []

            def waiting(self) -> tuple[str, ...]:
                return ("bad", "good")

            def read(self, name: str) -> Any:
                return name

            def settle(self, name: str, answer: object) -> None:
                del answer
                self.settled.append(name)

            def forget_answers(self) -> None:
                pass

        def revoke(document: Any) -> Any:
            if document == "bad":
                raise ZeroDivisionError
            return Revoked(record=record, in_time=True, stopping=False)

        spool = Broken()
        with pytest.raises(StoreError, match="bad can not be read"):
            HandedIn(spool, revoke)._take_in()
        assert spool.settled == ["good"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a file for somebody else")
    def test_what_root_leaves_belongs_to_the_executors_user(self, tmp_path: Path) -> None:
        """An executor that is not root can read what root handed in, and the folders that root made for it."""
        own = tmp_path / "executor"
        own.mkdir()
        os.chown(own, NOBODY, NOBODY)
        spool, forget = RevocationSpool(own / "revocations"), ForgetSpool(own / "forget")
        target = Target(tmp_path / "elsewhere")
        target.close()
        left = own / "revocations" / f"{spool.hand_in(target.revocation())}.revocation"
        wish = forget.ask("spiffe://gonogo.local/orchestrator")
        for path in (left, left.parent, wish, wish.parent):
            found = path.stat()
            assert (found.st_uid, found.st_mode & 0o077) == (NOBODY, 0)
        assert list(forget.waiting()) == ["spiffe://gonogo.local/orchestrator"]

    def test_folders_made_on_the_way_are_closed_to_others(self, tmp_path: Path) -> None:
        """A command that comes before the executor's first start leaves no folder that others can look into."""
        before = os.umask(0)
        try:
            ForgetSpool(tmp_path / "executor" / "forget").ask("spiffe://x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "executor").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "executor" / "forget").stat().st_mode) == 0o700

    def test_a_wish_that_can_not_be_read_holds_up_no_other(self, tmp_path: Path) -> None:
        """Of several wishes to forget a log those that can be read are granted."""
        spool = ForgetSpool(tmp_path / "forget")
        spool.ask("spiffe://x")
        (tmp_path / "forget" / "0").mkdir()
        spool.ask("spiffe://y")
        granted: list[str] = []
        with pytest.raises(OSError, match="no plain file"):
            granted.extend(spool.waiting())
        assert sorted(granted) == ["spiffe://x", "spiffe://y"]

    def test_no_planted_link_is_written_through(self, tmp_path: Path) -> None:
        """Whoever owns the folder can not have root write into a file elsewhere."""
        victim = tmp_path / "victim"
        victim.write_text("precious")
        folder = tmp_path / "forget"
        folder.mkdir()
        wish = ForgetSpool(folder).ask("spiffe://x")
        wish.unlink()
        for name in (wish.name, f"{wish.name}.new", f"{wish.name}.{os.getpid()}.new"):
            (folder / name).symlink_to(victim)
        ForgetSpool(folder).ask("spiffe://x")
        assert victim.read_text() == "precious"
        assert not wish.is_symlink()


class TestTheHostsCommand:
    @pytest.mark.parametrize("trust", ["version = ", None])
    def test_a_broken_trust_file_keeps_nobody_from_stopping(
        self, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str], trust: str | None
    ) -> None:
        """The command on the host works when the trust file is broken or gone: the executor goes by its last one."""
        request = target.good()
        if trust is None:
            target.settings.trust_file.unlink()
        else:
            target.write_trust(trust)
        document = tmp_path / "document"
        spooled = RevocationSpool(tmp_path / "aside")
        name = spooled.hand_in(target.revocation(by=target.bob, kind=DENY))
        document.write_bytes((tmp_path / "aside" / f"{name}.revocation").read_bytes())
        assert host_revoke.main([str(document), "--state", str(target.state)], {}) == 0
        assert json.loads(capsys.readouterr().out)["in_time"]
        target.write_trust(target.trust_file(1))
        target.restart()
        assert target.reason_of(target.again(request)) == "NOT_APPROVED"

    def test_where_no_executor_is_nothing_is_left(self, target: Target, tmp_path: Path) -> None:
        """A slip of the state directory is told and makes no folders."""
        spooled = RevocationSpool(tmp_path / "aside")
        name = spooled.hand_in(target.revocation(by=target.bob))
        document = tmp_path / "aside" / f"{name}.revocation"
        with pytest.raises(Exception, match="can not be read"):
            host_revoke.main([str(document), "--state", str(tmp_path / "slip"), "--wait", "0"], {})
        assert not spool_of(tmp_path / "slip").exists()


def test_what_is_no_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """An obstacle that is looked at ten times a second uses nothing up."""
    (tmp_path / "0.revocation").mkdir()
    spool, folder = RevocationSpool(tmp_path), Path("/proc/self/fd")
    before = len(list(folder.iterdir()))
    for _ in range(20):
        with pytest.raises(OSError, match="no plain file"):
            spool.read("0")
    assert len(list(folder.iterdir())) == before
