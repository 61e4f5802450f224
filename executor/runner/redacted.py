"""What the executor says, without the values of secrets: each text of each event, finding and error.

Output, previews and matches are redacted where they are read, before they are cut and digested. Here goes everything
else that holds words: one closed table says which fields of which class are words. Ids, kinds and digests are left as
they are, whatever a secret may be.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from executor.domain import events
from executor.domain.changes import Node
from executor.domain.control import Pause
from executor.domain.errors import ExecutorError, Fault
from executor.domain.receipt import ControlRecord, EffectRecord, ExecutionResult, Refusal, StepReceipt
from executor.domain.redaction import Redactor
from executor.domain.report import Excerpt, Notice, Problem, RiskFact, TestCase
from executor.runner.ports import Simulation

T = TypeVar("T")
E = TypeVar("E", bound=ExecutorError)

WORDS: Final[Mapping[type, tuple[str, ...]]] = {
    events.DryRunStarted: (),
    events.ExecutionStarted: (),
    events.StageChanged: (),
    events.StepStarted: ("target",),
    events.RetrievalStarted: ("target",),
    events.RetrievalCompleted: ("summary",),
    events.CheckpointCreated: (),
    events.DiffProposed: (),
    events.StepOutput: ("text",),
    events.StepCompleted: (),
    events.FailureDetected: ("message", "path"),
    events.DivergenceDetected: ("details",),
    events.ApprovalRevoked: ("reason",),
    events.ExecutionPaused: ("reason",),
    events.ExecutionResumed: ("actor",),
    events.ExecutionStopped: ("actor", "reason"),
    events.SegmentOpened: (),
    events.StepApproved: (),
    events.EffectClaimed: (),
    events.StepReconciled: (),
    events.RollbackStarted: (),
    events.RollbackCompleted: ("message",),
    events.ExecutionCompleted: (),
    events.ReceiptIssued: (),
    Fault: ("message", "remedy", "paths"),
    Notice: ("path", "message"),
    Problem: ("path", "message", "remedy"),
    Refusal: ("message", "remedy", "paths"),
    RiskFact: ("path", "detail"),
    StepReceipt: ("target", "precondition_detail", "error_message"),
    ExecutionResult: ("divergence_details", "errors"),
    ControlRecord: ("actor", "reason"),
    EffectRecord: ("summary", "compensation"),
    Excerpt: ("head", "tail"),
    Pause: ("reason",),
    TestCase: ("name", "message"),
}
"""The fields that hold words, by class; every class that is told to somebody is here."""


def redacted(value: T, redactor: Redactor) -> T:
    """Return a value of one of the table's classes without secrets; the very same object where it holds none."""
    if not redactor:
        return value
    found: dict[str, Any] = {name: getattr(value, name) for name in WORDS[type(value)]}
    told = {name: _without(words, redactor) for name, words in found.items()}
    return value if told == found else replace(value, **told)  # type: ignore[type-var]  # every class of the table is a dataclass


def redacted_error(error: E, redactor: Redactor) -> E:
    """Take secrets out of what an error tells, in the error itself."""
    error.fault = redacted(error.fault, redactor)
    return error


def redacted_simulation(simulation: Simulation, redactor: Redactor) -> Simulation:
    """Return what a dry run found, all its words redacted; evidence and changes are clean since they were made."""
    if not redactor:
        return simulation
    return replace(
        simulation,
        problems=tuple(redacted(one, redactor) for one in simulation.problems),
        notices=tuple(redacted(one, redactor) for one in simulation.notices),
        risk_facts=tuple(redacted(one, redactor) for one in simulation.risk_facts),
    )


def redacted_result(result: ExecutionResult, redactor: Redactor) -> ExecutionResult:
    """Return what an execution came to, all its words redacted, and what somebody else put beneath its paths, too."""
    if not redactor:
        return result
    return replace(
        redacted(result, redactor),
        steps=tuple(_step(one, redactor) for one in result.steps),
        controls=tuple(redacted(one, redactor) for one in result.controls),
        before=tuple((path, _node(node, redactor)) for path, node in result.before),
        after=tuple((path, _node(node, redactor)) for path, node in result.after),
    )


def _step(step: StepReceipt, redactor: Redactor) -> StepReceipt:
    return replace(
        redacted(step, redactor),
        effect=None if step.effect is None else _effect(step.effect, redactor),
        test_cases=tuple(redacted(one, redactor) for one in step.test_cases),
    )


def _effect(effect: EffectRecord, redactor: Redactor) -> EffectRecord:
    answer = None if effect.answer is None else redacted(effect.answer, redactor)
    return replace(redacted(effect, redactor), answer=answer)


def _node(node: Node | None, redactor: Redactor) -> Node | None:
    if node is None:
        return None
    xattrs = tuple((name, redactor.data(value)) for name, value in node.xattrs)
    return replace(node, link_target=redactor.data(node.link_target), xattrs=xattrs)


def _without(words: object, redactor: Redactor) -> object:
    match words:
        case str():
            return redactor.text(words)
        case bytes():
            return redactor.data(words)
        case tuple():
            return tuple(_without(one, redactor) for one in words)
        case _:
            raise TypeError(type(words))
