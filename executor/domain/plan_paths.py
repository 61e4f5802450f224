"""What a step's action names: the paths it is about, and how a person reads its target."""

from executor.domain.plan import (
    Action,
    ListDirectory,
    MovePath,
    RunCommand,
    RunTests,
    SearchFiles,
    UndoStep,
)
from gonogo.safe_text import shown_argv


def action_paths(action: Action) -> tuple[str, ...]:
    """Return the paths that a scope must hold; those of a command or an undone step are known only afterwards."""
    match action:
        case RunCommand() | RunTests() | UndoStep():
            return ()
        case MovePath(path=path, to=to):
            return (path, to)
        case ListDirectory(path="."):
            return ()  # the names at the top are what a person reads a scope against
        case _:
            return (action.path,)


def named_paths(action: Action) -> tuple[str, ...]:
    """Return every path that an action names, those that are free of the scope included."""
    match action:
        case RunCommand(cwd=cwd):
            return (cwd,) if cwd else ()
        case RunTests(cwd=cwd, junit=junit):
            return tuple(path for path in (cwd, junit) if path)
        case ListDirectory(path=path):
            return (path,)
        case _:
            return action_paths(action)


def target_of(action: Action) -> str:
    """Return what an action acts on, in words."""
    match action:
        case RunCommand(argv=argv) | RunTests(argv=argv):
            return shown_argv(argv)
        case MovePath(path=path, to=to):
            return f"{path} to {to}"
        case UndoStep(mission_id=mission_id, step_id=step_id):
            return f"{step_id} of {mission_id}"
        case SearchFiles(path=path, pattern=pattern):
            return f"{pattern!r} in {path}"
        case _:
            return action.path
