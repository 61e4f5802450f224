"""Plans from the contract into the domain. Paths stay text here; the steps read them as names in the workspace."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from executor.adapters.wire_enums import (
    EXPECTATIONS,
    FAILURE_POLICIES,
    LADDER,
    NETWORKS,
    PAUSE_DEFAULTS,
    STAGES,
)
from executor.adapters.wire_live import OUTSIDE, compensation_from_proto
from executor.adapters.wire_texts import invalid, mode_from_text, number_from_text, time_from_proto
from executor.domain.plan import (
    Action,
    AppendText,
    Compensation,
    CreateDirectory,
    CreateFile,
    DeletePath,
    ListDirectory,
    MovePath,
    NetworkAccess,
    PatchFile,
    PauseRules,
    Plan,
    ReadFile,
    ReplaceText,
    RunCommand,
    RunTests,
    Scope,
    SearchFiles,
    SetMode,
    Step,
    TestExpectation,
    UndoStep,
    WriteFile,
)
from gonogo.v1 import plan_pb2

# The defaults that the contract documents.
FILE_MODE, DIRECTORY_MODE = "0644", "0755"
MAX_PAGES, MAX_SECONDS = 1, 30


def plan_from_proto(message: plan_pb2.Plan) -> Plan:
    """Map a plan; raises RequestMalformedError where a value has no meaning."""
    return Plan(
        plan_id=message.plan_id,
        mission_id=message.mission_id,
        intent_id=message.intent_id,
        message_id=message.message_id,
        transcription_id=message.transcription_id,
        objective=message.objective,
        workspace_id=message.workspace_id,
        executor_id=message.executor_id,
        proposer=message.proposer,
        created_at=time_from_proto(message, "created_at"),
        scope=_scope(message.scope),
        failure_policy=FAILURE_POLICIES.from_wire(message.failure_policy),
        steps=tuple(_step(step) for step in message.steps),
        pause=_pause(message.pause),
        segment=message.segment,
        execution_id=message.execution_id,
        journal_digest=message.journal_digest,
    )


def _pause(message: plan_pb2.PauseRules) -> PauseRules:
    """Map how long pauses wait; what a plan leaves open is as the contract says, in those of an older release all."""
    known = PauseRules()
    unset = message.default_action == plan_pb2.PAUSE_DEFAULT_UNSPECIFIED
    return PauseRules(
        deadline_seconds=message.deadline_seconds or known.deadline_seconds,
        default_action=known.default_action if unset else PAUSE_DEFAULTS.from_wire(message.default_action),
        step_approval_seconds=message.step_approval_seconds or known.step_approval_seconds,
    )


def _scope(message: plan_pb2.Scope) -> Scope:
    unset = message.network == plan_pb2.NETWORK_ACCESS_UNSPECIFIED
    return Scope(
        paths=tuple(message.paths),
        domains=tuple(message.domains),
        network=NetworkAccess.NONE if unset else NETWORKS.from_wire(message.network),
        max_pages=message.max_pages or MAX_PAGES,
        max_duration_seconds=message.max_duration_seconds or MAX_SECONDS,
        max_bytes=number_from_text(message.max_bytes, "max_bytes") if message.max_bytes else None,
        min_ladder_level=LADDER.from_wire(message.min_ladder_level) if message.min_ladder_level else None,
    )


def _step(message: plan_pb2.Step) -> Step:
    kind = message.WhichOneof("action")
    if kind is None:
        raise invalid(f"step {message.step_id[:80]!r} has no action", "name one of the kinds of the contract")
    return Step(
        step_id=message.step_id,
        description=message.description,
        stage=STAGES.from_wire(message.stage),
        action=ACTIONS[kind](getattr(message, kind)),
        needs_approval=message.needs_approval,
        compensation=_compensation(message),
    )


def _compensation(message: plan_pb2.Step) -> Compensation | None:
    present = message.HasField("compensation")
    return compensation_from_proto(message.compensation, message.step_id) if present else None


def _content(message: plan_pb2.CreateFile | plan_pb2.WriteFile) -> bytes:
    match message.WhichOneof("body"):
        case "content":
            return message.content.encode()
        case "data":
            return message.data
        case None:
            raise invalid("a file step has no content", "set content or data; an empty text is a content too")


def _read_file(message: plan_pb2.ReadFile) -> Action:
    return ReadFile(path=message.path)


def _list_directory(message: plan_pb2.ListDirectory) -> Action:
    return ListDirectory(path=message.path)


def _search_files(message: plan_pb2.SearchFiles) -> Action:
    return SearchFiles(pattern=message.pattern, path=message.path, literal=message.literal)


def _create_file(message: plan_pb2.CreateFile) -> Action:
    return CreateFile(path=message.path, content=_content(message), mode=mode_from_text(message.mode or FILE_MODE))


def _create_directory(message: plan_pb2.CreateDirectory) -> Action:
    return CreateDirectory(path=message.path, mode=mode_from_text(message.mode or DIRECTORY_MODE))


def _write_file(message: plan_pb2.WriteFile) -> Action:
    mode = mode_from_text(message.mode) if message.mode else None
    return WriteFile(path=message.path, content=_content(message), mode=mode)


def _patch_file(message: plan_pb2.PatchFile) -> Action:
    return PatchFile(path=message.path, patch=message.patch)


def _replace_text(message: plan_pb2.ReplaceText) -> Action:
    return ReplaceText(path=message.path, old=message.old, new=message.new, expected_count=message.expected_count)


def _append_text(message: plan_pb2.AppendText) -> Action:
    return AppendText(path=message.path, content=message.content)


def _move_path(message: plan_pb2.MovePath) -> Action:
    return MovePath(path=message.path, to=message.to)


def _delete_path(message: plan_pb2.DeletePath) -> Action:
    return DeletePath(path=message.path, recursive=message.recursive)


def _set_mode(message: plan_pb2.SetMode) -> Action:
    return SetMode(path=message.path, mode=mode_from_text(message.mode))


def _run_command(message: plan_pb2.RunCommand) -> Action:
    return RunCommand(
        argv=tuple(message.argv),
        cwd=message.cwd,
        env=dict(message.env),
        success_codes=tuple(message.success_codes) or (0,),
    )


def _run_tests(message: plan_pb2.RunTests) -> Action:
    unset = message.expect == plan_pb2.TEST_EXPECTATION_UNSPECIFIED
    return RunTests(
        argv=tuple(message.argv),
        junit=message.junit,
        cwd=message.cwd,
        env=dict(message.env),
        expect=TestExpectation.PASS if unset else EXPECTATIONS.from_wire(message.expect),
    )


def _undo_step(message: plan_pb2.UndoStep) -> Action:
    return UndoStep(mission_id=message.mission_id, step_id=message.step_id)


ACTIONS: Final[Mapping[str, Callable[[Any], Action]]] = {
    "read_file": _read_file,
    "list_directory": _list_directory,
    "search_files": _search_files,
    "create_file": _create_file,
    "create_directory": _create_directory,
    "write_file": _write_file,
    "patch_file": _patch_file,
    "replace_text": _replace_text,
    "append_text": _append_text,
    "move_path": _move_path,
    "delete_path": _delete_path,
    "set_mode": _set_mode,
    "run_command": _run_command,
    "run_tests": _run_tests,
    "undo_step": _undo_step,
    **OUTSIDE,
}
