"""The planner without a model, and the shortest way to write down which steps it should find."""

from collections.abc import Sequence

from orchestrator.adapters.chat_grammar import GrammarPlanner
from orchestrator.domain.intent import Proposal, StepDraft, StepValue

PLANNER = GrammarPlanner()


def proposal(text: str, *steps: StepDraft, workspace: str | None = None) -> Proposal:
    return Proposal(workspace=workspace, objective=" ".join(text.split()), steps=steps)


def step(kind: str, description: str, **fields: StepValue) -> StepDraft:
    return StepDraft(kind=kind, fields=fields, description=description)


def create(path: str, content: str, held: str) -> StepDraft:
    return step("create_file", f"Create {path} holding {held}", path=path, content=content)


def write(path: str, content: str, held: str) -> StepDraft:
    return step("write_file", f"Write {held} to {path}", path=path, content=content)


def replace(path: str, old: str, new: str) -> StepDraft:
    return step("replace_text", f"Replace '{old}' with '{new}' in {path}", path=path, old=old, new=new)


def append(path: str, content: str, held: str) -> StepDraft:
    return step("append_text", f"Append {held} to {path}", path=path, content=content)


def delete(path: str) -> StepDraft:
    return step("delete_path", f"Delete {path}", path=path)


def delete_tree(path: str) -> StepDraft:
    return step("delete_path", f"Delete {path} and all it holds", path=path, recursive=True)


def move(path: str, to: str) -> StepDraft:
    return step("move_path", f"Move {path} to {to}", path=path, to=to)


def directory(path: str) -> StepDraft:
    return step("create_directory", f"Create directory {path}", path=path)


def mode(path: str, bits: str) -> StepDraft:
    return step("set_mode", f"Set the mode of {path} to {bits}", path=path, mode=bits)


def read(path: str) -> StepDraft:
    return step("read_file", f"Read {path}", path=path)


def listing(path: str) -> StepDraft:
    return step("list_directory", f"List {path}", path=path)


def search(pattern: str, path: str) -> StepDraft:
    return step("search_files", f"Search for '{pattern}' in {path}", pattern=pattern, path=path, literal=True)


def run(*argv: str) -> StepDraft:
    return step("run_command", f"Run: {_as_list(argv)}", argv=argv)


def suite(*argv: str, junit: str | None = None) -> StepDraft:
    named = {} if junit is None else {"junit": junit}
    return step("run_tests", f"Run the tests: {_as_list(argv)}", argv=argv, **named)


def _as_list(argv: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in argv) + "]"


DEFAULT_TESTS = suite("python3", "-m", "pytest", "-q", "--junitxml=build/junit.xml", junit="build/junit.xml")
