"""What every sandbox must do. A level subclasses `SandboxSuite` and provides the `sandbox` fixture."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor.sandbox.sandbox import (
    CommandSpec,
    Sandbox,
    SandboxFullError,
    SandboxRefusedError,
    SandboxSession,
    SandboxUnavailableError,
    SessionRequest,
)
from tests.conformance.sandbox_commands import LIMITS, a_command, alive, eventually, said, shell, snapshot

__all__ = ["LIMITS", "SandboxSuite", "a_command", "alive", "eventually", "said", "shell", "snapshot"]


@pytest.mark.sandbox
class SandboxSuite:
    # Where the filesystem does not cap what a session writes, it is measured, and too much of it is refused.
    measured = False
    # What no command may see need not be in what commands work on.
    copies_hidden = True

    def overfill(self, session: SandboxSession, script: str) -> None:
        """Runs a command that writes more than the session may have."""
        if not self.measured:
            result = shell(session, script)
            assert (result.exit_code != 0, "No space left" in said(result)) == (True, True)
            return
        with pytest.raises(SandboxFullError, match="limits are") as caught:
            shell(session, script)
        assert (caught.value.fault.reason, bool(caught.value.fault.remedy)) == ("TOO_LARGE", True)

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        raise NotImplementedError

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        root = tmp_path / "work space,with:odd\\name"
        root.mkdir()
        (root / "file").write_text("base\n")
        (root / "folder").mkdir()
        (root / "folder" / "inner").write_text("base\n")
        (root / ".env").write_text("SECRET=1\n")
        (root / "keys").mkdir()
        (root / "keys" / "id").write_text("SECRET=2\n")
        return root

    @pytest.fixture
    def request_(self, workspace: Path) -> SessionRequest:
        return SessionRequest(workspace=workspace, workspace_id="w", limits=LIMITS, hidden=(b".env", b"keys", b"no"))

    @pytest.fixture
    def session(self, sandbox: Sandbox, request_: SessionRequest) -> Iterator[SandboxSession]:
        with sandbox.open(request_) as session:
            yield session

    def test_writes_stay_in_the_copy(self, session: SandboxSession, workspace: Path) -> None:
        """A command changes, adds, removes and renames freely; the workspace does not change in any respect."""
        before = snapshot(workspace)
        result = shell(session, "echo x >> file; rm -r folder; mkdir -p n/m; mv file moved; chmod 700 .; touch .")
        assert (result.exit_code, said(result)) == (0, "")
        assert snapshot(workspace) == before

    def test_a_later_command_sees_an_earlier_ones_files(self, session: SandboxSession) -> None:
        """All commands of a session share one view."""
        shell(session, "echo one > made")
        assert said(shell(session, "cat made")) == "one\n"

    def test_a_command_sees_what_the_server_wrote(self, session: SandboxSession) -> None:
        """What typed steps write below `merged` is there for the next command."""
        (session.merged / "typed").write_text("typed\n")
        assert said(shell(session, "cat typed")) == "typed\n"
        assert (session.upper / "typed").exists()

    def test_it_runs_at_the_workspaces_own_path(self, session: SandboxSession, workspace: Path) -> None:
        """Commands see the real path, and start in it or in the directory below it that they name."""
        assert said(shell(session, "pwd")) == f"{workspace}\n"
        assert said(shell(session, "pwd", cwd="folder")) == f"{workspace}/folder\n"

    def test_discarded_changes_are_gone(self, session: SandboxSession, workspace: Path) -> None:
        """A discarding command sees earlier changes and its own; afterwards only the earlier ones are there."""
        before = snapshot(workspace)
        shell(session, "echo earlier > made")
        script = "cat made; echo later > made; rm -r folder; mkdir out; echo r > out/report; rm .env 2>/dev/null; true"
        result = shell(session, script, discard_changes=True, collect=(b"out/report", b"out", b"none", b"keys/id"))
        assert said(result) == "earlier\n"
        assert result.collected == {b"out/report": b"r\n"}
        assert set(result.uncollected) == {b"out", b"none", b"keys/id"}
        assert said(shell(session, "cat made folder/inner; ls")) == "earlier\nbase\nfile\nfolder\nkeys\nmade\n"
        assert snapshot(workspace) == before

    def test_a_collected_file_is_never_a_way_out(self, session: SandboxSession) -> None:
        """Links, FIFOs and endless files that a command leaves for collection are not followed, waited for or read."""
        script = "ln -s /etc/passwd link; ln -s /etc dir; mkfifo pipe; truncate -s 1T big || truncate -s 16M big"
        paths = (b"link", b"dir/passwd", b"pipe", b"big")
        result = shell(session, script, discard_changes=True, collect=paths)
        assert not set(result.collected) - {b"big"}
        assert len(result.collected.get(b"big", b"")) <= 16 << 20

    @pytest.mark.parametrize("discard", [True, False])
    def test_only_what_the_command_wrote_is_collected(
        self, sandbox: Sandbox, request_: SessionRequest, workspace: Path, discard: bool
    ) -> None:
        """A stale result in the workspace or of an earlier step is not taken for the command's; one overwritten is."""
        (workspace / "build").mkdir()
        (workspace / "build" / "junit.xml").write_text("stale")
        paths = (stale, *_) = (b"build/junit.xml", b"earlier", b"link")
        with sandbox.open(request_) as session:
            shell(session, "echo earlier > earlier; ln -s file link")
            for script in ("true", "cat build/junit.xml", "exec 3<>build/junit.xml", "chmod 600 build/junit.xml"):
                nothing = shell(session, script, discard_changes=discard, collect=paths)
                assert nothing.collected == {}
                assert {nothing.uncollected[path] for path in paths[:2]} == {"was not written by the command"}
            gone = shell(session, "rm build/junit.xml", discard_changes=True, collect=(stale,))
            assert gone.uncollected == {stale: "is not there"}
            fresh = shell(session, "echo fresh > build/junit.xml", discard_changes=discard, collect=paths)
            assert fresh.collected == {stale: b"fresh\n"}
            replaced = "rm -r build; mkdir build; echo again > build/junit.xml"
            assert shell(session, replaced, discard_changes=discard, collect=(stale,)).collected == {stale: b"again\n"}

    def test_hidden_paths_are_masked(self, session: SandboxSession) -> None:
        """A hidden file is empty and a hidden directory is empty, and neither can be removed, moved or written."""
        result = shell(
            session, "cat .env; ls -A keys; rm -rf .env keys; mv keys k2; echo x > keys/id; grep -r SECRET ."
        )
        assert "SECRET" not in said(result)
        assert (session.merged / ".env").read_text() == ("SECRET=1\n" if self.copies_hidden else "")
        assert (session.merged / "keys" / "id").exists() is self.copies_hidden

    def test_paths_can_be_hidden_after_opening(
        self, sandbox: Sandbox, request_: SessionRequest, workspace: Path
    ) -> None:
        """What is named before the first command is hidden too, and is no change; what is no path inside is refused."""
        before = (workspace / "keys").stat().st_mtime_ns
        with sandbox.open(replace(request_, hidden=(b".env",))) as session:
            session.hide((b"keys/id", b"folder", b"none"))
            assert shell(session, "cat .env keys/id; ls -A folder; cat file folder/inner").stdout.head == b"base\n"
            assert not {place.name for place in session.upper.rglob("*")} & {"id", "folder", ".env"}
            assert (session.merged / "keys").stat().st_mtime_ns == before
            with pytest.raises(SandboxRefusedError):
                session.hide((b"../out",))

    def test_a_hidden_path_that_became_a_link_stops_the_next_command(
        self, sandbox: Sandbox, request_: SessionRequest, workspace: Path
    ) -> None:
        """Covering a link would cover something else; the refusal names the path, and other steps still work."""
        (workspace / "keys" / "id").unlink()
        (workspace / "keys").rmdir()
        (workspace / "keys").symlink_to("folder")
        with sandbox.open(request_) as session:
            with pytest.raises(SandboxRefusedError, match="keys") as caught:
                shell(session, "true")
            assert caught.value.fault.paths == (b"keys",)
            (session.merged / "typed").write_text("still works")

    def test_there_is_no_network(self, session: SandboxSession) -> None:
        """No interface but an own loopback, no route, and no abstract socket of the host."""
        script = (
            "import socket\n"
            "i, u = socket.AF_INET, socket.AF_UNIX\n"
            "places = [(i, ('1.1.1.1', 80)), (socket.AF_INET6, ('::1', 9)), (i, ('127.0.0.1', PORT)), ]\n"
            "places += [(u, '\\0gonogo-test')]\n"
            "for f, a in places:\n"
            "  s = socket.socket(f); s.settimeout(2)\n"
            "  try: s.connect(a); print('open', a)\n"
            "  except OSError: pass\n"
            "print([line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line])"
        )
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind("\0gonogo-test")
            abstract.listen()
            port = str(server.getsockname()[1])
            result = session.run(a_command("python3", "-c", script.replace("PORT", port)))
        assert said(result) == "['lo']\n"

    def test_it_holds_no_privilege(self, session: SandboxSession) -> None:
        """No capability, no_new_privs, no nested user namespace, no descriptor above 2, and only its own processes."""
        result = shell(
            session, "grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status; ls /proc | grep -c '^[0-9]'"
        )
        zero = "0" * 16
        assert said(result).split()[:8] == ["CapPrm:", zero, "CapEff:", zero, "CapBnd:", zero, "NoNewPrivs:", "1"]
        assert int(said(result).split()[-1]) <= 5
        assert shell(session, "unshare --user true").exit_code != 0

    def test_no_descriptor_leaks_in(self, session: SandboxSession) -> None:
        """A command has standard input at its end, two pipes, and nothing else of the server's."""
        script = "import os; print(sorted(os.listdir('/proc/self/fd'), key=int)[:-1], os.read(0, 1))"
        kept = os.open("/etc", os.O_RDONLY)
        os.set_inheritable(kept, True)
        try:
            assert said(session.run(a_command("python3", "-c", script))) == "['0', '1', '2'] b''\n"
        finally:
            os.close(kept)

    def test_the_machine_is_out_of_reach(self, session: SandboxSession, tmp_path: Path) -> None:
        """Kernel settings, device nodes, system directories and everything outside the view can not be touched."""
        (tmp_path / "outside").write_text("host\n")
        script = f"""
        (: >> /proc/sys/kernel/core_pattern) && echo open; (: >> /proc/sys/vm/swappiness) && echo open
        chmod 666 /dev/null && echo open; (: > /usr/x) && echo open; (: > /x) && echo open; (: > /etc/x) && echo open
        cat '{tmp_path}/outside' && echo open; cat /etc/shadow && echo open; ls /root/.ssh /home /var /sys && echo open
        mknod dev c 1 3 && echo open; mount -t tmpfs t /tmp && echo open; chroot / true && echo open
        ln -s "$PWD/file" '{tmp_path}/link'; ln -s "$PWD/file" /usr/link && echo open; ln file /usr/link && echo open
        echo done
        """
        result = shell(session, script)
        assert result.stdout.head == b"done\n"
        assert not os.path.lexists(tmp_path / "link")

    def test_each_command_starts_clean(self, session: SandboxSession, monkeypatch: pytest.MonkeyPatch) -> None:
        """Environment, home and temporary folders are the same for each command; nothing of the server's is there."""
        monkeypatch.setenv("SERVER_SECRET", "1")
        shell(session, "export LEAK=1; echo x > /tmp/left; echo x > ~/left; echo x > /dev/shm/left; chmod 0 /tmp")
        result = shell(session, "env | sort; ls -A /tmp ~ /dev/shm", env={"OWN": "--x", "LANG": "C"})
        assert "left" not in said(result)
        names = {line.split("=")[0] for line in said(result).splitlines() if "=" in line}
        assert names == {"PATH", "HOME", "LANG", "TERM", "OWN", "PWD"} | ({"SHLVL", "_"} & names)
        assert "OWN=--x" in said(result)

    @pytest.mark.parametrize("word", ["--help", "--bind", "--", "-c", "$(id)", "a b", ""])
    def test_arguments_reach_the_command_as_they_are(self, session: SandboxSession, word: str) -> None:
        """No argument is read as an option or script of what starts the command."""
        assert said(session.run(a_command("printf", "[%s]", word, word))) == f"[{word}][{word}]"

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"argv": ("true", "a\0b")}, "PLAN_INVALID"),
            ({"argv": ()}, "PLAN_INVALID"),
            ({"argv": ("--help",)}, "PLAN_INVALID"),
            ({"env": {"A=B": "x"}}, "PLAN_INVALID"),
            ({"timeout_seconds": 0}, "PLAN_INVALID"),
            ({"cwd": "../x"}, "PATH_INVALID"),
            ({"cwd": "/etc"}, "PATH_INVALID"),
            ({"cwd": "none"}, "PATH_INVALID"),
            ({"cwd": "file"}, "PATH_INVALID"),
            ({"collect": (b"/etc/passwd",)}, "PATH_INVALID"),
            ({"argv": ("no-such-program",)}, "UNSUPPORTED"),
        ],
    )
    def test_what_can_not_be_meant_is_refused(
        self, session: SandboxSession, fields: dict[str, object], reason: str
    ) -> None:
        """NUL bytes, empty commands, option-like programs, bad variables and paths that lead out start nothing."""
        known = {"argv": ("true",), "timeout_seconds": 5.0, **fields}
        with pytest.raises(SandboxRefusedError) as caught:
            session.run(CommandSpec(**known))  # type: ignore[arg-type]  # wrong on purpose
        assert caught.value.fault.reason == reason
        assert caught.value.fault.remedy

    def test_exit_codes_and_signals(self, session: SandboxSession) -> None:
        """An exit code comes back as it is; a death by signal as a shell shows it; the shell adds no remark."""
        assert (shell(session, "exit 7").exit_code, shell(session, "exit 7").signal) == (7, None)
        killed = shell(session, "kill -SEGV $$")
        assert (killed.exit_code, killed.signal, said(killed)) == (139, 11, "")

    def test_streams_are_kept_apart_and_heard(self, session: SandboxSession) -> None:
        """Output is captured per stream, and a listener gets the same bytes while they come."""
        heard: list[tuple[str, bytes]] = []
        result = session.run(
            a_command("/bin/sh", "-c", "echo out; sleep 0.1; echo err >&2"),
            lambda name, chunk: heard.append((name, chunk)),
        )
        assert (result.stdout.head, result.stderr.head) == (b"out\n", b"err\n")
        assert heard == [("stdout", b"out\n"), ("stderr", b"err\n")]

    def test_a_failing_listener_ends_the_command(self, session: SandboxSession) -> None:
        """When nobody can hear the output any more, the command does not go on; the session still works."""

        def fail(_name: str, _chunk: bytes) -> None:
            raise ConnectionError("gone")

        began = time.monotonic()
        with pytest.raises(ConnectionError):
            session.run(a_command("/bin/sh", "-c", "echo x; sleep 10"), fail)
        assert time.monotonic() - began < 2
        assert said(shell(session, "echo on")) == "on\n"

    def test_large_output_is_capped_and_digested(self, session: SandboxSession) -> None:
        """Of 10 MB the start and the end are kept, and the digest and count are of all of it."""
        script = "import sys; [sys.stdout.write(f'{i:09d}\\n') for i in range(1_000_000)]"
        heard: list[bytes] = []
        result = session.run(a_command("python3", "-c", script), lambda _, chunk: heard.append(chunk))
        whole = b"".join(b"%09d\n" % i for i in range(1_000_000))
        half = LIMITS.output_bytes // 2
        assert (result.exit_code, result.stdout.total, result.stdout.truncated) == (0, len(whole), True)
        assert (result.stdout.head, result.stdout.tail) == (whole[:half], whole[-half:])
        assert result.stdout.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
        assert b"".join(heard) == whole[: LIMITS.output_bytes]

    def test_endless_output_ends_the_command(self, session: SandboxSession) -> None:
        """Beyond the hard limit the command is killed, and the result says why."""
        result = session.run(a_command("yes"))
        assert (result.exit_code, result.killed_reason, result.timed_out) == (None, "output_limit", False)

    def test_a_timeout_kills_everything(self, session: SandboxSession) -> None:
        """Children that left the session, ignore signals and hold no pipe are gone within a second."""
        script = (
            "for i in 1 2 3; do setsid nohup sh -c 'trap \"\" TERM HUP INT; sleep 61.7' >/dev/null 2>&1 & done;"
            " trap '' TERM; sleep 61.7"
        )
        began = time.monotonic()
        result = shell(session, script, 0.5)
        assert time.monotonic() - began < 1.5
        assert (result.exit_code, result.signal, result.timed_out, result.killed_reason) == (None, 9, True, "timeout")
        assert eventually(lambda: not alive("61.7"))
        assert said(shell(session, "echo on")) == "on\n"

    def test_a_silent_daemon_does_not_escape_the_timeout(self, session: SandboxSession) -> None:
        """A command that closes its output and stays is still ended in time."""
        assert shell(session, "exec >&- 2>&-; sleep 61.8", 0.4).timed_out
        assert eventually(lambda: not alive("61.8"))

    def test_nothing_runs_on_after_the_command(self, session: SandboxSession) -> None:
        """What a command left in the background is dead when `run` returns, so the view stands still."""
        writer = "import os\nfd = os.open('grow', os.O_WRONLY | os.O_APPEND)\nwhile True: os.write(fd, b'x')"
        (session.merged / "grow").touch()
        (session.merged / "writer.py").write_text(writer)
        for _ in range(8):
            shell(session, "for i in 1 2 3 4; do setsid python3 -IS writer.py >/dev/null 2>&1 & done; sleep 0.1")
            size = (session.merged / "grow").stat().st_size
            assert size > 0
            time.sleep(0.02)
            assert (session.merged / "grow").stat().st_size == size
            os.truncate(session.merged / "grow", 0)

    def test_the_size_cap_holds(self, session: SandboxSession, workspace: Path) -> None:
        """A command that writes too much fails; the workspace does not change and removing makes room again."""
        before = snapshot(workspace)
        self.overfill(session, "for i in 1 2 3 4; do head -c 12000000 /dev/zero > big$i || exit 3; done")
        assert shell(session, "rm big*; echo ok > small").exit_code == 0
        assert snapshot(workspace) == before

    def test_the_inode_cap_holds(self, session: SandboxSession) -> None:
        """A thousand empty files too many fail, in temporary folders too; the next command still starts."""
        for place in ("/tmp", "/dev/shm", "."):
            self.overfill(session, f"i=0; while [ $i -lt 2000 ]; do : > {place}/f$i || exit 3; i=$((i+1)); done")
        assert shell(session, "rm f[0-9]*").exit_code == 0
        assert said(shell(session, "echo on")) == "on\n"

    def test_the_file_and_descriptor_limits_hold(self, session: SandboxSession) -> None:
        """One file can not grow beyond its limit, nor may more files be open than allowed."""
        assert shell(session, "head -c 20000000 /dev/zero > big").exit_code != 0
        assert (session.merged / "big").stat().st_size == LIMITS.max_file_bytes
        script = "import os; [os.open('/dev/null', 0) for _ in range(300)]"
        assert "Too many open files" in said(session.run(a_command("python3", "-c", script)))

    def test_names_are_bytes(self, session: SandboxSession) -> None:
        """Names with newlines, leading dashes, invalid UTF-8 and full length come through as they are."""
        script = "import os; [open(n, 'w').close() for n in (b'a\\nb', b'-rf', b'\\xff\\xfe', b'x' * 255)]"
        assert session.run(a_command("python3", "-c", script)).exit_code == 0
        assert {b"a\nb", b"-rf", b"\xff\xfe", b"x" * 255} <= {
            os.fsencode(entry.name) for entry in session.merged.iterdir()
        }

    def test_programs_are_found_as_inside(self, session: SandboxSession) -> None:
        """A program is looked for where the command would look; the workspace counts, the server's PATH does not."""
        (session.merged / "folder" / "tool").write_text("#!/bin/sh\necho ran\n")
        assert not session.find_program("./folder/tool")
        (session.merged / "folder" / "tool").chmod(0o755)
        assert session.find_program("./folder/tool")
        assert session.find_program("./tool", "folder")
        assert said(session.run(a_command("./tool", cwd="folder"))) == "ran\n"
        assert session.lookup_program("sh").inside in ("/usr/bin/dash", "/usr/bin/bash")
        assert not session.find_program("/etc/passwd")
        assert not session.find_program("")

    def test_a_hidden_program_names_the_folder_to_add(
        self, sandbox: Sandbox, request_: SessionRequest, tmp_path: Path
    ) -> None:
        """A program, link target or interpreter outside the view is named, with what to add; once added it runs."""
        version = tmp_path / "versions" / "1.0"
        (version / "bin").mkdir(parents=True)
        (version / "bin" / "real").write_text("#!/bin/sh\necho real\n")
        (version / "bin" / "real").chmod(0o755)
        env = tmp_path / "env"
        (env / "bin").mkdir(parents=True)
        (env / "bin" / "prog").symlink_to(version / "bin" / "real")
        (env / "bin" / "wrapped").write_text(f"#!{env}/bin/prog\n")
        (env / "bin" / "wrapped").chmod(0o755)
        with sandbox.open(request_) as session:
            lookup = session.lookup_program(f"{env}/bin/prog")
            assert not lookup.found
            assert str(env) in lookup.remedy
            assert str(version) in lookup.remedy
        half = SessionRequest(workspace=request_.workspace, workspace_id="w", limits=LIMITS, tools=(env,))
        with sandbox.open(half) as session:
            for name in ("prog", "wrapped"):
                lookup = session.lookup_program(name)
                assert not lookup.found
                assert str(version / "bin" / "real") in lookup.detail
                assert str(version) in lookup.remedy
                with pytest.raises(SandboxRefusedError):
                    session.run(a_command(name))
        whole = SessionRequest(workspace=request_.workspace, workspace_id="w", limits=LIMITS, tools=(env, version))
        with sandbox.open(whole) as session:
            assert said(session.run(a_command("prog"))) == "real\n"
            assert shell(session, f"echo x > {env}/bin/new").exit_code != 0

    def test_sessions_are_independent(self, sandbox: Sandbox, request_: SessionRequest) -> None:
        """Several sessions on one workspace, from several threads, do not see each other."""
        seen: list[str] = []

        def work(number: int) -> None:
            with sandbox.open(request_) as session:
                shell(session, f"echo {number} > mine")
                seen.append(said(shell(session, "cat mine")))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == ["0\n", "1\n", "2\n", "3\n"]

    def test_closing_ends_a_running_command(self, sandbox: Sandbox, request_: SessionRequest) -> None:
        """Closing from another thread ends the command at once; later use is refused, a second close is nothing."""
        session = sandbox.open(request_)
        failures: list[Exception] = []

        def work() -> None:
            try:
                shell(session, "sleep 61.9")
            except SandboxUnavailableError as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert eventually(lambda: bool(alive("61.9")), 5)
        session.close()
        thread.join(2)
        assert not thread.is_alive()
        assert len(failures) == 1
        assert not alive("61.9")
        session.close()
        with pytest.raises(SandboxUnavailableError):
            shell(session, "true")

    def test_an_unusable_workspace_is_refused(self, sandbox: Sandbox, workspace: Path, tmp_path: Path) -> None:
        """Links, files, system directories and what is not there are no workspace; hidden paths stay inside."""
        (tmp_path / "link").symlink_to(workspace)
        bad = (tmp_path / "link", workspace / "file", tmp_path / "none", Path("/"), Path("/usr/lib"), Path("relative"))
        for place in bad:
            with pytest.raises(SandboxRefusedError):
                sandbox.open(SessionRequest(workspace=place, workspace_id="w", limits=LIMITS))
        for extra in ({"hidden": (b"../x",)}, {"tools": (Path("/"),)}, {"tools": (tmp_path / "none",)}):
            with pytest.raises(SandboxRefusedError):
                sandbox.open(SessionRequest(workspace=workspace, workspace_id="w", limits=LIMITS, **extra))
