"""Tables of cases for a policy: what something is, who votes, and what must come of it.

    trust: trust.toml                # left out: the state directory's
    cases:
      - name: two of sre for production
        facts:
          step_kinds: [write_file]
          workspace: site
          risk: high
          risk_facts: [runs_later]
          changes: 3
          size: 1024
          at: 2027-01-04T10:00:00Z
          proposer: {kind: agent, person: bot, sponsor: alice}
        votes: [bob, {person: carol, hardware: true}]
        expect: {met: true, rules: [production]}

A fact that is left out is one that is not known; only the moment is a Monday noon then, and there are no steps. Of each
kind there is one step, and `approve_steps` names kinds. Of what is expected (met, reason, requirements, rules,
approve_steps) at least one thing is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from client.errors import ClientError
from client.explaining import requirements_json
from client.planfile import KINDS
from client.plantree import Listing, Node, Scalar, read_tree
from client.plantree import Mapping as Entries
from gonogo.policy import (
    RISK_LEVELS,
    Demand,
    Facts,
    KeyUse,
    Policy,
    Proposer,
    ProposerKind,
    Requirement,
    Verdict,
    Vote,
    decide,
    demand_of,
)

NOON: Final = datetime(2027, 1, 4, 12, tzinfo=UTC)
FORM: Final = "gonogo policy test --help shows the form"

T = TypeVar("T")
D = TypeVar("D")


class CasesError(ClientError):
    """A table of cases does not have its form."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__("MALFORMED", f"line {line}: {problem}", FORM)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVote:
    """Somebody who votes; with the best key that they have, where nothing is said about it."""

    person: str
    hardware: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of a case; None is not looked at."""

    met: bool | None = None
    reason: str | None = None
    requirements: tuple[Requirement, ...] | None = None
    rules: tuple[str, ...] | None = None
    approve_steps: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a table."""

    name: str
    line: int
    facts: Facts
    votes: tuple[CaseVote, ...]
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseTable:
    """A file of cases."""

    trust: str
    """Path of a trust file, as it is written; empty for the state directory's."""
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a case."""

    case: Case
    demand: Demand
    verdict: Verdict
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as scripts read it."""
        return {
            "name": self.case.name,
            "line": self.case.line,
            "ok": not self.differences,
            "differences": list(self.differences),
            "met": self.verdict.met,
            "reason": self.verdict.reason or None,
            "message": self.verdict.message or None,
            "requirements": requirements_json(self.demand.requirements),
            "rules": list(self.demand.rules),
            "approve_steps": list(self.demand.approve_steps),
            "missing": requirements_json(self.verdict.missing),
        }


def read_cases(text: str) -> CaseTable:
    """Read a table.

    Raises:
        ClientError: it does not have the form; the message names the line.
    """
    root = _Fields("the table", read_tree(text))
    trust = root.take("trust", _text, "")
    cases = root.take("cases", _each(_case), ())
    root.check_empty()
    if not cases:
        raise CasesError(1, "there are no cases")
    return CaseTable(trust=trust, cases=cases)


def run_case(case: Case, policy: Policy) -> Result:
    """Have a policy decide a case, and compare."""
    demand = demand_of(policy, case.facts)
    verdict = decide(policy, demand, case.facts.proposer, [_vote(one, policy) for one in case.votes])
    return Result(case=case, demand=demand, verdict=verdict, differences=_differences(case.expected, demand, verdict))


def _vote(one: CaseVote, policy: Policy) -> Vote:
    person = policy.person(one.person)
    keys = [key for key in person.keys if key.use is KeyUse.APPROVE] if person else []
    fitting = [key for key in keys if one.hardware in {None, key.hardware}]
    best = max(fitting, key=lambda key: key.hardware, default=None)
    return Vote(person=one.person, key_id=best.key_id if best else "", hardware=best is not None and best.hardware)


def _differences(expected: Expected, demand: Demand, verdict: Verdict) -> tuple[str, ...]:
    pairs: tuple[tuple[str, object, object], ...] = (
        ("met", expected.met, verdict.met),
        ("reason", expected.reason, verdict.reason),
        ("requirements", _counted(expected.requirements), _counted(demand.requirements)),
        ("rules", expected.rules, demand.rules),
        ("approve_steps", expected.approve_steps, demand.approve_steps),
    )
    return tuple(f"{name} is {_shown(got)}, not {_shown(want)}" for name, want, got in pairs if want not in {None, got})


def _counted(requirements: tuple[Requirement, ...] | None) -> tuple[tuple[str, int], ...] | None:
    return None if requirements is None else tuple(sorted((one.group, one.count) for one in requirements))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        shown = [f"{part[1]} of {part[0] or 'all'}" if isinstance(part, tuple) else str(part) for part in value]
        return f"[{', '.join(shown)}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


