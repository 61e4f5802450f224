"""Live programs: `run_live`. Nothing of one is simulated; it is run once, after approval, and never again.

A program that was not begun has had no effect. One that has ended has had whatever effect it has, and its exit code
says whether it is well. One that was ended, by its time limit or by somebody's wish, may have done anything.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from executor.domain.errors import Fault, StepBlockedError
from executor.domain.plan import LiveAccess, NetworkAccess, RunLive
from executor.domain.policy import Trust
from executor.domain.receipt import EffectState
from executor.domain.redaction import Secret
from executor.domain.report import Excerpt, LiveEvidence
from executor.outside.answers import EXCERPT_BYTES
from executor.outside.command_gates import Doors
from executor.outside.far_sides import not_done, unknown
from executor.outside.keeping import Keeper, Wanted, job, not_started
from executor.outside.processes import ProcessStore, ending_words
from executor.outside.program_launch import Bwrap, Ground, Launch, in_sandbox, lookup_in_sandbox, on_host, variables
from executor.outside.supervised import ProgramEnd, ProgramNotStartedError, Supervised, SupervisorGoneError
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.secrets import environment_of
from executor.sandbox.gateway import listener_of
from executor.sandbox.output import StreamCapture
from executor.sandbox.requests import check_relative
from executor.sandbox.sandbox import CapturedOutput
from executor.workspace.manifest import ManifestWalk
from gonogo.digests import digest
from gonogo.safe_text import excerpt, shown_argv
from gonogo.secret_shapes import REFERENCE

KEPT_BYTES: Final = 1 << 20
HARD_BYTES: Final = 256 << 20
SHOWN_END: Final = 600
NOT_SIMULATED: Final = {
    LiveAccess.NETWORK: (
        "a program that runs for real, once, after approval: in the sandbox, the workspace read-only to it, its only "
        "network the listed domains"
    ),
    LiveAccess.HOST: (
        "a program that runs for real, once, after approval: on the executor's machine, as its user; the workspace is "
        "read-only to it and the executor's state is covered"
    ),
}
UNCONFINED: Final = (
    "a program that runs for real, once, after approval: on the executor's machine, as its user; there is no "
    "bubblewrap here, so that nothing keeps it from the workspace and the executor's state"
)

_LOADED: Final = frozenset({"LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD"})
"""Heard by the shell too, which says that the program begins; it must be the machine's own until it has said so."""

