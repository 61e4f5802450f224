"""A command gets a bounded share of the machine, for a bounded time, and leaves nothing running behind it."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.render.reports import report_text
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    BLOCKED,
    FAILED,
    SUCCESS,
    CaseHouse,
    case_house,
    checked,
    command,
    created,
    names_in,
    names_of,
    python,
    shell,
    tree_of,
    written,
)
from tests.cases.test_names import nothing_hidden

pytestmark = pytest.mark.sandbox


def alive(mark: str) -> list[str]:
    """Processes of this machine, other than this one, whose command line holds a mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in words:
                found.append(f"{entry.name} {words!r}")
    return found


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def open_now() -> int:
    """How many descriptors this process has open."""
    gc.collect()
    return len(names_in(Path("/proc/self/fd")))


STUBBORN = """
for i in 1 2 3; do setsid nohup sh -c 'trap "" TERM HUP INT QUIT; while :; do sleep {mark}; done' >/dev/null 2>&1 & done
(setsid sh -c 'sleep {mark} & sleep {mark} &' &) ; trap '' TERM INT HUP; sleep {mark}; sleep {mark}
"""


@case("S45")
def test_after_the_time_limit_nothing_of_a_command_lives_on(house: CaseHouse) -> None:
    """Grandchildren in sessions of their own that ignore every signal are gone within a second of the limit."""
    mark = f"71.{os.getpid()}"
    began = time.monotonic()
    found = house.tried(shell(STUBBORN.format(mark=mark)), created("after"), seconds=1)
    assert time.monotonic() - began < 4
    assert eventually(lambda: not alive(mark), 1), alive(mark)
    assert (found.report.status, found.reasons) == (FAILED, ["COMMAND_FAILED"])
    assert "time limit" in found.complaint
    assert found.report.steps[0].command.timed_out
    assert names_of(house.site) == set()


@case("S45", "X70")
@pytest.mark.parametrize(
    "script", ["kill -STOP $$", "exec >&- 2>&-; sleep 60", "while :; do :; done", "kill -STOP -1; sleep 60"]
)
def test_a_command_that_stops_spins_or_falls_silent_is_ended(house: CaseHouse, script: str) -> None:
    """However it spends its time, the limit ends it and the executor goes on."""
    began = time.monotonic()
    assert house.tried(shell(script), seconds=1).report.status == FAILED
    assert time.monotonic() - began < 4
    assert house.worked(shell("echo on")).said() == "on\n"


@case("S47")
@pytest.mark.parametrize("stage", ["dry run", "execution"])
def test_when_the_executor_is_killed_its_sandboxes_die(tmp_path: Path, stage: str) -> None:
    """Kill -9 in the middle of a command or a test run: a second later no process and no mount of it is there."""
    mark = f"72.{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cases.long_run", tmp_path, stage, mark],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
    )
    try:
        assert eventually(lambda: len(list(alive(f"sleep\0{mark}"))) >= 3, 20), alive(mark)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert eventually(lambda: not alive(mark), 1), alive(mark)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@case("X71")
def test_a_daemon_does_not_outlive_its_command(house: CaseHouse) -> None:
    """What a command leaves in the background is dead when the step ends: it can not write into later steps."""
    mark = f"73.{os.getpid()}"
    daemon = (
        f"setsid nohup sh -c 'while sleep 0.01; do echo x >> grow; done; sleep {mark}' > /dev/null 2>&1 & sleep 0.3"
    )
    found = house.worked(shell(daemon), shell("wc -c < grow; sleep 0.3; wc -c < grow"))
    first, second = found.said().split()
    assert first == second
    assert int(first) > 0
    assert not alive(mark)
    house.execute(found)
    assert (house.site / "grow").stat().st_size == int(first)


@case("X72")
def test_temporary_folders_are_fresh_for_each_command(house: CaseHouse) -> None:
    """Files, shared memory and sockets in /tmp, /dev/shm and HOME are seen by no later step, mission or process."""
    leave = "for d in /tmp /dev/shm ~ /var/tmp; do echo left > $d/left-73 2>/dev/null; done; chmod 0 /tmp; true"
    look = shell("ls -A /tmp /dev/shm ~ /var/tmp 2>/dev/null; ipcs -qms 2>/dev/null | grep -c '^0x'; true")
    first = house.worked(shell(leave), look, checked("test ! -e /tmp/left-73"), look)
    assert "left" not in first.said(1) + first.said(3)
    assert "left" not in house.worked(look).said()
    assert not any(Path(place, "left-73").exists() for place in ("/tmp", "/dev/shm", "/var/tmp"))


