"""The self-test: what it finds here, what it says, and that it never raises."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.ladder import LadderLevel
from executor.sandbox import bubblewrap, holder, self_test
from executor.sandbox.seccomp import SeccompFilter, shipped_filter
from executor.sandbox.self_test import Probe, probe
from executor.sandbox.storage import Storage
from tests.unit.executor.sandbox_scripts import a_place_for_all, an_ordinary_users, as_nobody, root_only, scratch_of

pytestmark = pytest.mark.sandbox


@pytest.fixture
def open_place() -> Iterator[Path]:
    with a_place_for_all() as place:
        yield place


def said_of(found: Probe, name: str) -> str:
    (detail,) = [finding.detail for finding in found.findings if finding.name == name]
    return detail


def test_it_finds_l3_here(tmp_path: Path) -> None:
    """All trials run for real and hold on a tmpfs, and nothing of them is left behind."""
    found = probe(tmp_path, tmp_path / "scratch")
    assert [finding for finding in found.findings if not finding.ok] == []
    assert (found.level, found.storage) == (LadderLevel.L3, Storage.TMPFS)
    assert said_of(found, "overlay").endswith("on a capped tmpfs")
    assert list(tmp_path.iterdir()) == []


def test_without_attributes_on_tmpfs_it_takes_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux 6.1: the trial attribute is refused, all else then holds on disk, and the finding says so."""

    def not_supported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    scratch = tmp_path / "scratch"
    monkeypatch.setattr(self_test, "_set_attribute", not_supported)
    found = probe(tmp_path, scratch)
    assert [finding for finding in found.findings if not finding.ok] == []
    assert (found.level, found.storage) == (LadderLevel.L3, Storage.DISK)
    expected = f"on disk in {scratch}, since this kernel's tmpfs has no user attributes; the size cap is then checked"
    assert expected in said_of(found, "overlay")
    assert list(tmp_path.rglob("*")) == [scratch]
    assert probe(tmp_path).storage is Storage.TMPFS


def test_the_disk_can_be_asked_for(tmp_path: Path) -> None:
    """Asked for, the disk is tried like the tmpfs; without a scratch directory that is a finding with a remedy."""
    found = probe(tmp_path, tmp_path / "scratch", storage=Storage.DISK)
    assert (found.level, found.storage) == (LadderLevel.L3, Storage.DISK)
    nowhere = probe(tmp_path, storage=Storage.DISK)
    (bad,) = [finding for finding in nowhere.findings if not finding.ok]
    assert (nowhere.level, bad.name, bool(bad.remedy)) == (LadderLevel.L1, "overlay", True)


@root_only
@pytest.mark.parametrize("storage", Storage)
def test_an_ordinary_user_is_told_what_it_can_not(open_place: Path, storage: Storage) -> None:
    """The probe finds each level without privilege and states the limit of a one-user map."""
    workspace = open_place / "ws"
    for place in (workspace, scratch_of(workspace)):
        an_ordinary_users(place)
    body = """
        from executor.sandbox.self_test import probe
        found = probe(request.workspace, scratch, storage=storage)
        print(found.level, [f for f in found.findings if not f.ok])
        print([f.detail for f in found.findings if f.name == "identities"])
    """
    level, identities = as_nobody(body, workspace, storage).splitlines()
    assert level == f"{storage.level} []"
    assert ("EOVERFLOW" in identities) is (storage is not Storage.COPY)
    assert "only this user" in identities


def test_without_an_overlay_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a session can not mount its overlay the copy is tried: L2, with what failed and why as its limitation."""
    monkeypatch.setattr(holder, "_SESSION_SCRIPT", holder._SESSION_SCRIPT.replace("-t overlay", "-t no-such"))
    found = probe(tmp_path, tmp_path / "scratch")
    assert (found.level, found.storage) == (LadderLevel.L2, Storage.COPY)
    assert [finding.name for finding in found.findings if not finding.ok] == ["overlay"]
    assert "mount: " in found.limitation
    assert "run gonogo doctor" not in found.limitation  # it is what the doctor says
    assert said_of(found, "private_copy").startswith("the workspace can be covered at its own path by a private copy")
    assert probe(tmp_path).level is LadderLevel.L1


@pytest.mark.parametrize("highest", LadderLevel)
def test_the_operator_can_cap_the_level(tmp_path: Path, highest: LadderLevel) -> None:
    """No more is found than the operator allows, and below the top it is said that it was the operator."""
    found = probe(tmp_path, tmp_path / "scratch", highest=highest)
    assert found.level is highest
    assert ("--max-ladder-level" in found.limitation) is (highest is not LadderLevel.L3)


def test_the_filter_is_tried_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test sees the filter work and names it; one that denies nothing, or none for this machine, means L1."""
    assert str(shipped_filter()) in said_of(probe(tmp_path), "seccomp")
    nothing = SeccompFilter(name="test", program=struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000), digest="sha256:00")
    monkeypatch.setattr(bubblewrap, "shipped_filter", lambda: nothing)
    useless = probe(tmp_path, tmp_path / "scratch")
    assert (useless.level, "not-denied" in useless.limitation) == (LadderLevel.L1, True)
    monkeypatch.setattr("executor.sandbox.seccomp.platform.machine", lambda: "riscv64")
    none = probe(tmp_path, tmp_path / "scratch")
    assert (none.level, "riscv64" in none.limitation) == (LadderLevel.L1, True)


def test_it_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not there, a missing launcher, a broken trial: a finding with a remedy, and L1."""
    nowhere = probe(tmp_path / "none", tmp_path / "scratch")
    monkeypatch.setattr(self_test, "_TRIALS", (("broken", lambda *_: 1 / 0),))
    broken = probe(tmp_path)
    monkeypatch.setattr(bubblewrap, "SYSTEM_PATH", "/nowhere")
    missing = probe(tmp_path, tmp_path / "scratch")
    for found, name in ((nowhere, "overlay"), (broken, "broken"), (missing, "bubblewrap")):
        (bad,) = [finding for finding in found.findings if not finding.ok][:1]
        assert (found.level, bad.name, bool(bad.remedy)) == (LadderLevel.L1, name, True)
