"""What a step's action names: the paths it is about, and how a person reads its target."""

from typing import Final

from executor.domain.plan import (
    Action,
    CallTool,
    FetchUrl,
    HttpRequest,
    ListDirectory,
    MovePath,
    RunCommand,
    RunLive,
    RunSql,
    RunTests,
    SearchBodies,
    SearchFiles,
    UndoStep,
)
from gonogo.safe_text import shown_argv

MAX_SHOWN: Final = 200


def action_paths(action: Action) -> tuple[str, ...]:
    """Return the paths that a scope must hold; those of a command or an undone step are known only afterwards."""
    match action:
        case RunCommand() | RunTests() | UndoStep() | SearchBodies():
            return ()
        case FetchUrl() | HttpRequest() | RunLive() | CallTool() | RunSql():
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
        case RunCommand(cwd=cwd) | RunLive(cwd=cwd):
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
        case RunCommand(argv=argv) | RunTests(argv=argv) | RunLive(argv=argv):
            return shown_argv(argv)
        case MovePath(path=path, to=to):
            return f"{path} to {to}"
        case UndoStep(mission_id=mission_id, step_id=step_id):
            return f"{step_id} of {mission_id}"
        case SearchFiles(path=path, pattern=pattern):
            return f"{pattern!r} in {path}"
        case SearchBodies() | FetchUrl() | HttpRequest() | CallTool() | RunSql():
            return _shortened(_far_target(action))
        case _:
            return action.path


def _far_target(action: SearchBodies | FetchUrl | HttpRequest | CallTool | RunSql) -> str:
    """Return what is acted on outside of the workspace, in the same words as the plan's own list of steps."""
    match action:
        case SearchBodies(query=query):
            return query
        case FetchUrl(url=url):
            return url
        case HttpRequest(method=method, url=url):
            return f"{method} {url}"
        case CallTool(tool=tool, server=server):
            return f"{tool} of {server}"
        case RunSql(database=database, statement=statement):
            return f"{database}: {statement}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
