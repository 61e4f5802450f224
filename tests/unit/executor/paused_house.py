"""An executor of which one mission was claimed and waits; what the engine would say of that is played."""

import dataclasses
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from executor.domain.control import PauseKind
from executor.domain.sealed import SealedBytes
from executor.runner.control_ports import PausedState
from executor.runner.documents import OpenDocuments
from executor.runner.gates import VerifiedRequest
from executor.runner.ports import Claim
from executor.runner.requests import ExecuteInput
from executor.runner.words import WaitingStep, Words
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.house import EXECUTOR_ID, House, Person, stamp

MISSION = "m-1"
SO_FAR = digest(b"what was done so far")
WOULD_DO = digest(b"what the step would do")


class PlayedPauses:
    """The executions that wait, as a test says."""

    def __init__(self) -> None:
        self.states: dict[str, PausedState] = {}

    def of(self, mission_id: str) -> PausedState | None:
        """Return how a mission's execution waits."""
        return self.states.get(mission_id)


class PausedMission:
    """A mission that an executor has claimed and that waits, and what honest people make for it."""

    def __init__(self, house: House, request: ExecuteInput, *, workspace: str = "site") -> None:
        self.house = house
        self.request = request
        self.pauses = PlayedPauses()
        self._workspace = house.core._executions._workspaces[workspace]
        self.gates = house.core._executions._gates
        self.gates._repairs._paused = self.pauses
        object.__setattr__(house.core._dry_runs, "paused", self.pauses)
        self.claim = self.claimed(request).claim
        self.wait()

    def claimed(self, request: ExecuteInput) -> VerifiedRequest:
        """Pass all gates, the ledger's too; nothing is carried out."""
        with ExitStack() as held:
            held.enter_context(self._workspace.lock(1))
            return self.gates.claim(self.gates.check(request), self._workspace)

    def wait(self, kind: PauseKind = PauseKind.FAILURE, **changes: object) -> None:
        """Have it wait."""
        claims = self.house.ledger.claims_of(self.claim.execution_id)
        state = PausedState(
            execution_id=self.claim.execution_id,
            segment=claims[-1].segment,
            kind=kind,
            results_digest=SO_FAR,
            repairable=True,
            step_ids=frozenset({"s1"}),
        )
        self.pauses.states[MISSION] = dataclasses.replace(state, **changes)  # type: ignore[arg-type]  # a test's own

    def run_on(self) -> None:
        """Have it wait no more."""
        self.pauses.states.clear()

    def repair(self, **changes: object) -> plan_pb2.Plan:
        """A plan for the next segment, with some of it changed."""
        plan = self.house.plan(mission=MISSION)
        values: dict[str, object] = {
            "plan_id": "p-repair",
            "segment": 1,
            "execution_id": self.claim.execution_id,
            "journal_digest": SO_FAR,
            **changes,
        }
        plan.steps[0].step_id = str(values.pop("step_id", "r1-s1"))
        for name, value in values.items():
            setattr(plan, name, value)
        return plan

    def approved(self, plan: plan_pb2.Plan, *, proposer: Person, by: Person) -> ExecuteInput:
        """A plan that is dry run and approved."""
        house = self.house
        sealed = house.sealed_plan(plan, by=proposer)
        report = house.dry_run(sealed)
        return house.request(sealed, report, house.approve(sealed, report, by=by))

    def waiting(self, claim: Claim | None = None, **changes: object) -> WaitingStep:
        """The step that it waits at."""
        step = WaitingStep(claim=claim or self.claim, step_id="s1", change_set_digest=WOULD_DO, results_digest=SO_FAR)
        return dataclasses.replace(step, **changes)  # type: ignore[arg-type]  # a test's own values

    def words(self) -> Words:
        """What verifies the words of people."""
        gates = self.gates
        documents = OpenDocuments(gates._documents._documents)
        return Words(trust=gates._trust, ledger=self.house.ledger, documents=documents, clock=gates._clock)

    def step_approval(self, **changes: object) -> evidence_pb2.StepApproval:
        """What an honest client writes about the step that waits, with some of it changed."""
        now = datetime.now(UTC)
        values: dict[str, object] = {
            "approval_id": "sa-1",
            "executor_id": EXECUTOR_ID,
            "workspace_id": self.claim.workspace_id,
            "mission_id": MISSION,
            "execution_id": self.claim.execution_id,
            "segment": 0,
            "step_id": "s1",
            "change_set_digest": WOULD_DO,
            "results_digest": SO_FAR,
            "approver": "bob",
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": stamp(now),
            "expires_at": stamp(now + timedelta(hours=1)),
            "nonce": "step-once",
            "comment": "",
            **changes,
        }
        return evidence_pb2.StepApproval(**values)  # type: ignore[arg-type]  # a test may write anything

    def approve_step(self, by: Person, **changes: object) -> SealedBytes:
        """Sign a step approval."""
        return by.sign(sealing.STEP_APPROVAL, sealing.seal(self.step_approval(**{"approver": by.name, **changes})))

    def reconciliation(self, by: Person, **changes: object) -> SealedBytes:
        """Sign a word on whether the step's effect happened."""
        values: dict[str, object] = {
            "reconciliation_id": "rc-1",
            "executor_id": EXECUTOR_ID,
            "mission_id": MISSION,
            "execution_id": self.claim.execution_id,
            "step_id": "s1",
            "happened": True,
            "person": by.name,
            "reason": "looked at the far side",
            "decided_at": stamp(datetime.now(UTC)),
            "nonce": "word-once",
            "results_digest": SO_FAR,
            **changes,
        }
        body = sealing.seal(evidence_pb2.Reconciliation(**values))  # type: ignore[arg-type]  # a test may write anything
        return by.sign(sealing.RECONCILIATION, body)
