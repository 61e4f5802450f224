"""What a report's bytes say step by step, as far as a repair is made from it.

The report comes from the executor over a channel that proves who it is, and nothing is decided by what is read here;
so fields that are not needed are passed over, and what is needed and has another type than it must have is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.adapters.contract_errors import contract_error
from orchestrator.domain.findings import (
    CaseStatus,
    Findings,
    FoundCase,
    FoundChange,
    FoundKind,
    FoundNode,
    FoundProblem,
    StepFinding,
)

_LEFT_OUT: Final = "\n[…]\n"


def findings_of(said: Mapping[str, Any]) -> Findings:
    """Return the findings in a report's JSON.

    Raises:
        ContractError: it is not a report's.
    """
    return Findings(
        steps=tuple(_step(one) for one in _items(said, "steps")),
        problems=tuple(_problem(one) for one in _items(said, "problems")),
    )


def words_in(said: Mapping[str, Any]) -> Iterator[str]:
    """Yield the digests of the signed words that a receipt's steps name."""
    for step in _items(said, "steps"):
        for approval in _items(step, "step_approvals"):
            yield _text(approval, "approval_digest")
        reconciled = _part(_part(step, "effect"), "reconciliation")
        if reconciled:
            yield _text(reconciled, "reconciliation_digest")


def _step(said: Mapping[str, Any]) -> StepFinding:
    tests = _part(said, "tests")
    command = _part(tests, "command") or _part(said, "command")
    return StepFinding(
        step_id=_text(said, "step_id"),
        kind=_text(said, "kind"),
        success=said.get("success") is True,
        changes=tuple(_change(one) for one in _items(said, "changes")),
        output="\n".join(filter(None, (_excerpt(command, "stdout"), _excerpt(command, "stderr")))),
        cases=tuple(_case(one) for one in _items(tests, "cases")),
    )


def _change(said: Mapping[str, Any]) -> FoundChange:
    return FoundChange(
        path=_text(said, "path"),
        kind=FoundKind(_name(said, "kind", "CHANGE_KIND_", FoundKind)),
        old=_node(said, "old"),
        new=_node(said, "new"),
        moved_from=_text(said, "moved_from"),
        is_text="raw_path" not in said and "raw_moved_from" not in said,
    )


def _node(said: Mapping[str, Any], name: str) -> FoundNode | None:
    node = _part(said, name)
    if not node:
        return None
    return FoundNode(
        type=_text(node, "type").removeprefix("NODE_TYPE_").lower(),
        mode=_text(node, "mode"),
        digest=_text(node, "digest"),
        link_target=_text(node, "link_target"),
    )


def _case(said: Mapping[str, Any]) -> FoundCase:
    status = CaseStatus(_name(said, "status", "TEST_CASE_STATUS_", CaseStatus))
    return FoundCase(name=_text(said, "name"), status=status, message=_text(said, "message"))


def _problem(said: Mapping[str, Any]) -> FoundProblem:
    return FoundProblem(
        step_id=_text(said, "step_id"),
        path=_text(said, "path"),
        reason=_text(said, "reason"),
        message=_text(said, "message"),
        remedy=_text(said, "remedy"),
    )


def _excerpt(said: Mapping[str, Any], name: str) -> str:
    excerpt = _part(said, name)
    head, tail = _text(excerpt, "head"), _text(excerpt, "tail")
    return head + (_LEFT_OUT + tail if tail else "")


def _items(said: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = said.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise contract_error(f"{name} is not a list of objects")
    return items


def _part(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = said.get(name, {})
    if not isinstance(part, dict):
        raise contract_error(f"{name} is not an object")
    return part


def _text(said: Mapping[str, Any], name: str) -> str:
    text = said.get(name, "")
    if not isinstance(text, str):
        raise contract_error(f"{name} is not a text")
    return text


def _name(said: Mapping[str, Any], field: str, prefix: str, known: Any) -> str:
    name = _text(said, field).removeprefix(prefix)
    if name not in known.__members__:
        raise contract_error(f"{field}: {_text(said, field)[:64]!r} is not known")
    return str(known[name].value)