@case("S34")
def test_each_step_starts_from_a_clean_environment(house: CaseHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports, shell start-up files, working directory, umask and limits of one command are not the next one's."""
    monkeypatch.setenv("LEAKED_FROM_SERVER", "1")
    poison = """
    export PATH=/evil:$PATH GIT_PAGER=evil LD_PRELOAD=/evil.so NODE_OPTIONS=--evil PYTHONPATH=/evil
    export ENV=~/evil BASH_ENV=~/evil; typeset -x TYPED=1 2>/dev/null
    echo 'export EVIL=1; alias ls=evil' | tee ~/.profile ~/.bashrc ~/.bash_profile ~/evil > /dev/null
    git config --global core.pager evil 2>/dev/null; umask 0; ulimit -n 10; cd /; set -o allexport; EVIL=1; true
    """
    look = command("env")
    found = house.worked(look, shell(poison), look, command("bash", "-lc", "alias; env; pwd; umask; ulimit -n"), look)
    assert found.said(0) == found.said(2) == found.said(4)
    assert "evil" not in found.said(3).lower()
    assert f"\n{house.site}\n0022\n1024\n" in found.said(3)
    names = {line.split("=")[0] for line in found.said(0).splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "TERM", "PWD", "SHLVL", "_", "OLDPWD"}


@case("S34")
def test_only_declared_variables_are_added_and_only_for_their_step(house: CaseHouse) -> None:
    """A step's own variables reach that step alone, and are shown in the plan."""
    found = house.worked(
        command("env", env={"MINE": "1"}), command("env"), shell('echo "$MINE"; env | grep -c MINE', env={"MINE": "2"})
    )
    assert "MINE=1\n" in found.said(0)
    assert "MINE" not in found.said(1)
    assert found.said(2) == "2\n1\n"


@case("S34")
def test_a_plans_variables_reach_the_command_and_not_what_sets_its_limits(house: CaseHouse) -> None:
    """LD_PRELOAD would else run code of the workspace before any limit is set, and LD_TRACE end it before its word."""
    pid_1 = "tr '\\0' '\\n' < /proc/1/environ | grep -c LD_ ; ulimit -n"
    found = house.worked(
        shell(pid_1, env={"LD_PRELOAD": f"{house.site}/evil.so", "A": "a b=$c\n'", "PATH": "/usr/bin"})
    )
    assert found.report.steps[0].command.stdout.head == "0\n1024\n"
    assert house.worked(shell('printf %s "$A"', env={"A": "a b=$c\n'"})).said() == "a b=$c\n'"
    (house.site / "a=b").write_text("#!/bin/sh\necho $A $0 $1")
    (house.site / "a=b").chmod(0o755)
    assert house.worked(command("./a=b", "C=3", env={"A": "x"})).said().startswith("x ./a=b C=3")


@case("S34", "X73")
def test_a_later_command_is_not_led_astray_by_files_it_was_not_told_of(house: CaseHouse) -> None:
    """A program planted in the workspace is not found before the system's: the search path holds no relative folder."""
    found = house.worked(
        shell("for p in ls cat git python3; do printf '#!/bin/sh\\necho evil\\n' > $p; chmod 755 $p; done"),
        command("ls"),
        command("python3", "-c", "print('good')"),
    )
    assert "evil" not in found.said(1)
    assert found.said(2) == "good\n"


FLOODS = {
    "zeros": "cat /dev/zero",
    "lines": "yes",
    "noise": "cat /dev/urandom",
    "one endless line": "yes '' | tr -d '\\n'; while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
    "standard error": "yes $(printf '\\033[31m\\377') >&2",
}


@case("X74")
@pytest.mark.parametrize("flood", ["zeros", "noise", "standard error"])
def test_an_endless_output_is_bounded_and_shown_safely(house: CaseHouse, flood: str) -> None:
    """Ended by the limit, in bounded memory; the report holds the beginning and the end and says what was left out."""
    events: list[object] = []
    found = house.dry_run(house.plan(shell(FLOODS[flood]), seconds=20), events.append)
    assert found.report.status == FAILED
    run = found.report.steps[0].command
    text = run.stderr if flood == "standard error" else run.stdout
    assert int(text.total_bytes) > 1 << 20
    assert text.truncated
    assert len(found.sealed.body) < 200_000
    assert nothing_hidden(report_text(found.report, "d").replace("\t", " "))


@case("X74")
def test_a_large_output_is_kept_head_and_tail_with_the_digest_of_all(house: CaseHouse) -> None:
    """Ten megabytes end well: head, tail, the length and the digest of the whole stream."""
    import hashlib

    found = house.worked(python("import sys\nfor n in range(1000000): sys.stdout.write('%09d\\n' % n)"))
    out = found.report.steps[0].command.stdout
    whole = b"".join(b"%09d\n" % number for number in range(1_000_000))
    assert out.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert (int(out.total_bytes), out.truncated) == (len(whole), True)
    assert out.head.startswith("000000000\n")
    assert out.tail.endswith("000999999\n")


@case("X75")
@pytest.mark.parametrize("place", [".", "/tmp", "/dev/shm"])
def test_a_command_can_not_fill_the_disk(house: CaseHouse, place: str) -> None:
    """Beyond the plan's bytes there is no space, wherever it writes; the workspace and the disk are as before."""
    free = os.statvfs(house.site).f_bfree * os.statvfs(house.site).f_frsize
    script = f"head -c 30000000 /dev/zero > {place}/big || exit 3"
    found = house.tried(shell(script), scope=plan_pb2.Scope(max_bytes="8000000"))
    assert found.report.status in {FAILED, BLOCKED}
    assert "space" in found.complaint or "limit" in found.complaint
    assert names_of(house.site) == set()
    assert free - os.statvfs(house.site).f_bfree * os.statvfs(house.site).f_frsize < 25_000_000


@case("X75")
def test_a_change_set_over_the_plans_bytes_is_blocked(house: CaseHouse) -> None:
    """Also where typed steps make it, or a file full of holes that takes no space."""
    bound = plan_pb2.Scope(max_bytes="1000")
    for steps in ([written("a", "x" * 600), written("b", "x" * 600)], [shell("truncate -s 2000 holes")]):
        found = house.tried(*steps, scope=bound)
        assert found.report.status != SUCCESS
        assert "TOO_LARGE" in found.reasons or "limit" in found.complaint
    house.worked(written("a", "x" * 900), written("a", "y" * 900), scope=bound)


@pytest.mark.timeout(240)
@case("X76")
def test_a_command_can_not_use_up_the_inodes(tmp_path: Path) -> None:
    """A flood of empty files ends in a refusal within a bounded time, and none of them is on the disk."""
    with case_house(tmp_path) as house:
        began = time.monotonic()
        script = "import os\nfor n in range(1000000): os.close(os.open('%d' % n, 65))"
        found = house.tried(python(script), seconds=15)
        assert found.report.status != SUCCESS
        assert found.complaint
        assert time.monotonic() - began < 120
        assert names_of(house.site) == set()


@case("X77")
def test_a_fork_bomb_ends_with_the_command(tmp_path: Path) -> None:
    """Processes that multiply are stopped by the limit of their number or of time, all of them, and others go on."""
    mark = f"7{os.getpid()}"
    with case_house(tmp_path, with_tools=False) as house:
        if os.geteuid() == 0:
            os.chown(house.site, 65534, 65534)  # the machine's root is exempt from the limit of processes
        bomb = f"bomb() {{ bomb | bomb & }}; bomb; bomb; sleep 30; : {mark}"
        began = time.monotonic()
        found = house.tried(shell(bomb), seconds=2)
        assert time.monotonic() - began < 20
        assert found.report.status == FAILED, found.complaint
        assert eventually(lambda: not alive(mark), 2), len(alive(mark))
        assert house.worked(shell("echo on")).said() == "on\n"


@case("X78")
def test_memory_that_is_not_there_is_not_given(house: CaseHouse) -> None:
    """A program that asks for more than the machine has fails by itself; the executor goes on."""
    asked = "import os; bytearray(2 * os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')); print('given')"
    found = house.tried(python(asked))
    assert "given" not in found.said()
    assert found.report.status == FAILED
    assert house.worked(shell("echo on")).said() == "on\n"


@case("X79")
def test_too_many_open_files_are_the_commands_own_trouble(house: CaseHouse) -> None:
    """A command that opens all it can fails; the executor's own descriptors stay as many as they were."""
    house.worked(shell("true"))
    time.sleep(0.5)
    before = open_now()
    found = house.tried(python("import os\nwhile True: os.open('/dev/null', 0)"))
    assert "Too many open files" in found.said()
    assert eventually(lambda: open_now() <= before, 5)


@case("X79")
def test_no_descriptor_or_thread_is_left_by_missions(house: CaseHouse) -> None:
    """Successes, refusals and failures alike give back what they took."""
    import threading

    def once() -> None:
        house.mission(written("a"), shell("echo x >> a; rm -f b"))
        house.tried(shell("exit 1"))
        house.tried(shell("mkfifo p"))
        house.tried(checked("exit 1"))

    for _ in range(3):
        once()
    time.sleep(1)
    before, threads = open_now(), threading.active_count()
    for _ in range(4):
        once()
    assert eventually(lambda: open_now() <= before, 5)  # a session may be taken down behind its mission's back
    assert eventually(lambda: threading.active_count() <= threads, 5)


@case("X80")
def test_a_step_of_no_time_is_refused(house: CaseHouse) -> None:
    """Zero seconds are the default, not no limit at all."""
    found = house.tried(shell("sleep 60"), seconds=1)
    assert found.report.status == FAILED
    plan = house.plan(shell("echo on"))
    plan.scope.max_duration_seconds = 0
    assert house.dry_run(plan).report.status == SUCCESS


@case("X81")
def test_tests_leave_nothing_in_the_workspace(house: CaseHouse) -> None:
    """What a test run writes, dry and on the committed workspace, is thrown away, whatever it is."""
    (house.site / "kept").write_text("kept\n")
    mess = checked("echo x > made; rm kept; mkfifo p; mkdir d; chmod 000 d; ln -s /etc l; true")
    receipt = house.mission(written("a"), mess)
    assert names_of(house.site) == {b"a", b"kept"}
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    before = tree_of(house.site)
    house.mission(mess)
    assert tree_of(house.site) == before
