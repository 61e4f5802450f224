"""The whole proof of one mission, from a bundle and the verifier's own keys, without asking anybody."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.bundle import Bundle
from client.proving.anchors import Anchors
from client.proving.chain import Link, chain, link_checks
from client.proving.checks import Check, absent, check, same
from client.proving.decision import decision_checks
from client.proving.effects import effect_checks
from client.proving.gates import gate_checks
from client.proving.leaves import leaf_checks
from client.proving.logs import log_checks
from client.proving.opened import Opened, named_documents, open_all
from client.proving.recorded import Told, read_told, recorded_checks
from client.proving.seals import seal_checks
from client.proving.worded import word_checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a bundle proves, what it does not, and what is not there to prove anything."""

    mission_id: str
    documents: tuple[str, ...]
    checks: tuple[Check, ...]
    """What was checked."""
    missing: tuple[Check, ...]
    """What was not there."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """What does not hold, in the order of the checks."""
        return tuple(one for one in self.checks if not one.ok)

    @property
    def valid(self) -> bool:
        """Everything that was checked holds, and something was."""
        return bool(self.checks) and not self.failed

    def as_json(self) -> dict[str, object]:
        """Return the proof as scripts read it."""
        return {
            "mission_id": self.mission_id,
            "valid": self.valid,
            "documents": list(self.documents),
            "checks": [one.as_json() for one in self.checks],
            "not_there": [{"name": one.name, "detail": one.detail} for one in self.missing],
        }


def prove(bundle: Bundle, anchors: Anchors, *, complete: bool = False) -> Proof:
    """Check everything that a bundle holds.

    Args:
        bundle: what was exported.
        anchors: the verifier's own keys and checkpoints.
        complete: whether what is not there counts as a failure.
    """
    opened = open_all(bundle)
    every = list(_checks(bundle, opened, anchors))
    if complete:
        every = [one.demanded() for one in every]
    return Proof(
        mission_id=bundle.mission.mission_id,
        documents=tuple(_unnumbered(name) for name, _ in named_documents(bundle)),
        checks=tuple(one for one in every if not one.missing),
        missing=tuple(one for one in every if one.missing),
    )


def _unnumbered(name: str) -> str:
    """Return a document's name without its place among its like."""
    head, _, number = name.rpartition(" ")
    return head if number.isdecimal() and head else name


def trace(bundle: Bundle) -> list[Link]:
    """Return the chain from message to audit leaf, as far as the mission has come."""
    return chain(bundle, open_all(bundle))


def _checks(bundle: Bundle, opened: Opened, anchors: Anchors) -> Iterator[Check]:
    told = read_told(bundle)
    yield from opened.checks
    yield from seal_checks(bundle, opened, anchors)
    yield from _whose(bundle, opened, anchors, told)
    yield from link_checks(chain(bundle, opened))
    yield from effect_checks(bundle, opened, told)
    yield from decision_checks(bundle, opened)
    yield from word_checks(bundle, opened, anchors)
    yield from gate_checks(bundle, opened)
    yield from log_checks(bundle, opened, anchors)
    yield from leaf_checks(bundle, opened, told)
    yield from recorded_checks(bundle, opened, told)
    for name, document in (("report", bundle.report), ("receipt", bundle.receipt)):
        if document is None:
            yield absent(name, "the mission has none yet, or the bundle leaves it out")


def _whose(bundle: Bundle, opened: Opened, anchors: Anchors, told: Told | None) -> Iterator[Check]:
    """Say so where a bundle claims to be signed by others than the verifier's keys, and what the mission says it is."""
    if bundle.has_logs:
        yield same("bundle's executor key", bundle.executor_key, anchors.executor.line, anchors.executor.key_id)
    if bundle.has_logs and anchors.orchestrator is not None:
        known = anchors.orchestrator
        yield same("bundle's orchestrator key", bundle.orchestrator_key, known.line, known.key_id)
    first = opened.every[0].plan
    if opened.plan is not None and first is not None and bundle.has_logs:
        mission, plan = bundle.mission, opened.plan
        said = (mission.workspace_id, mission.executor_id, mission.plan_digest)
        agree = said == (plan.workspace_id, plan.executor_id, opened.plan_digest)
        # A plan that took the place of the first one before anything was approved has an objective of its own.
        replaced = told is not None and len(told.first_plans) > 1
        agree = agree and (replaced or (mission.objective, mission.proposer) == (first.objective, first.proposer))
        yield check("mission is the plan's", agree, first.objective)
    if bundle.has_logs:
        numbers = [one.number for one in opened.every]
        here = numbers == list(range(len(numbers))) and len(numbers) - 1 == bundle.mission.segment
        yield check("mission's segments are here", here, f"{numbers} of the mission's last, {bundle.mission.segment}")
        yield from _left_out(bundle, opened)


def _left_out(bundle: Bundle, opened: Opened) -> Iterator[Check]:
    """What the mission is said to have has to be here."""
    said, report, receipt = bundle.mission, opened.report, opened.receipt
    is_so = (report.report_id, opened.report_digest) if report else ("", "")
    yield same("mission's report is here", (said.report_id, said.report_digest), is_so, said.report_id or "none yet")
    is_so = (receipt.receipt_id, receipt.execution_id) if receipt else ("", said.execution_id)
    yield same("mission's receipt is here", (said.receipt_id, said.execution_id), is_so, said.receipt_id or "none yet")