SecretOf = Callable[[str, str], Secret]
"""Returns the secret that a workspace's step refers to; raises ExecutorError where there is none for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The port `executor.outside.far_sides.LiveHandler` for `run_live`."""

    trust: Callable[[], Trust]
    secret: SecretOf
    bwrap: Bwrap | None
    doors: Doors
    processes: ProcessStore

    def declare(self, action: RunLive, setting: Setting) -> Declared:
        """Check the program against scope and trust file, and say how it will run; nothing is started."""
        self._check_access(action, setting)
        self._secrets(action, setting)
        if "/" not in action.argv[0]:  # a path may be what an earlier step is to make
            self._check_program(action, setting)
        why = NOT_SIMULATED[action.access] if self.bwrap or action.access is LiveAccess.NETWORK else UNCONFINED
        why = f"{why}; it keeps running" if action.keep_running else why
        whole = digest(self._described(action, setting))
        return Declared(
            evidence=LiveEvidence(target=shown_argv(action.argv), digest=whole, not_simulated=why),
            not_simulated=why,
            digest=whole,
        )

    def perform(self, action: RunLive, expected: Declared, setting: Setting, key: str) -> Performed:
        """Run it, once."""
        if self.declare(action, setting).digest != expected.digest:
            return not_done(
                Fault(
                    reason="DIVERGED",
                    message="the program would not run as the report says",
                    remedy="what confines programs here has changed: give a repair plan, gonogo repair MISSION -f FILE",
                )
            )
        self._check_program(action, setting)
        if setting.cancel.requested:
            return not_done(Fault(reason="STOPPED", message="it was stopped before it began", remedy="resume it"))
        with ExitStack() as held:
            launch = self._launch(action, setting, held)
            if action.keep_running is None:
                return self._run(action, setting, launch, held)
            secrets = self._secrets(action, setting)
            return Keeper(processes=self.processes).start(
                Wanted(
                    action=action,
                    check=action.keep_running,
                    setting=setting,
                    launch=launch,
                    key=key,
                    secrets=secrets,
                )
            )

    def _run(self, action: RunLive, setting: Setting, launch: Launch, held: ExitStack) -> Performed:
        """Run a program to its end."""
        until = time.monotonic() + setting.plan.scope.max_duration_seconds
        captures = {name: StreamCapture(keep=KEPT_BYTES, redactor=setting.redactor) for name in ("stdout", "stderr")}
        proxy = self.doors.proxy(setting.plan.scope) if launch.waits else None

        def serve(inner: int) -> None:
            if proxy is not None:
                held.enter_context(proxy.serve(listener_of(inner)))

        running = held.enter_context(Supervised(job(launch), setting.on_output))
        began = False
        try:
            running.introduce()
            held.enter_context(setting.cancel.calling(running.kill))
            began = True  # from here on only what it says makes sure
            began = running.go(serve)
            ending, why = running.wait(until, captures, HARD_BYTES)
        except ProgramNotStartedError as error:
            return not_done(not_started(_shown(action), str(error)))
        except SupervisorGoneError as error:
            return unknown(f"{_shown(action)}: {error}") if began else not_done(not_started(_shown(action), str(error)))
        for line in () if proxy is None else proxy.diary.lines():
            setting.on_output("stderr", f"[network] {line}\n".encode())
        why = "it was stopped" if setting.cancel.requested else why
        return _performed(action, ending, why, {name: one.result() for name, one in captures.items()})

    def _launch(self, action: RunLive, setting: Setting, held: ExitStack) -> Launch:
        root = setting.workspace.root
        env = {**variables(action), **action.env}
        for name, secret in self._secrets(action, setting).items():
            env.update({os.fsdecode(key): os.fsdecode(value) for key, value in environment_of(name, secret).items()})
        files = tuple(one.file for one in self.trust().secrets if one.file)
        if action.access is LiveAccess.NETWORK and self.bwrap is not None:
            ground = Ground(workspace=root, hidden=_hidden(setting), secret_files=files)
            return in_sandbox(self.bwrap, ground, action, env, held)
        return on_host(self.bwrap, Ground(workspace=root, secret_files=files), action, env, held)

    def _secrets(self, action: RunLive, setting: Setting) -> Mapping[str, Secret]:
        """Return the secrets that the plan's variables name, by variable."""
        workspace_id = setting.workspace.workspace_id
        return {
            name: self.secret(workspace_id, value) for name, value in action.env.items() if value.startswith(REFERENCE)
        }

    def _check_access(self, action: RunLive, setting: Setting) -> None:
        workspace_id, access = setting.workspace.workspace_id, action.access.value
        check_relative(os.fsencode(action.cwd), what="working directory")
        if not action.argv or not action.argv[0] or action.argv[0].startswith("-"):
            raise StepBlockedError("PLAN_INVALID", "the step names no program", "put the program first in argv")
        loaded = [name for name in action.env if name in _LOADED]
        if loaded:
            raise StepBlockedError(
                "PLAN_INVALID",
                f"the variable {loaded[0]} has code loaded before the program begins, so that nobody could tell "
                "whether it began",
                f'start the program by env: argv ["env", "{loaded[0]}=…", …]',
            )
        trust = self.trust()
        if access not in trust.live_access.get(workspace_id, ()):
            raise StepBlockedError(
                "NETWORK_REFUSED",
                f"the trust file lets no program of workspace {workspace_id!r} reach the {access}",
                f'have the executor\'s operator write live_access = ["{access}"] into [workspaces.{workspace_id}]',
            )
        if action.access is LiveAccess.HOST:
            return
        if self.bwrap is None:
            raise StepBlockedError(
                "UNSUPPORTED",
                "this executor can not confine a program with a network: there is no working bubblewrap",
                "run gonogo doctor on the executor's host; it says what is missing",
            )
        scope = setting.plan.scope
        if scope.network is not NetworkAccess.LISTED_DOMAINS or not (scope.domains and trust.domains):
            raise StepBlockedError(
                "NETWORK_REFUSED",
                "the program is to reach a network, and scope and trust file do not both list domains",
                "name the hosts in scope.domains, and have the operator name them in the trust file's domains",
            )

    def _check_program(self, action: RunLive, setting: Setting) -> None:
        """Refuse a program or a directory that is not there, before anything is on record."""
        root = setting.workspace.root
        if action.access is LiveAccess.NETWORK and self.bwrap is not None:
            program = lookup_in_sandbox(self.bwrap, root, action)
            if not program.found:
                raise StepBlockedError("PROGRAM_HIDDEN", program.detail, program.remedy)
        elif not _which(action, root):
            raise StepBlockedError(
                "PROGRAM_HIDDEN",
                f"there is no program {excerpt(action.argv[0], 200)!r} on the executor's machine",
                "install it, or name one that is there",
            )
        if not (root / action.cwd).is_dir():
            raise StepBlockedError("PATH_INVALID", f"there is no directory {action.cwd!r} to run in", "correct cwd")

    def _described(self, action: RunLive, setting: Setting) -> bytes:
        """Write down everything that decides what runs, secrets by reference."""
        ready = action.keep_running
        value = {
            "argv": list(action.argv),
            "cwd": action.cwd,
            "env": dict(action.env),
            "success_codes": list(action.success_codes),
            "access": action.access.value,
            "domains": sorted(setting.plan.scope.domains) if action.access is LiveAccess.NETWORK else [],
            "confined": self.bwrap is not None,
            "keep_running": None if ready is None else [ready.port, ready.output, ready.seconds],
        }
        return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode("ascii")


