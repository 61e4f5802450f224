"""Live programs that are waited for: what they see, what becomes of them, and what is said of it."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.cancel import Cancel
from executor.domain.errors import StepBlockedError
from executor.domain.plan import LiveAccess
from executor.domain.receipt import EffectState
from tests.conformance.sandbox_commands import alive, eventually
from tests.unit.executor.network_house import server
from tests.unit.executor.outside_house import TOKEN
from tests.unit.executor.program_house import ProgramHouse, a_program, program_house, shell

__all__ = ["server"]  # the fixture

pytestmark = pytest.mark.sandbox
NETWORK, HOST = LiveAccess.NETWORK, LiveAccess.HOST


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ProgramHouse]:
    with program_house(tmp_path) as found:
        yield found


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ProgramHouse]:
    """A machine without bubblewrap."""
    with program_house(tmp_path, confined=False) as found:
        yield found


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_a_program_runs_and_its_exit_code_is_judged(house: ProgramHouse, access: LiveAccess) -> None:
    """Done and well, done and not well, done with a code that counts as success."""
    well = house.perform(shell("echo out; echo err >&2", access=access))
    assert (well.state, well.fault) == (EffectState.DONE, None)
    assert well.answer is not None
    assert (well.answer.head, well.answer_digest) == ("out\n", well.answer.digest)
    assert sorted(house.heard) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    failed = house.perform(shell("echo because >&2; exit 3", access=access))
    assert failed.state is EffectState.DONE
    assert failed.fault is not None
    assert (failed.fault.reason, "exit code 3; it said: because" in failed.summary) == ("EFFECT_FAILED", True)
    assert house.perform(shell("exit 3", access=access, codes=(3,))).fault is None
    killed = house.perform(shell("kill -9 $$", access=access))
    assert killed.state is EffectState.DONE
    assert killed.fault is not None


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_what_can_not_be_started_is_not_done(house: ProgramHouse, access: LiveAccess) -> None:
    """A program that is not there at the execution has had no effect, and nothing is left of it."""
    missing = house.perform(a_program("./missing", access=access))
    assert (missing.state, missing.fault is not None and missing.fault.reason) == (
        EffectState.NOT_DONE,
        "PROGRAM_HIDDEN",
    )
    with pytest.raises(StepBlockedError, match="no program"):
        house.perform(a_program("no-such-program-anywhere", access=access))


def test_the_workspace_is_read_only_to_it(house: ProgramHouse) -> None:
    """By whatever access, nothing of the workspace can be written; what it holds can be read."""
    for access in (NETWORK, HOST):
        done = house.perform(shell("cat file; : > file || rm -f file || touch new", access=access))
        assert done.fault is not None
        assert "Read-only file system" in done.summary
        assert house.output().startswith("base\n")
    assert (house.site / "file").read_text() == "base\n"
    assert not (house.site / "new").exists()


def test_the_executors_state_is_covered(house: ProgramHouse) -> None:
    """A program on the host sees neither keys nor trust file nor where changes are staged, nor the executor itself."""
    state = house.house.folder / "state"
    done = house.perform(
        shell(f"ls -A {state}; ls -A {house.house.folder}/staging; cat {state}/token; ls /proc | grep -c '^[0-9]'")
    )
    assert done.answer is not None
    assert int(done.answer.head) < 6
    assert "executor's key" not in house.output()
    assert TOKEN not in house.output()
    assert state.joinpath("key").read_text() == "the executor's key"


def test_root_can_not_take_the_covers_away(house: ProgramHouse) -> None:
    """Neither as root nor as another user does a program on the host unmount what hides the state."""
    done = house.perform(
        shell(f"umount {house.house.folder}/state; umount {house.site}; ls -A {house.house.folder}/state")
    )
    assert done.answer is not None
    assert done.answer.head == ""


def test_the_sandbox_shows_little(house: ProgramHouse) -> None:
    """With a network a program sees the system, its workspace without hidden files, and a /tmp of its own."""
    script = "cat .env; ls -A /tmp; ls /root /home 2>&1; grep -c CapEff:.0000000000000000 /proc/self/status; id -u"
    done = house.perform(shell(script, access=NETWORK))
    assert done.answer is not None
    uid = house.site.stat().st_uid
    assert "HIDDEN" not in house.output()
    assert done.answer.head.endswith(f"1\n{uid}\n")
    assert "home\n" in done.answer.head


def test_the_network_is_the_listed_hosts(tmp_path: Path, server: int) -> None:
    """A listed host is reached through the proxy and told; another one, and the machine's own loopback, are not."""
    with program_house(tmp_path, ports=frozenset((80, 443, server))) as house:
        listed = house.perform(a_program("curl", "-sS", f"http://listed.test:{server}/x", access=NETWORK))
        assert listed.answer is not None
        assert listed.answer.head == f"GET /x listed.test:{server}\n"
        assert f"[network] reached listed.test:{server}: 1 connections" in house.output()
        house.heard.clear()
        other = house.perform(a_program("curl", "-sSf", "https://other.test/", access=NETWORK))
        assert other.fault is not None
        assert "does not name other.test" in house.output()
        direct = house.perform(
            a_program("curl", "-sS", "--noproxy", "*", f"http://127.0.0.1:{server}/", access=NETWORK)
        )
        assert "exit code 7" in direct.summary


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_the_time_limit_ends_the_whole_tree(house: ProgramHouse, access: LiveAccess) -> None:
    """What has left its session, and does not hear signals, ends too; what it did by then nobody knows."""
    mark = f"mark-{os.getpid()}-{access.value}-{time.monotonic_ns()}"
    script = f"(setsid sh -c 'trap \"\" TERM HUP; sleep 60; : {mark}' &) ; sleep 60; : {mark}"
    done = house.perform(shell(script, access=access), seconds=1)
    assert (done.state, "longer than it may" in done.summary) == (EffectState.UNKNOWN, True)
    assert alive(mark) == []


