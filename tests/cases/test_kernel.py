"""What a command may ask of the kernel, and what of the machine is there for it: as little as possible."""

import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gonogo.v1 import evidence_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    BLOCKED,
    FAILED,
    SUCCESS,
    CaseHouse,
    Step,
    case_house,
    command,
    created,
    python,
    read,
    shell,
)
from tests.cases.machine_code import PROGRAMS
from tests.cases.test_races import racing

pytestmark = pytest.mark.sandbox
X86_64 = platform.machine() == "x86_64"

# Name: the number on x86_64, the number on other 64-bit machines, and arguments that would be taken.
CALLS: dict[str, tuple[int, int, str]] = {
    "unshare user": (272, 97, "0x10000000"),
    "unshare mount": (272, 97, "0x20000"),
    "unshare net": (272, 97, "0x40000000"),
    "unshare pid": (272, 97, "0x20000000"),
    "unshare uts": (272, 97, "0x4000000"),
    "unshare ipc": (272, 97, "0x8000000"),
    "unshare cgroup": (272, 97, "0x2000000"),
    "unshare time": (272, 97, "0x80"),
    "clone user": (56, 220, "0x10000011, 0, 0, 0, 0"),
    "clone user and mount": (56, 220, "0x10020011, 0, 0, 0, 0"),
    "clone net": (56, 220, "0x40000011, 0, 0, 0, 0"),
    "clone3 user": (435, 435, "struct.pack('=11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88"),
    "setns": (308, 268, "os.open('/proc/self/ns/user', 0), 0"),
    "mount": (165, 40, "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "bind mount": (165, 40, "b'/usr', b'/tmp', 0, 4096, 0"),
    "remount": (165, 40, "0, b'/', 0, 32, 0"),
    "umount2": (166, 39, "b'/tmp', 2"),
    "pivot_root": (155, 41, "b'/tmp', b'/tmp'"),
    "chroot": (161, 51, "b'/tmp'"),
    "open_tree": (428, 428, "-100, b'/tmp', 1"),
    "move_mount": (429, 429, "0, b'', -100, b'/tmp', 4"),
    "fsopen": (430, 430, "b'tmpfs', 0"),
    "fsconfig": (431, 431, "0, 6, 0, 0, 0"),
    "fsmount": (432, 432, "0, 0, 0"),
    "fspick": (433, 433, "-100, b'/tmp', 0"),
    "mount_setattr": (442, 442, "-100, b'/tmp', 0, struct.pack('=4Q', 1, 0, 0, 0), 32"),
}
MORE_CALLS: dict[str, tuple[int, int, str]] = {
    "keyctl": (250, 219, "0, -3, 0, 0, 0"),
    "add_key": (248, 217, "b'user', b'name', b'x', 1, -3"),
    "request_key": (249, 218, "b'user', b'name', 0, -3"),
    "ptrace": (101, 117, "0, 0, 0, 0"),
    "bpf": (321, 280, "0, struct.pack('=IIII', 1, 4, 4, 1) + bytes(100), 116"),
    "io_uring_setup": (425, 425, "1, bytes(200)"),
    "userfaultfd": (323, 282, "0"),
    "perf_event_open": (298, 241, "struct.pack('=IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0"),
    "open_by_handle_at": (304, 265, "0, bytes(16), 0"),
    "kexec_load": (246, 104, "0, 0, 0, 0"),
    "init_module": (175, 105, "b'', 0, b''"),
    "finit_module": (313, 273, "0, b'', 0"),
    "delete_module": (176, 106, "b'ext4', 0"),
    "swapon": (167, 224, "b'/tmp', 0"),
    "acct": (163, 89, "0"),
    "reboot": (169, 142, "0xfee1dead, 672274793, 0, 0"),
    "settimeofday": (164, 170, "struct.pack('=QQ', 0, 0), 0"),
    "sethostname": (170, 161, "b'x', 1"),
    "mknod": (259, 33, "-100, b'/tmp/node', 0o20600, 0x103"),
}
TRY_CALLS = """
import ctypes, errno, os, struct
call = ctypes.CDLL(None, use_errno=True).syscall
for name, number, arguments in {calls!r}:
    pid = os.fork()
    if not pid:
        given = eval('(' + arguments + ',)')
        done = call(number, *[ctypes.c_long(one) if isinstance(one, int) else one for one in given])
        os._exit(255 if done >= 0 else ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(name, 'killed' if code < 0 else 'done' if code == 255 else errno.errorcode[code], sep=':')
"""


def tried_calls(house: CaseHouse, calls: dict[str, tuple[int, int, str]]) -> dict[str, str]:
    """What the kernel said to each call, made inside."""
    listed = [(name, one if X86_64 else other, arguments) for name, (one, other, arguments) in calls.items()]
    said = house.worked(python(TRY_CALLS.format(calls=listed))).said()
    return dict(line.split(":") for line in said.splitlines())


@case("S35")
def test_no_namespace_and_no_mount_can_be_made(house: CaseHouse) -> None:
    """Every call that makes or enters a namespace, or makes, changes or moves a mount, is denied as such."""
    answers = tried_calls(house, CALLS)
    assert answers.keys() == CALLS.keys()
    assert {name: said for name, said in answers.items() if said not in {"EPERM", "ENOSYS", "killed"}} == {}


@case("X20")
def test_the_kernels_larger_surfaces_are_closed(house: CaseHouse) -> None:
    """Keyrings, tracing, BPF, io_uring, modules, clocks, handles: denied by the filter, not by luck with arguments."""
    answers = tried_calls(house, MORE_CALLS)
    assert answers.keys() == MORE_CALLS.keys()
    assert {name: said for name, said in answers.items() if said not in {"EPERM", "ENOSYS", "killed"}} == {}


@case("S35", "X20")
def test_ordinary_programs_do_not_notice_the_filter(house: CaseHouse) -> None:
    """Processes, threads, pipes, locks, signals, shared memory and git work inside."""
    script = """
import concurrent.futures, multiprocessing, os, fcntl, mmap, signal, subprocess, tempfile, threading
assert concurrent.futures.ThreadPoolExecutor(4).submit(sum, [1, 2]).result() == 3
assert multiprocessing.get_context('fork').Pool(2).map(abs, [-1, -2]) == [1, 2]
assert subprocess.run(['sh', '-c', 'echo hi | cat'], capture_output=True).stdout == b'hi\\n'
fcntl.flock(tempfile.TemporaryFile(), fcntl.LOCK_EX); mmap.mmap(-1, 4096); os.memfd_create('x')
signal.setitimer(signal.ITIMER_REAL, 9); os.nice(1); os.sched_getaffinity(0); print('ok')
"""
    assert house.worked(python(script)).said() == "ok\n"


@case("S37")
@pytest.mark.skipif(not X86_64, reason="other call interfaces beside the main one exist on x86-64 only")
@pytest.mark.parametrize("name", PROGRAMS)
def test_other_call_interfaces_are_closed(house: CaseHouse, name: str) -> None:
    """A program that calls the kernel by the 32-bit or the x32 interface is killed, whatever it calls."""
    program = house.site / "program"
    program.write_bytes(PROGRAMS[name])
    program.chmod(0o755)
    found = house.tried(command("./program"))
    if name == "plain":
        assert found.said() == "open\n", "the harness itself must work"
        return
    assert "open" not in found.said()
    assert found.report.status == FAILED
    if name != "32-bit program":  # which a kernel without them does not even start
        assert found.report.steps[0].command.exit_code == 128 + signal.SIGSYS


@case("X21")
def test_a_command_runs_without_any_right(house: CaseHouse) -> None:
    """A filter, no capability, no new privileges, its own processes only, and a hostname that says nothing."""
    found = house.worked(
        shell("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls -d /proc/[0-9]* | wc -l; uname -n")
    )
    *status, processes, name = found.said().split("\n")[:-1]
    told = dict(line.split(":\t") for line in status)
    assert {value for key, value in told.items() if key.startswith("Cap")} == {"0" * 16}
    assert (told["NoNewPrivs"], told["Seccomp"], name) == ("1", "2", "sandbox")
    assert int(processes) < 6


@case("S39")
def test_no_descriptor_of_the_executor_is_open_inside(house: CaseHouse) -> None:
    """Inheritable files, directories and sockets of the executor's process are in no process of the sandbox."""
    import socket

    (house.outside / "secret").write_text("secret\n")
    pair = socket.socketpair()
    kept = [
        os.open(house.outside, os.O_RDONLY),
        os.open(house.outside / "secret", os.O_RDWR),
        *(s.fileno() for s in pair),
    ]
    for fd in kept:
        os.set_inheritable(fd, True)
    script = """
import os
for pid in filter(str.isdigit, os.listdir('/proc')):
    try: fds = os.listdir(f'/proc/{pid}/fd')
    except OSError: continue
    for fd in fds:
        try: print(fd, os.readlink(f'/proc/{pid}/fd/{fd}'))
        except OSError: pass
for fd in range(3, 200):
    for path in (f'/proc/self/fd/{fd}/secret', f'/proc/self/fd/{fd}/../outside/secret'):
        try: print('open', open(path).read())
        except OSError: pass
    try: os.fstat(fd); print('open', fd)
    except OSError: pass
print('cwd', os.readlink('/proc/self/cwd'))
"""
    said = house.worked(python(script)).said().splitlines()
    for fd in kept[:2]:
        os.close(fd)
    for one in pair:
        one.close()
    assert [line for line in said if line.startswith("open")] == []
    links = {line.split(" ", 1)[1] for line in said[:-1]}
    assert {link for link in links if not link.startswith(("pipe:", "/dev/null", "/proc/"))} == set()
    assert said[-1] == f"cwd {house.site}"


@case("S39", "X22")
def test_standard_input_is_at_its_end_and_no_terminal_is_there(tmp_path: Path) -> None:
    """Also where the executor has a terminal: a command can not open it, nor push characters into it."""
    program = (
        "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'tests.cases.on_terminal', sys.argv[1]]) >> 8)"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout.split()
    assert said[:5] + said[6:] == ["terminal", "True", "inside", "b''", "ENXIO", "pushed", "False"], done
    assert said[5] in {"ENOTTY", "EPERM"}


@pytest.fixture
def hiding(tmp_path: Path) -> CaseHouse:
    """A house whose policy hides `.env` and `keys`; the test closes it by its own `with`."""
    return CaseHouse(tmp_path, hidden=(".env", "keys"))


@case("S41")
@pytest.mark.parametrize("target", ["/dev/null", "plain", "/etc/passwd", "nowhere", ".", "keys"])
def test_a_masked_path_that_became_a_link_stops_commands(tmp_path: Path, target: str) -> None:
    """Covering the link's target would cover something else: no command starts, and the report names the path."""
    with case_house(tmp_path, hidden=(".env", "keys")) as house:
        (house.site / "plain").write_text("plain\n")
        (house.site / ".env").symlink_to(target)
        found = house.tried(shell("cat plain .env"))
        assert (found.report.status, [one.path for one in found.report.problems]) == (BLOCKED, [".env"])
        assert "plain\n" not in str(found.report.steps)
        assert found.report.problems[0].remedy


@case("S41")
def test_a_command_can_not_take_a_mask_away(tmp_path: Path) -> None:
    """A hidden path can not be renamed, replaced by a link or uncovered by moving what is above it."""
    with case_house(tmp_path, hidden=("a/.env", "keys")) as house:
        for folder in ("a", "keys"):
            (house.site / folder).mkdir()
            (house.site / folder / ".env").write_text("TOP-SECRET\n")
        script = """
        mv a b; rm -rf a; ln -sfn /etc a/.env; mv a/.env a/x; rmdir keys; mv keys k2; ln -sfn a keys; umount a/.env
        cat a/.env b/.env keys/.env k2/.env a/x; grep -r TOP . ; true
        """
        first = house.tried(shell(script), shell("cat a/.env b/.env k2/.env; grep -r TOP .; true"))
        assert "TOP-SECRET" not in str(first.report)
        assert (house.site / "a" / ".env").read_text() == "TOP-SECRET\n"


@case("S41", "X23")
def test_a_mask_holds_while_the_hidden_file_is_swapped(tmp_path: Path) -> None:
    """While somebody swaps a hidden file for a link as fast as they can, no command ever shows what is hidden."""
    with case_house(tmp_path, hidden=(".env", ".env2")) as house:
        (house.site / "plain").write_text("plain\n")
        (house.site / ".env").write_text("TOP-SECRET\n")
        (house.site / ".env2").symlink_to("plain")
        with racing(house.site / ".env", house.site / ".env2"):
            for _ in range(25):
                try:
                    found = house.tried(shell("cat .env .env2 plain; grep -r TOP .; true"))
                except OSError as error:  # pragma: no cover - would be a finding of its own
                    pytest.fail(f"an error of the system came through: {error}")
                assert "TOP-SECRET" not in str(found.report)


@case("S43")
def test_a_hidden_path_behind_a_link_stops_commands_only(tmp_path: Path) -> None:
    """A clear refusal that names the path and the remedy; steps that need no sandbox work on."""
    with case_house(tmp_path, hidden=("config/.env", ".env")) as house:
        (house.site / "real").mkdir()
        (house.site / "real" / ".env").write_text("TOP-SECRET\n")
        (house.site / "config").symlink_to("real")
        (house.site / ".env").symlink_to("real/.env")
        found = house.tried(shell("cat real/.env"))
        assert found.report.status == BLOCKED
        (problem,) = found.report.problems
        assert problem.path in {".env", "config/.env"}
        assert ("link" in problem.message, "hidden" in problem.remedy) == (True, True)
        assert "TOP-SECRET" not in str(found.report)
        house.mission(created("typed"), read("typed"))
        assert (house.site / "typed").read_text() == "new\n"


@case("X28")
@pytest.mark.parametrize("count", [2, 700, 5000])
def test_however_many_hidden_files_there_are_none_is_shown(tmp_path: Path, count: int) -> None:
    """Each is covered, or the command is refused by name: there is no number beyond which some stay open."""
    with case_house(tmp_path, hidden=("**/*.key",)) as house:
        for number in range(count):
            folder = house.site / f"d{number % 50}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.key").write_text("TOP-SECRET\n")
        found = house.tried(shell("(grep -r TOP .; cat d*/*.key) 2>/dev/null | wc -c"), seconds=30)
        assert "TOP-SECRET" not in str(found.report)
        if found.report.status == SUCCESS:
            assert found.said() == "0\n"
        else:
            assert (found.report.status, bool(found.complaint)) == (BLOCKED, True)


@case("X29")
def test_what_a_command_puts_under_a_hidden_name_is_not_shown_either(tmp_path: Path) -> None:
    """A hidden name that a command makes, copies to or moves to blocks the plan; nothing of it is kept or reported."""
    with case_house(tmp_path, hidden=("**/.env", "keys")) as house:
        (house.site / "plain").write_text("TOP-SECRET\n")
        for script in ("cp plain .env", "mkdir d; mv plain d/.env", "mkdir keys; cp plain keys/a", "ln -s plain .env"):
            found = house.tried(shell(script), shell("cat .env d/.env keys/a"))
            assert found.report.status == BLOCKED, script
            assert "TOP-SECRET" not in str(found.report)


@case("X24")
@pytest.mark.parametrize(
    "step", [shell("kill -SEGV $$"), shell("ulimit -c unlimited; kill -ABRT $$"), python("import os; os.abort()")]
)
def test_a_crash_leaves_no_core_file(house: CaseHouse, step: Step) -> None:
    """The memory of a program that dies is not written into the workspace."""
    found = house.tried(step)
    assert (found.report.status, found.changes) == (FAILED, [])


@case("X25")
def test_no_device_of_the_machine_is_there(house: CaseHouse) -> None:
    """/dev holds the few nodes that programs need, all harmless, and no further one can be made."""
    found = house.worked(
        shell(
            "find /dev -type b -o -type c | sort; mknod n c 1 3 2>/dev/null && echo open; "
            "ls /sys /run /boot 2>/dev/null; true"
        )
    )
    nodes = set(found.said().split())
    assert nodes <= {
        f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero", "pts/ptmx", "ptmx", "console")
    }
    assert (house.site / "n").exists() is False


@case("X26")
def test_signals_reach_nothing_outside(house: CaseHouse) -> None:
    """A command that kills all it can ends itself; the executor and the session go on."""
    found = house.tried(shell("kill -9 -1; echo survived"), mission="m-kill")
    assert found.report.status in {FAILED, evidence_pb2.REPORT_STATUS_SUCCESS}
    script = f"for p in {os.getpid()} {os.getppid()} 1; do kill -9 $p 2>/dev/null; done; echo on"
    assert "on" in house.worked(shell(script)).said()
    assert threading.active_count() > 0


@case("X27")
def test_the_system_is_read_only_and_partial(house: CaseHouse) -> None:
    """Only named system directories are there, none of them writable; users, hosts and keys are not the machine's."""
    script = """
    for d in / /usr /usr/bin /bin /lib /etc /dev /proc /proc/sys/kernel; do
        (: > $d/.x) 2>/dev/null && echo open $d
    done
    for f in /etc/shadow /etc/machine-id /etc/ssh /root/.ssh /var/log /var/run/docker.sock /home; do
        test -e $f && echo seen $f
    done
    (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo open
    (echo b > /proc/sysrq-trigger) 2>/dev/null && echo open
    wc -l < /etc/passwd
    """
    assert house.worked(shell(script)).said() == "1\n"
