"""The system call filter: what the shipped programs answer, on every architecture, and that they are in force."""

import ctypes.util
import errno
import importlib.util
import json
import os
import platform
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import SandboxSession, SandboxUnavailableError, SessionRequest
from executor.sandbox.seccomp import shipped_filter
from tests.conformance.sandbox_suite import LIMITS, a_command, said, shell

# Each with a script that makes it use threads, children, pipes and temporary files, and the last thing it says.
PROGRAMS = {
    "python3": ("python3 -c 'import threading as t; x = t.Thread(target=print, args=(1,)); x.start()'", "1"),
    "git": (
        (
            "git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m m && git gc -q"
            " && git log --format=%s"
        ),
        "m",
    ),
    "gcc": (
        (
            "printf 'int puts(const char *); int main(void) { return puts(\"c\") < 0; }' > a.c"
            " && gcc -O1 -pthread a.c && ./a.out"
        ),
        "c",
    ),
    "make": (
        "printf 'all: a b\\n%%:\\n\\t@sleep 0.01\\nx: all\\n\\t@echo built\\n' > Makefile && make -j4 -s x",
        "built",
    ),
    "node": (
        (
            'node -e \'require("child_process").execFile("echo", ["n"], (e, o) => '
            'require("fs").readFile("/etc/passwd", () => process.stdout.write(o)))\''
        ),
        "n",
    ),
    "sort": ("seq 1 50000 | sort -n --parallel=4 -S 1M | tail -1", "50000"),
    "perl": ("perl -e 'my $p = fork; exit 0 unless $p; wait; print \"p\\n\"'", "p"),
    "find": ("find /usr/bin/sh -newermt 1990-01-01 -print0 | xargs -0 -n 1 -P 4 stat -c %n", "/usr/bin/sh"),
    "tar": ("mkdir t && mkfifo t/p && echo x > t/f && tar czf - t | tar xzOf - t/f", "x"),
}
BUILD = Path(__file__).parents[3] / "deploy" / "seccomp" / "build.py"
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
I386, X86_64, AARCH64 = 0x40000003, 0xC000003E, 0xC00000B7
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64}
# Of each architecture the numbers of the calls named below; written down here, so that the table's names are checked.
NUMBERS = {
    "x86_64": {
        "read": 0,
        "ioctl": 16,
        "socket": 41,
        "clone": 56,
        "fork": 57,
        "execve": 59,
        "ptrace": 101,
        "mknod": 133,
        "personality": 135,
        "mount": 165,
        "keyctl": 250,
        "mknodat": 259,
        "unshare": 272,
        "setns": 308,
        "bpf": 321,
    },
    "aarch64": {
        "read": 63,
        "ioctl": 29,
        "socket": 198,
        "clone": 220,
        "execve": 221,
        "ptrace": 117,
        "personality": 92,
        "mount": 40,
        "keyctl": 219,
        "mknodat": 33,
        "unshare": 97,
        "setns": 268,
        "bpf": 280,
    },
}
# The calls since 424 have one number everywhere.
YOUNG = {"io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435, "faccessat2": 439, "fchmodat2": 452}


def answer(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What the kernel makes of a call: a classic BPF machine, as far as filters use it."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    for _ in range(len(code)):
        operation, when_true, when_false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return int(value)
        else:
            held = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            at += when_true if held else when_false
    raise AssertionError("the program has no end")


def denied(code: int) -> int:
    return 0x00050000 | code


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Filter:
    """A shipped filter, asked by name."""

    def __init__(self, machine: str) -> None:
        self.program = shipped_filter(machine).program
        self.architecture = ARCHITECTURES[machine]
        self.numbers = NUMBERS[machine] | YOUNG

    def __call__(self, call: str, *arguments: int) -> int:
        return answer(self.program, self.numbers[call], self.architecture, *arguments)


@pytest.fixture
def ask(machine: str) -> Filter:
    return Filter(machine)


def test_a_build_gives_the_shipped_bytes() -> None:
    """The shipped programs are what the table says, byte for byte."""
    if ctypes.util.find_library("seccomp") is None:
        pytest.skip("libseccomp, which builds the filters, is not on this machine")
    builder = load_builder()
    shipped = json.loads((builder.TARGET / "filters.json").read_bytes())
    built = builder.build_all()
    if json.loads(built["filters.json"])["libseccomp"] != shipped["libseccomp"]:
        pytest.skip(f"this machine's libseccomp is not {shipped['libseccomp']}, which built the shipped filters")
    assert {name: (builder.TARGET / name).read_bytes() for name in built} == built


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_seccomp", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ordinary_calls_are_allowed(ask: Filter) -> None:
    """What programs live on passes: files, processes, threads, the three socket families, FIFOs."""
    thread, signal_of_a_child = 0x003D0F00, 17
    assert {ask("read"), ask("execve"), ask("faccessat2"), ask("fchmodat2"), ask("ioctl", 0, 0x5401)} == {ALLOWED}
    assert {ask("clone", thread), ask("clone", signal_of_a_child), ask("unshare", 0x400)} == {ALLOWED}
    assert {ask("socket", family, kind) for family in (1, 2, 10) for kind in (1, 2, 0x80001)} == {ALLOWED}
    assert {ask("mknodat", 0, 0, kind | 0o644) for kind in (0, 0o010000, 0o100000, 0o140000)} == {ALLOWED}
    assert ask("personality", 0xFFFFFFFF) == ALLOWED


def test_ways_to_other_namespaces_are_denied(ask: Filter) -> None:
    """No namespace is made or entered and nothing mounted, whatever the way to ask; clone3 looks unknown."""
    flags = [0x00020000, *(1 << bit for bit in range(25, 31))]
    assert {ask("clone", flag | 17) for flag in flags} == {denied(errno.EPERM)}
    assert {ask("unshare", flag | 0x400) for flag in (*flags, 0x80)} == {denied(errno.EPERM)}
    assert {ask(call) for call in ("mount", "setns", "open_tree", "fsopen")} == {denied(errno.EPERM)}
    assert ask("clone3") == denied(errno.ENOSYS)


def test_the_kernels_large_parts_are_denied(ask: Filter) -> None:
    """Tracing, keys, BPF and rings are not there for commands."""
    assert {ask(call) for call in ("ptrace", "keyctl", "bpf")} == {denied(errno.EPERM)}
    assert ask("io_uring_setup") == denied(errno.ENOSYS)


def test_only_three_socket_families(ask: Filter) -> None:
    """Netlink, packet, vsock, AF_ALG and all others do not exist, however the number is padded; nor do raw sockets."""
    families = [number for number in range(64) if number not in (1, 2, 10)]
    padded = [(1 << 32) | 16, (1 << 32) | 2, 0xFFFFFFFF]
    assert {ask("socket", family, 2) for family in (*families, *padded)} == {denied(errno.EAFNOSUPPORT)}
    raw = [(family, kind | 0x80000) for family in (2, 10) for kind in (3, 10)]
    assert {ask("socket", *pair) for pair in raw} == {denied(errno.EPERM)}


def test_devices_terminals_and_domains_are_denied(ask: Filter) -> None:
    """Device nodes, typing into a terminal and other execution domains, also where the upper half differs."""
    assert {ask("mknodat", 0, 0, kind | 0o644) for kind in (0o020000, 0o060000)} == {denied(errno.EPERM)}
    if "mknod" in ask.numbers:
        assert {ask("mknod", 0, kind | 0o644) for kind in (0o020000, 0o060000)} == {denied(errno.EPERM)}
    for command in (0x5412, 0x541C, (1 << 32) | 0x5412):
        assert ask("ioctl", 0, command) == denied(errno.EPERM)
    assert {ask("personality", domain) for domain in (0, 0x0040000, 8)} == {denied(errno.EPERM)}


def test_newer_calls_are_unknown(ask: Filter) -> None:
    """A call that the table's author could not look at answers as on an older kernel; -1 is no call at all."""
    newest = YOUNG["fchmodat2"]
    assert {answer(ask.program, number, ask.architecture) for number in (newest + 1, 600, 0x3FFFFFFF, 0xFFFFFFFF)} == {
        denied(errno.ENOSYS)
    }


def test_other_architectures_are_killed(ask: Filter) -> None:
    """Calls by 32-bit, x32 or foreign numbers end the process."""
    foreign = {I386, X86_64, AARCH64, 0x40000028} - {ask.architecture}
    assert {answer(ask.program, 0, other) for other in foreign} == {KILLED}
    assert answer(ask.program, 0x40000000 | 39, ask.architecture) == KILLED


def test_a_machine_without_a_filter_is_refused() -> None:
    """Another architecture has no filter; the refusal says which have one."""
    with pytest.raises(SandboxUnavailableError, match="riscv64") as caught:
        shipped_filter("riscv64")
    assert "aarch64, x86_64" in caught.value.fault.remedy


def test_a_changed_filter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is not the one that was built, or is not there, is not used."""
    shutil.copytree(BUILD.parents[2] / "executor" / "sandbox" / "filters", tmp_path / "filters")
    monkeypatch.setattr("executor.sandbox.seccomp.resources.files", lambda _package: tmp_path)
    assert shipped_filter("x86_64").program
    (tmp_path / "filters" / "x86_64.bpf").write_bytes(struct.pack("<HBBI", 0x06, 0, 0, ALLOWED))
    with pytest.raises(SandboxUnavailableError, match="not the one that was built"):
        shipped_filter("x86_64")
    (tmp_path / "filters" / "aarch64.bpf").unlink()
    with pytest.raises(SandboxUnavailableError, match="can not be read"):
        shipped_filter("aarch64")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SandboxSession]:
    root = tmp_path / "ws"
    root.mkdir()
    request = SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)
    with Bubblewrap.on_this_machine().open(request) as session:
        yield session


def needs_x86_64() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the machine code in this test is x86_64's")


@pytest.mark.sandbox
class TestInForce:
    """The same with the kernel itself."""

    def test_calls_are_denied(self, session: SandboxSession) -> None:
        """Each group of the table was tried for real, past the C library."""
        needs_x86_64()
        calls = {
            "mount": (165,),
            "pivot_root": (155,),
            "setns": (308, 0, 0),
            "unshare": (272, 0x10000000),
            "clone": (56, 0x10000000 | 17, 0),
            "fsopen": (430,),
            "open_tree": (428,),
            "ptrace": (101, 0),
            "keyctl": (250, 0),
            "bpf": (321,),
            "perf_event_open": (298,),
            "open_by_handle_at": (304,),
            "mknod": (133, 0, 0o020666, 0x103),
        }
        unknown = {"clone3": (435,), "io_uring_setup": (425, 1, 0), "listmount": (458,), "none": (999,)}
        script = (
            "import ctypes\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            f"for numbers in {[*calls.values(), *unknown.values()]!r}:\n"
            "    padded = (*numbers, *[0] * (7 - len(numbers)))\n"
            "    done = libc.syscall(*map(ctypes.c_long, padded))\n"
            "    print(done, ctypes.get_errno())\n"
        )
        lines = said(session.run(a_command("python3", "-c", script))).splitlines()
        assert lines == [f"-1 {errno.EPERM}"] * len(calls) + [f"-1 {errno.ENOSYS}"] * len(unknown)

    @pytest.mark.parametrize("way", ["int 0x80", "x32"])
    def test_other_abis_kill(self, session: SandboxSession, way: str) -> None:
        """A call by the 32-bit gate or by an x32 number ends the program before anything else happens."""
        needs_x86_64()
        gate = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
        x32 = b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"  # mov eax, 0x40000027; syscall; ret
        script = (
            "import ctypes, mmap\n"
            "page = mmap.mmap(-1, 4096, prot=7)\n"
            f"page.write({gate if way == 'int 0x80' else x32!r})\n"
            "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
            "print('before', flush=True); call(); print('after')"
        )
        result = session.run(a_command("python3", "-c", script))
        # A kernel without the 32-bit gate answers it with SIGSEGV.
        assert (result.stdout.head, result.signal) in {(b"before\n", 31), (b"before\n", 11)}
        assert way != "x32" or result.signal == 31

    def test_sockets_of_other_families_are_not_there(self, session: SandboxSession) -> None:
        """Netlink, packet, vsock, AF_ALG and raw sockets are denied; the usual three are there."""
        script = (
            "import socket\n"
            "def tried(*wanted):\n"
            "    try: socket.socket(*wanted).close(); return 0\n"
            "    except OSError as error: return error.errno\n"
            "print([tried(f, 3 if f == 16 else 2) for f in (16, 17, 40, 38, 29)])\n"
            "print([tried(2, 3, 1), tried(10, 3, 58)], [tried(f, t) for f in (1, 2, 10) for t in (1, 2)])\n"
        )
        expected = f"{[errno.EAFNOSUPPORT] * 5}\n{[errno.EPERM] * 2} {[0] * 6}\n"
        assert said(session.run(a_command("python3", "-c", script))) == expected

    @pytest.mark.parametrize("program", sorted(PROGRAMS))
    def test_real_programs_work(self, session: SandboxSession, program: str) -> None:
        """Threads, pipes, temporary files, children, parallel jobs: programs do not notice the filter."""
        if not session.find_program(program):
            pytest.skip(f"there is no {program} on this machine")
        script, expected = PROGRAMS[program]
        result = shell(session, script, env={"PATH": os.defpath.lstrip(":")})
        assert (result.exit_code, said(result).strip()) == (0, expected)

    def test_pytest_works(self, tmp_path: Path) -> None:
        """A test run with its own temporary folders and subprocesses passes inside."""
        root = tmp_path / "project"
        root.mkdir()
        (root / "test_it.py").write_text(
            "import subprocess\ndef test_it(tmp_path):\n    assert subprocess.check_output(['echo', 'x']) == b'x\\n'\n"
        )
        tools = (Path(os.path.realpath(sys.executable)).parents[1], Path(sys.prefix))
        request = SessionRequest(workspace=root, workspace_id="w", limits=LIMITS, tools=tools)
        with Bubblewrap.on_this_machine().open(request) as session:
            result = session.run(a_command(f"{sys.prefix}/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"))
        assert (result.exit_code, "1 passed" in said(result)) == (0, True)
