"""Starts programs that keep running: on record first, then started, then ready or ended again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from executor.domain.errors import ExecutorError, Fault
from executor.domain.plan import ReadinessCheck, RunLive
from executor.domain.receipt import EffectState
from executor.domain.redaction import Secret
from executor.outside.answers import told
from executor.outside.far_sides import not_done, unknown
from executor.outside.processes import GRACE_SECONDS, LOG_BYTES, ProcessStore, Record
from executor.outside.program_launch import Launch
from executor.outside.readiness import Output, PortTakenError, Readiness
from executor.outside.supervised import Job, ProgramNotStartedError, Supervised, SupervisorGoneError
from executor.runner.outside import Performed, Setting
from gonogo.safe_text import excerpt, shown_argv

_SHOWN: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A program that is to keep running."""

    action: RunLive
    check: ReadinessCheck
    setting: Setting
    launch: Launch
    key: str
    secrets: Mapping[str, Secret]

    @property
    def shown(self) -> str:
        """The program in words."""
        return excerpt(shown_argv(self.action.argv), _SHOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Starts programs and puts them on record."""

    processes: ProcessStore

    def start(self, wanted: Wanted) -> Performed:
        """Start a program and leave it running once it is ready."""
        known = self.processes.running(wanted.key)
        if known is not None:
            return not_done(_fault("STATE_FORBIDS", f"it runs already, as {known.process_id}", "stop that one first"))
        try:
            ready = Readiness(wanted.check, in_sandbox=wanted.launch.waits)
        except PortTakenError as error:
            return not_done(_fault("NOT_READY", str(error), "end what listens there, or name another port"))
        record = self.processes.enter(_record(wanted))
        try:
            supervised = Supervised(self._job(wanted, record))
        except ExecutorError:
            self.processes.remove(record.process_id)
            raise
        with supervised as starting:
            try:
                who = starting.introduce()
            except SupervisorGoneError as error:
                self.processes.remove(record.process_id)
                return not_done(not_started(wanted.shown, str(error)))
            record = replace(record, pid=who.pid, start=who.start, boot=who.boot)
            self.processes.keep(record)  # before anything of the program starts
            try:
                return self._begin(wanted, record, starting, ready)
            except BaseException:
                starting.kill()
                self.processes.end(record)
                raise

    def _begin(self, wanted: Wanted, record: Record, starting: Supervised, ready: Readiness) -> Performed:
        def serve(inner: int) -> None:
            nonlocal record
            record = replace(record, inner=inner)
            self.processes.keep(record)
            self.processes.serve(record)

        try:
            reached = starting.go(serve)
        except ProgramNotStartedError as error:
            self.processes.remove(record.process_id)
            return not_done(not_started(wanted.shown, str(error)))
        except SupervisorGoneError as error:
            starting.kill()
            self.processes.end(record)
            return unknown(f"{wanted.shown}: {error}")
        output = Output(self.processes.log_of(record.process_id), wanted.setting)
        if not reached:
            self.processes.end(record)
            output.look()
            return not_done(not_started(wanted.shown, _end_of(output)))
        for last in ready.looks():
            why = self._why_not(record, wanted.setting, output)
            if why or ready.holds(inner=record.inner, said=starting.said_ready, last=last):
                break
        else:
            why = "was not ready in time"
        return self._judged(wanted, record, output, why)

    def _why_not(self, record: Record, setting: Setting, output: Output) -> str:
        """Return why it will not become ready; empty where it may."""
        running = record.runs
        output.look()
        if not running:
            return f"{self.processes.ending(record)} before it was ready"
        return "was stopped before it was ready" if setting.cancel.requested else ""

    def _judged(self, wanted: Wanted, record: Record, output: Output, why: str) -> Performed:
        answer, whole = told(bytes(output.text), wanted.setting.redactor)
        if not why:
            summary = f"{wanted.shown} runs as {record.process_id}"
            return Performed(state=EffectState.DONE, summary=summary, answer=answer, answer_digest=whole)
        self.processes.end(record)
        message = f"{wanted.shown} {why}{_end_of(output)}"
        if wanted.setting.cancel.requested:
            return unknown(message)
        remedy = "let it stay in the foreground and become ready in time, or correct its check"
        return Performed(
            state=EffectState.DONE,
            summary=message,
            answer=answer,
            answer_digest=whole,
            fault=_fault("NOT_READY", message, remedy),
        )

    def _job(self, wanted: Wanted, record: Record) -> Job:
        return job(
            wanted.launch,
            log=str(self.processes.log_of(record.process_id)),
            ended=str(self.processes.ended_of(record.process_id)),
            secrets=wanted.secrets,
            ready_text=wanted.check.output,
        )


def job(
    launch: Launch,
    *,
    log: str = "",
    ended: str = "",
    secrets: Mapping[str, Secret] | None = None,
    ready_text: str = "",
) -> Job:
    """Return what a supervisor is told of a launch."""
    return Job(
        argv=launch.argv,
        env=launch.env,
        cwd=launch.cwd,
        launcher=launch.launcher,
        waits=launch.waits,
        descriptors=launch.descriptors,
        limits=launch.limits,
        grace=GRACE_SECONDS,
        log=log,
        log_bytes=LOG_BYTES,
        ended=ended,
        secrets={secret.name: secret.value.hex() for secret in (secrets or {}).values()},
        ready_text=ready_text,
    )


def not_started(shown: str, why: str) -> Fault:
    """Return why nothing of a program has begun."""
    return _fault("EFFECT_FAILED", f"{shown} could not be started: {why}", "correct the program, or its directory")


def _record(wanted: Wanted) -> Record:
    return Record(
        process_id="",
        key=wanted.key,
        mission_id=wanted.setting.plan.mission_id,
        step_id=wanted.setting.step_id,
        workspace_id=wanted.setting.workspace.workspace_id,
        command=wanted.setting.redactor.text(wanted.shown),
        started_at=datetime.now(UTC).isoformat(),
        domains=wanted.setting.plan.scope.domains if wanted.launch.waits else (),
    )


def _end_of(output: Output) -> str:
    text = bytes(output.text[-_SHOWN:]).decode("utf-8", "replace").strip()
    return f"; it said: {excerpt(text, _SHOWN)}" if text else ""


def _fault(reason: str, message: str, remedy: str) -> Fault:
    return Fault(reason=reason, message=message, remedy=remedy)
