"""Sessions on disk: what is private, what is measured, what is removed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.sandbox import storage
from executor.sandbox.bubblewrap import Bubblewrap, find_launchers
from executor.sandbox.sandbox import SandboxFullError, SandboxUnavailableError, SessionRequest
from executor.sandbox.storage import Scratch, Storage
from tests.conformance.sandbox_suite import LIMITS, said, shell
from tests.unit.executor.sandbox_scripts import a_place_for_all, an_ordinary_users, as_nobody, root_only, scratch_of

pytestmark = pytest.mark.sandbox


@pytest.fixture
def request_(tmp_path: Path) -> SessionRequest:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "file").write_text("base\n")
    return SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch, odd:name"


@pytest.fixture
def sandbox(scratch: Path) -> Bubblewrap:
    return Bubblewrap.on_this_machine(scratch=scratch, storage=Storage.DISK)


@pytest.fixture
def open_place() -> Iterator[Path]:
    with a_place_for_all() as place:
        yield place


def test_a_session_is_private_and_goes(sandbox: Bubblewrap, scratch: Path, request_: SessionRequest) -> None:
    """Each session has a directory that only its user can enter, and no trace of it is left."""
    with sandbox.open(request_) as session, sandbox.open(request_):
        shell(session, "echo x > new; mkdir -p deep/er; chmod 0 deep/er deep; chmod 4755 new", discard_changes=True)
        shell(session, "echo x > new; mkdir -p deep/er; chmod 0 deep/er deep")
        assert [place.stat().st_mode & 0o777 for place in (scratch, *scratch.iterdir())] == [0o700] * 3
        assert not list(session.upper.parent.glob("layer-*"))
    session.close()
    assert list(scratch.iterdir()) == []


def test_deep_trees_go_too(sandbox: Bubblewrap, scratch: Path, request_: SessionRequest) -> None:
    """A tree deeper than any path can name is measured and removed."""
    script = "import os\nfor _ in range(800): os.mkdir('a' * 200); os.chdir('a' * 200)"
    with sandbox.open(request_) as session:
        assert shell(session, f'python3 -c "{script}"').exit_code == 0
    assert list(scratch.iterdir()) == []


def test_a_command_that_goes_on_writing_is_ended(sandbox: Bubblewrap, request_: SessionRequest) -> None:
    """Well before its time limit a command that is far over the cap is ended and refused."""
    with sandbox.open(request_) as session:
        began = time.monotonic()
        with pytest.raises(SandboxFullError, match="limits are"):
            shell(session, "for i in 1 2 3 4 5 6; do head -c 12000000 /dev/zero > big$i; done; sleep 10")
        assert time.monotonic() - began < 5
        assert said(shell(session, "rm big*; echo on")) == "on\n"


def test_a_command_may_clear_away_what_is_too_much(sandbox: Bubblewrap, request_: SessionRequest) -> None:
    """One that begins with too much and takes its time is not ended for it, unless it takes still more."""
    with sandbox.open(request_) as session:
        with pytest.raises(SandboxFullError):
            shell(session, "for i in 1 2 3 4; do head -c 12000000 /dev/zero > big$i; done")
        assert shell(session, "sleep 0.7; rm big*").exit_code == 0
        with pytest.raises(SandboxFullError):
            shell(session, "for i in 1 2 3 4; do head -c 12000000 /dev/zero > big$i; done")
        with pytest.raises(SandboxFullError):
            shell(session, "head -c 12000000 /dev/zero > more; sleep 10")


def test_the_disk_is_not_filled(sandbox: Bubblewrap, request_: SessionRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk has little left a command is ended, however little of it is its own."""
    monkeypatch.setattr(storage, "_RESERVE_BYTES", 1 << 60)
    with sandbox.open(request_) as session, pytest.raises(SandboxFullError, match="nearly full"):
        shell(session, "sleep 10")


def test_others_that_fill_the_disk_do_not_end_a_command(scratch: Path, tmp_path: Path) -> None:
    """What others write makes a session be measured, not be ended."""
    place = Scratch(root=scratch, launchers=find_launchers()).new(LIMITS)
    (tmp_path / "theirs").write_bytes(b"x" * (LIMITS.upper_bytes + (8 << 20)))
    assert not place.overflows()
    for number in range(5):  # others may free some of the disk meanwhile
        (place.cellar / f"mine{number}").write_bytes(b"x" * (LIMITS.upper_bytes + (8 << 20)))
        if place.overflows():
            break
    else:
        pytest.fail("the session took five times what it may have")
    place.close()


def test_leftovers_are_removed_and_nothing_else(scratch: Path, tmp_path: Path, sandbox: Bubblewrap) -> None:
    """Only directories named as sessions are go, and no link is followed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    left = scratch / "session-left"
    (left / "cellar" / "upper").mkdir(parents=True)
    (left / "cellar" / "out").symlink_to(tmp_path / "precious")
    (scratch / "session-link").symlink_to(tmp_path / "precious")
    (scratch / "else").mkdir()
    sandbox.clean_scratch()
    assert sorted(place.name for place in scratch.iterdir()) == ["else", "session-link"]
    assert (tmp_path / "precious" / "file").exists()


def test_a_scratch_directory_that_is_a_link_is_refused(
    scratch: Path, tmp_path: Path, sandbox: Bubblewrap, request_: SessionRequest
) -> None:
    """Where the operator's directory was replaced by a link, nothing is removed and nothing opened."""
    (tmp_path / "elsewhere" / "session-x").mkdir(parents=True)
    scratch.symlink_to(tmp_path / "elsewhere")
    for use in (sandbox.clean_scratch, lambda: sandbox.open(request_)):
        with pytest.raises(SandboxUnavailableError, match="scratch"):
            use()
    assert (tmp_path / "elsewhere" / "session-x").is_dir()
    Bubblewrap.on_this_machine().clean_scratch()
    with pytest.raises(SandboxUnavailableError, match="scratch"):
        Bubblewrap.on_this_machine(storage=Storage.DISK).open(request_)


@root_only
def test_an_ordinary_users_locked_folders_are_measured_and_removed(open_place: Path) -> None:
    """Directories without any bits hide nothing from the measure, and go with the session."""
    workspace = open_place / "ws"
    for place in (workspace, scratch_of(workspace)):
        an_ordinary_users(place)
    body = """
        from executor.sandbox.sandbox import SandboxFullError
        limits = Limits(upper_bytes=8 << 20)
        request = SessionRequest(workspace=request.workspace, workspace_id="w", limits=limits)
        with sandbox.open(request) as session:
            for place in ("/tmp/a/b", "a/b"):
                script = f"mkdir -p {place}; head -c 12000000 /dev/zero > {place}/big; chmod 0 {place} {place}/.. 2>&1"
                try:
                    print(session.run(sh(script)))
                except SandboxFullError as error:
                    print(error.fault.reason)
    """
    assert as_nobody(body, workspace, Storage.DISK).split() == ["TOO_LARGE", "TOO_LARGE"]
    assert list(scratch_of(workspace).iterdir()) == []