def test_without_bubblewrap_the_tree_ends_too(bare: ProgramHouse) -> None:
    """An ordinary program that forks twice and leaves its session is still found."""
    mark = f"mark-{os.getpid()}-bare-{time.monotonic_ns()}"
    script = f"(setsid sh -c 'trap \"\" TERM HUP; sleep 60; : {mark}' &) ; sleep 60; : {mark}"
    done = bare.perform(shell(script), seconds=1)
    assert done.state is EffectState.UNKNOWN
    assert alive(mark) == []
    left = bare.perform(shell(f"(setsid sh -c 'sleep 60; : {mark}' &) ; exit 0"))
    assert left.fault is None
    assert alive(mark) == []


def test_without_bubblewrap_it_is_said(bare: ProgramHouse) -> None:
    """The declaration says that nothing confines it; a program with a network is refused."""
    declared = bare.programs.declare(shell("true"), bare.setting(shell("true")))
    assert "no bubblewrap here" in declared.not_simulated
    with pytest.raises(StepBlockedError, match="no working bubblewrap"):
        bare.perform(shell("true", access=NETWORK))


def test_what_confines_is_part_of_what_was_approved(house: ProgramHouse, tmp_path: Path) -> None:
    """Where bubblewrap has gone since the dry run, nothing is run."""
    action = shell("touch /tmp/never-made")
    setting = house.setting(action)
    declared = house.programs.declare(action, setting)
    (tmp_path / "other").mkdir()
    with program_house(tmp_path / "other", confined=False) as bare:
        done = bare.programs.perform(action, declared, bare.setting(action), "k")
    assert (done.state, done.fault is not None and done.fault.reason) == (EffectState.NOT_DONE, "DIVERGED")


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_a_wish_to_stop_kills_it(house: ProgramHouse, access: LiveAccess) -> None:
    """Soon after the wish the whole tree is dead, and the effect is unknown."""
    cancel = Cancel()
    mark = f"mark-{os.getpid()}-stop-{access.value}-{time.monotonic_ns()}"

    def stop() -> None:
        eventually(lambda: bool(house.heard), 10)
        cancel.request()

    threading.Thread(target=stop).start()
    began = time.monotonic()
    done = house.perform(shell(f"echo begun; sleep 60; : {mark}", access=access), cancel=cancel)
    assert time.monotonic() - began < 10
    assert (done.state, "stopped" in done.summary) == (EffectState.UNKNOWN, True)
    assert alive(mark) == []