class _Fields:
    """A mapping of the file, read name by name."""

    def __init__(self, what: str, node: Node) -> None:
        if not isinstance(node, Entries):
            raise CasesError(node.line, f"{what} is no mapping")
        self.line = node.line
        self._what = what
        self._left = {key.text: (key.line, value) for key, value in node.items}

    def take(self, name: str, read: Callable[[str, Node], T], default: D) -> T | D:
        if name not in self._left:
            return default
        return read(name, self._left.pop(name)[1])

    def check_empty(self) -> None:
        for name, (line, _) in self._left.items():
            raise CasesError(line, f"{self._what} has no {name!r}")


def _case(what: str, node: Node) -> Case:
    fields = _Fields(what, node)
    case = Case(
        line=fields.line,
        name=fields.take("name", _text, f"line {fields.line}"),
        facts=fields.take("facts", _facts, _facts("facts", Entries(line=fields.line, items=()))),
        votes=fields.take("votes", _each(_case_vote), ()),
        expected=fields.take("expect", _expected, Expected()),
    )
    fields.check_empty()
    if case.expected == Expected():
        raise CasesError(fields.line, "the case expects nothing")
    return case


def _facts(what: str, node: Node) -> Facts:
    fields = _Fields(what, node)
    risk_facts = fields.take("risk_facts", _each(_text), None)
    kinds = fields.take("step_kinds", _each(_one_of(KINDS)), ())
    facts = Facts(
        step_kinds=frozenset(kinds),
        steps=tuple((kind, kind) for kind in dict.fromkeys(kinds)),
        risk_facts=None if risk_facts is None else frozenset(risk_facts),
        risk=fields.take("risk", _one_of(RISK_LEVELS), None),
        workspace_id=fields.take("workspace", _text, ""),
        changes=fields.take("changes", _number, None),
        size=fields.take("size", _number, None),
        at=fields.take("at", _moment, NOON),
        proposer=fields.take("proposer", _proposer, Proposer()),
    )
    fields.check_empty()
    return facts


def _proposer(what: str, node: Node) -> Proposer:
    fields = _Fields(what, node)
    kind = fields.take("kind", _one_of([one.value for one in ProposerKind]), ProposerKind.UNKNOWN.value)
    proposer = Proposer(
        kind=ProposerKind(kind), person=fields.take("person", _text, ""), sponsor=fields.take("sponsor", _text, "")
    )
    fields.check_empty()
    return proposer


def _case_vote(what: str, node: Node) -> CaseVote:
    if isinstance(node, Scalar):
        return CaseVote(person=node.text)
    fields = _Fields(what, node)
    vote = CaseVote(person=fields.take("person", _text, ""), hardware=fields.take("hardware", _flag, None))
    fields.check_empty()
    return vote


def _expected(what: str, node: Node) -> Expected:
    fields = _Fields(what, node)
    expected = Expected(
        met=fields.take("met", _flag, None),
        reason=fields.take("reason", _text_or_none, None),
        requirements=fields.take("requirements", _each(_requirement), None),
        rules=fields.take("rules", _each(_text), None),
        approve_steps=fields.take("approve_steps", _each(_one_of(KINDS)), None),
    )
    fields.check_empty()
    return expected


def _requirement(what: str, node: Node) -> Requirement:
    fields = _Fields(what, node)
    found = Requirement(count=fields.take("count", _number, 1), group=fields.take("group", _text_or_none, ""))
    fields.check_empty()
    return found


def _each(read: Callable[[str, Node], T]) -> Callable[[str, Node], tuple[T, ...]]:
    def all_of(what: str, node: Node) -> tuple[T, ...]:
        if not isinstance(node, Listing):
            raise CasesError(node.line, f"{what} is no list")
        return tuple(read(f"an entry of {what}", one) for one in node.items)

    return all_of


def _one_of(names: Mapping[str, Any] | list[str] | tuple[str, ...]) -> Callable[[str, Node], str]:
    def read(what: str, node: Node) -> str:
        if _text(what, node) not in names:
            raise CasesError(node.line, f"{what} is none of {', '.join(names)}")
        return _text(what, node)

    return read


def _text(what: str, node: Node) -> str:
    found = _text_or_none(what, node)
    if not found:
        raise CasesError(node.line, f"{what} is empty")
    return found


def _text_or_none(what: str, node: Node) -> str:
    if not isinstance(node, Scalar):
        raise CasesError(node.line, f"{what} is no text")
    return node.text


def _number(what: str, node: Node) -> int:
    text = _text(what, node)
    if not (text.isascii() and text.isdigit()):
        raise CasesError(node.line, f"{what} is no whole number")
    return int(text)


def _flag(what: str, node: Node) -> bool:
    text = _text(what, node)
    if text not in {"true", "false"}:
        raise CasesError(node.line, f"{what} is neither true nor false")
    return text == "true"


def _moment(what: str, node: Node) -> datetime:
    try:
        found = datetime.fromisoformat(_text(what, node))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CasesError(node.line, f"{what} is no moment such as 2027-01-04T10:00:00Z")
    return found.astimezone(UTC)
