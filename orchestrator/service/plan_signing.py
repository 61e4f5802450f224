"""A proposer's signature under a plan: how an executor that trusts nobody learns who asked.

The signature is checked here so that a person hears of a slip at once; the executor checks it again by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gonogo.policy import Policy
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ContractError, OrchestratorError, Reason, RequestRefusedError, StateForbidsError
from orchestrator.domain.evidence import Sealed, Signature
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.service.demands import key_in
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Documents
from orchestrator.service.requests import Answer, Request

MAX_SIGNATURES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSigning:
    """Takes proposers' signatures."""

    store: MissionStore
    card: ExecutorCard
    documents: Documents
    is_running: Callable[[str], bool]

    async def sign(self, request: Request, reference: str, signature: Signature) -> Answer:
        """Add a signature to the plan of a proposed mission; the same one twice is one.

        Raises:
            RequestRefusedError: the executor knows no such key, the signature is not good, or somebody else calls than
                proposed the mission.
            StateForbidsError: the mission is past being proposed, or somebody else signed than proposed it.
        """
        mission = self.store.find(reference)
        plan = self.store.document(mission.mission_id, mission.plan_digest)
        if plan is None:
            raise RequestRefusedError(Reason.NOT_FOUND, "the mission has no plan", "Propose it again.")
        person = await self._signer(plan, signature)
        return await self.store.act(
            mission.mission_id, request, lambda now: self._decided(now, request, person, signature, plan)
        )

    async def _signer(self, plan: Sealed, signature: Signature) -> str:
        found = key_in(await self._policy(signature.key_id), signature.key_id, signature.scheme)
        if found is None:
            raise RequestRefusedError(
                Reason.APPROVER_UNKNOWN,
                "the executor's trust file lists no such key",
                "Sign with a listed key, or have the executor's operator add this one.",
            )
        person, key = found
        try:
            self.documents.verify(replace(plan, signatures=(signature,)), key.public_key)
        except ContractError as error:
            raise RequestRefusedError(
                Reason.SIGNATURE_INVALID, error.message, "Sign the bytes of the sealed plan as they were handed out."
            ) from None
        return person.person_id

    async def _policy(self, key_id: str) -> Policy:
        def lists_it(policy: Policy) -> bool:
            return any(key.key_id == key_id for person in policy.persons for key in person.keys)

        info = await self.card.holding(
            lambda known: known.policy is not None and lists_it(self.documents.open_policy(known.policy))
        )
        if info.policy is None:
            raise RequestRefusedError(
                Reason.UNSUPPORTED, "the executor does not show its policy", "Use an executor of this release."
            )
        return self.documents.open_policy(info.policy)

    def _decided(
        self, mission: Mission | None, request: Request, person: str, signature: Signature, plan: Sealed
    ) -> Decision:
        if mission is None:
            raise RequestRefusedError(Reason.NOT_FOUND, "no such mission", "List the missions with `gonogo list`.")
        if mission.plan_digest != plan.digest:
            raise StateForbidsError(Reason.PLAN_MISMATCH, "the mission has another plan by now", "Sign that one.")
        fault = _foreign(mission, request.person, person)
        if fault is None and any(one.key_id == signature.key_id for one in mission.plan_signatures):
            return Decision(payloads=())
        fault = fault or self._fault(mission)
        if fault is not None:
            raise fault
        signed = ev.PlanSigned(
            plan_digest=mission.plan_digest,
            person=person,
            key_id=signature.key_id,
            scheme=signature.scheme,
            signature=signature.signature,
        )
        return Decision(payloads=(signed,))

    def _fault(self, mission: Mission) -> OrchestratorError | None:
        proposed = mission.status is MissionStatus.PROPOSED and not self.is_running(mission.mission_id)
        if not proposed and not mission.repair_pending:
            return StateForbidsError(
                Reason.STATE_FORBIDS,
                f"a mission that is {mission.status.value} takes no proposer's signature",
                "Sign the plan before it is approved; clone the mission to propose it again.",
            )
        if len(mission.plan_signatures) >= MAX_SIGNATURES:
            return StateForbidsError(
                Reason.TOO_LARGE, "the plan has as many signatures as it may", "Clone the mission."
            )
        return None


def _foreign(mission: Mission, caller: str, signer: str) -> OrchestratorError | None:
    """Return why caller and signer are not both the one who proposed, None where they are."""
    if caller != mission.proposer:
        return RequestRefusedError(
            Reason.ROLE_MISSING,
            f"{caller} hands in a signature under a plan that {mission.proposer} proposed",
            "Call as whoever proposed the mission, with that caller's own certificate or token.",
        )
    if signer != mission.proposer:
        return StateForbidsError(
            Reason.SIGNATURE_INVALID,
            f"{signer!r} signed a plan that {mission.proposer!r} proposed",
            f"Sign with a key of {mission.proposer}; or propose it as {signer}, calling with a certificate or token of "
            f"that name: gonogo caller add {signer} --role propose.",
        )
    return None