def _hidden(setting: Setting) -> tuple[bytes, ...]:
    """Return what the operator's policy hides in the workspace as it is now."""
    workspace = setting.workspace
    with ManifestWalk(workspace.open(), volatile=workspace.volatile, hidden=workspace.hidden) as walk:
        return tuple(sorted(walk.finish().hidden))


def _which(action: RunLive, root: Path) -> bool:
    if "/" in action.argv[0]:
        place = root / action.cwd / action.argv[0]
        return place.is_file() and os.access(place, os.X_OK)
    path = action.env.get("PATH") or variables(action)["PATH"]
    return shutil.which(action.argv[0], path=path) is not None


def _performed(
    action: RunLive, ending: ProgramEnd | None, why: str, printed: Mapping[str, CapturedOutput]
) -> Performed:
    """Judge how a program ended.

    Args:
        action: the program.
        ending: how it ended, where its supervisor lived to tell.
        why: why it was ended, empty where it was not.
        printed: its two streams.
    """
    if ending is not None and not ending.began:
        return not_done(not_started(_shown(action), _said(printed) or "no answer"))
    if ending is not None and not ending.all_ended:
        why = why or "something that it started does not end"
    if ending is None or why:
        return unknown(f"{_shown(action)}: {why or 'nobody saw how it ended'}{_said(printed)}")
    ended = f"{_shown(action)} {ending_words({'began': True, 'code': ending.code, 'signal': ending.signal})}"
    answer, fault = _excerpt(printed["stdout"]), None
    if ending.signal or ending.code not in (action.success_codes or (0,)):
        ended = f"{ended}{_said(printed)}"
        remedy = "see what it did, which stands; then repair, or name the exit code in success_codes"
        fault = Fault(reason="EFFECT_FAILED", message=ended, remedy=remedy)
    return Performed(
        state=EffectState.DONE, summary=ended, answer=answer, answer_digest=printed["stdout"].digest, fault=fault
    )


def _excerpt(output: CapturedOutput) -> Excerpt:
    kept = output.head if output.truncated else output.head + output.tail
    head, tail = (kept, b"") if not output.truncated and len(kept) <= EXCERPT_BYTES else _ends(kept, output)
    return Excerpt(
        head=head.decode("utf-8", "replace"),
        tail=tail.decode("utf-8", "replace"),
        total_bytes=output.total,
        digest=output.digest,
        truncated=bool(tail),
    )


def _ends(kept: bytes, output: CapturedOutput) -> tuple[bytes, bytes]:
    end = output.tail if output.truncated else kept
    return kept[: EXCERPT_BYTES // 2], end[-EXCERPT_BYTES // 2 :]


def _said(printed: Mapping[str, CapturedOutput]) -> str:
    """Return the end of what a program said, which is where the cause usually stands."""
    for name in ("stderr", "stdout"):
        text = (printed[name].tail or printed[name].head).decode("utf-8", "replace").strip()
        if text:
            return f"; it said: {excerpt(text[-SHOWN_END:], SHOWN_END)}"
    return ""


def _shown(action: RunLive) -> str:
    return excerpt(shown_argv(action.argv), SHOWN_END)