def test_too_much_output_ends_it(house: ProgramHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that prints without end is killed; start and end are kept."""
    monkeypatch.setattr("executor.outside.programs.HARD_BYTES", 1 << 20)
    done = house.perform(shell("yes"))
    assert (done.state, "printed more" in done.summary) == (EffectState.UNKNOWN, True)


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_a_secret_is_given_and_shows_nowhere(house: ProgramHouse, access: LiveAccess) -> None:
    """The program has the value; output, answer and digest are of what is left without it."""
    action = shell('echo "$T"; [ ${#T} = 22 ]', access=access, env={"T": "secret://token"})
    done = house.perform(action)
    assert done.fault is None
    assert TOKEN not in house.output() + done.summary + (done.answer.head if done.answer else "")
    assert len(TOKEN) == 22
    with pytest.raises(Exception, match="no secret of workspace"):
        house.perform(shell("true", env={"T": "secret://other"}))


def test_the_environment_is_a_short_list(house: ProgramHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor's own variables stay with it."""
    monkeypatch.setenv("EXECUTOR_OWN", "private")
    for access in (NETWORK, HOST):
        house.perform(shell("env", access=access, env={"PLANNED": "yes"}))
    assert "EXECUTOR_OWN" not in house.output()
    assert house.output().count("PLANNED=yes") == 2


@pytest.mark.parametrize(("access", "table"), [("host", '["network"]'), ("network", '["host"]')])
def test_the_trust_file_has_the_last_word(tmp_path: Path, access: str, table: str) -> None:
    """An access that the operator has not given the workspace is refused with what to write."""
    tables = f"[workspaces.site]\nlive_access = {table}\n"
    with program_house(tmp_path, tables=tables) as house, pytest.raises(StepBlockedError) as caught:
        house.perform(shell("true", access=LiveAccess(access)))
    assert (caught.value.fault.reason, f'live_access = ["{access}"]' in caught.value.fault.remedy) == (
        "NETWORK_REFUSED",
        True,
    )


def test_nothing_is_left_of_it(house: ProgramHouse) -> None:
    """No descriptor, thread or process."""
    house.perform(shell("true", access=NETWORK))
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for access in (NETWORK, HOST):
        house.perform(shell("true", access=access))
    assert eventually(lambda: (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else's workspace")
def test_under_root_a_program_in_the_sandbox_is_the_workspaces_owner() -> None:
    """Inside and outside of its namespace: what it may read is what its owner may."""
    with tempfile.TemporaryDirectory() as folder, program_house(Path(folder).resolve()) as house:
        os.chown(house.site, 65534, 65534)
        house.site.joinpath("roots").write_text("private")
        house.site.joinpath("roots").chmod(0o600)
        done = house.perform(shell("id -u; cat roots", access=NETWORK))
        assert "Permission denied" in done.summary
        assert house.output().startswith("65534\n")


def test_a_hidden_path_that_became_a_link_is_refused(house: ProgramHouse) -> None:
    """What can not be covered safely lets nothing run."""
    house.site.joinpath(".env").unlink()
    house.site.joinpath(".env").symlink_to("file")
    done = house.perform(shell("true", access=NETWORK))
    assert (done.state, done.fault is not None and done.fault.reason) == (EffectState.NOT_DONE, "UNSUPPORTED")
