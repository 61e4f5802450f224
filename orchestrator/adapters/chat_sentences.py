"""What each sentence of the chat grammar means: one method for each rule of `chat_grammar.lark`."""

import re
import shlex
from collections.abc import Iterable, Mapping

from lark import Token, Transformer

from gonogo.safe_text import shown_argv
from orchestrator.adapters.chat_scanner import Refused, hides, shown
from orchestrator.domain.intent import (
    DESCRIPTIONS,
    Control,
    Feedback,
    Question,
    StepDraft,
    StepValue,
    UnclearReason,
    normal_path,
    path_fault,
)

Steps = tuple[StepDraft, ...]
Words = list[str]

_MODE = re.compile(r"0?[0-7]{3}")
_MISSION = re.compile(r"[A-Za-z0-9-]{1,128}")
_MISSION_ID = re.compile(r"m-[a-z0-9]+")
_JUNIT_OPTION = re.compile(r"--junit-?xml(?:=(?P<path>.+))?", re.DOTALL)
_NEXT_SENTENCE = re.compile(r"[,;]\s*(?:and\s+)?then\b", re.IGNORECASE)


class SentenceMeanings(Transformer[Token, object]):
    """Called by the parser with the words, quoted texts and raw tails of one sentence, keywords left out.

    Args:
        tests_argv: what "run the tests" runs.
        tests_junit: the JUnit XML file that it writes, or None.
    """

    def __init__(self, *, tests_argv: tuple[str, ...], tests_junit: str | None) -> None:
        super().__init__()
        self._tests = _tests_step(tests_argv, tests_junit)

    def name(self, words: Words) -> str:
        return words[0]

    def text(self, words: Words) -> str:
        return words[0]

    def create_file(self, words: Words) -> Steps:
        return _step("create_file", path=_path(words[0]), content=str(words[1]))

    def create_empty(self, words: Words) -> Steps:
        return _step("create_file", path=_path(words[0]), content="")

    def write_file(self, words: Words) -> Steps:
        return _step("write_file", path=_path(words[1]), content=str(words[0]))

    def write_file_after(self, words: Words) -> Steps:
        return _step("write_file", path=_path(words[0]), content=str(words[1]))

    def append_text(self, words: Words) -> Steps:
        return _appended(words[1], words[0])

    def append_text_after(self, words: Words) -> Steps:
        return _appended(words[0], words[1])

    def replace_text(self, words: Words) -> Steps:
        return _replaced(words[0], words[1], words[2:])

    def located_replace(self, words: Words) -> Steps:
        return _replaced(words[-2], words[-1], words[:-2])

    def delete_path(self, words: Words) -> Steps:
        return _each("delete_path", words)

    def delete_tree(self, words: Words) -> Steps:
        return _each("delete_path", words, recursive=True)

    def move_path(self, words: Words) -> Steps:
        return _step("move_path", path=_path(words[0]), to=_path(words[1]))

    def create_directory(self, words: Words) -> Steps:
        return _step("create_directory", path=_path(words[0]))

    def make_executable(self, words: Words) -> Steps:
        return _step("set_mode", path=_path(words[0]), mode="0755")

    def set_mode(self, words: Words) -> Steps:
        if not _MODE.fullmatch(words[1]):
            message = f"'{shown(words[1])}' is not a mode. Write three octal digits, such as 0644 or 0755."
            raise Refused(UnclearReason.INVALID_MODE, message)
        return _step("set_mode", path=_path(words[0]), mode=words[1].zfill(4))

    def read_file(self, words: Words) -> Steps | Question:
        if isinstance(words[0], Token) and words[0].type == "NAME" and _MISSION_ID.fullmatch(words[0]):
            return Question(kind="status", mission_ref=str(words[0]))
        return _step("read_file", path=_path(words[0]))

    def list_directory(self, words: Words) -> Steps:
        return _step("list_directory", path=_place(words[0]))

    def search_files(self, words: Words) -> Steps:
        return _searched(words[0], words[1:])

    def located_search(self, words: Words) -> Steps:
        return _searched(words[-1], words[:-1])

    def run_command(self, words: Words) -> Steps:
        return _step("run_command", argv=_argv(words[0]))

    def run_tests(self, _words: Words) -> Steps:
        return self._tests

    def run_tests_with(self, words: Words) -> Steps:
        argv = _argv(words[0])
        junit = _junit_path(argv)
        return _tests_step(argv, junit if junit is None else _path(junit))

    def status(self, words: Words) -> Question:
        return Question(kind="status", mission_ref=_mission(words))

    def missions(self, _words: Words) -> Question:
        return Question(kind="list")

    def waiting(self, _words: Words) -> Question:
        return Question(kind="waiting")

    def result(self, words: Words) -> Question:
        return Question(kind="result", mission_ref=_mission(words))

    def help(self, _words: Words) -> Question:
        return Question(kind="help")

    def cancel(self, words: Words) -> Control:
        return Control(verb="cancel", mission_ref=_mission(words), reason=_reason(words[1:]))

    def reject(self, words: Words) -> Control:
        return Control(verb="reject", mission_ref=_mission(words), reason=_reason(words[1:]))

    def approve(self, words: Words) -> Control:
        return Control(verb="approve", mission_ref=_mission(words))

    def execute(self, words: Words) -> Control:
        return Control(verb="execute", mission_ref=_mission(words))

    def pause(self, words: Words) -> Control:
        return Control(verb="pause", mission_ref=_mission(words), reason=_reason(words[1:]))

    def resume(self, words: Words) -> Control:
        return Control(verb="resume", mission_ref=_mission(words))

    def retry(self, words: Words) -> Control:
        return Control(verb="retry", mission_ref=_mission(words))

    def stop(self, words: Words) -> Control:
        return Control(verb="stop", mission_ref=_mission(words), reason=_reason(words[1:]))

    def stop_and_undo(self, words: Words) -> Control:
        return Control(verb="stop", mission_ref=_mission(words), reason=_reason(words[1:]), roll_back=True)

    def feedback(self, words: Words) -> Feedback:
        return Feedback(text=str(words[-1]), mission_ref=_mission(words[:-1]))

    def rated(self, words: Words) -> Feedback:
        return Feedback(text=str(words[-1]), rating=str(words[0]).lower())


def _step(kind: str, **fields: StepValue) -> Steps:
    return (StepDraft(kind=kind, fields=fields, description=_described(kind, fields)),)


def _each(kind: str, paths: Iterable[str], **fields: StepValue) -> Steps:
    return tuple(step for path in paths for step in _step(kind, path=_path(path), **fields))


def _appended(path: str, content: str) -> Steps:
    return _step("append_text", path=_path(path), content=_some(content, "append"))


def _replaced(old: str, new: str, paths: Iterable[str]) -> Steps:
    return _each("replace_text", paths, old=_some(old, "replace"), new=str(new))


def _searched(pattern: str, paths: Iterable[str]) -> Steps:
    found = _some(pattern, "search for")
    return tuple(
        step for path in paths for step in _step("search_files", pattern=found, path=_place(path), literal=True)
    )


def _tests_step(argv: tuple[str, ...], junit: str | None) -> Steps:
    return _step("run_tests", argv=argv) if junit is None else _step("run_tests", argv=argv, junit=junit)


def _some(text: str, verb: str) -> str:
    if not text:
        raise Refused(UnclearReason.EMPTY_TEXT, f"The text to {verb} is empty. Put it between the quotes.")
    return str(text)


def _place(written: str) -> str:
    """A path that may be the workspace itself."""
    if hides(written):
        message = f"The name '{shown(written)}' holds a character that can not be seen. Write the name without it."
        raise Refused(UnclearReason.HIDDEN_CHARACTER, message)
    if fault := path_fault(written):
        raise Refused(fault.reason, f"The path '{shown(written)}' {fault.why}. {fault.remedy}")
    return normal_path(written)


def _path(written: str) -> str:
    path = _place(written)
    if path == ".":
        message = f"'{shown(written)}' is the workspace itself. Name a file or directory inside it."
        raise Refused(UnclearReason.INVALID_PATH, message)
    return path


def _argv(line: str) -> tuple[str, ...]:
    argv = tuple(shlex.split(line))
    if not argv or not argv[0]:
        raise Refused(UnclearReason.COMMAND_AMBIGUOUS, "The command line names no program. Write it after 'run:'.")
    return argv


def _junit_path(argv: tuple[str, ...]) -> str | None:
    """The JUnit XML file that pytest's own option names; other runners' files are named in a plan file."""
    for at, word in enumerate(argv):
        if option := _JUNIT_OPTION.fullmatch(word):
            return option["path"] or next(iter(argv[at + 1 : at + 2]), None)
    return None


def _mission(words: Words) -> str | None:
    if not words:
        return None
    if not _MISSION.fullmatch(words[0]):
        message = (
            f"'{shown(words[0])}' is not a mission's id. Ids are letters, digits and '-'; 'list missions' shows them."
        )
        raise Refused(UnclearReason.NOT_UNDERSTOOD, message)
    return str(words[0])


def _reason(words: Words) -> str | None:
    if not words:
        return None
    if _NEXT_SENTENCE.search(words[0]):
        message = (
            "A reason runs to the end of the message, and this one holds ', then'. Send the rest as its own message."
        )
        raise Refused(UnclearReason.MIXED, message)
    return str(words[0])


def _described(kind: str, fields: Mapping[str, StepValue]) -> str:
    line = DESCRIPTIONS[kind].format_map({key: _worded(key, value) for key, value in fields.items()})
    return f"{line} and all it holds" if fields.get("recursive") else line


def _counted(length: int) -> str:
    return {0: "nothing", 1: "1 character"}.get(length, f"{length} characters")


def _worded(key: str, value: StepValue) -> str:
    if isinstance(value, tuple):
        return shown(shown_argv(value), 160)
    if key == "content":
        return _counted(len(str(value)))
    return f"'{shown(str(value), 40)}'" if key in {"old", "new", "pattern"} else shown(str(value), 160)
