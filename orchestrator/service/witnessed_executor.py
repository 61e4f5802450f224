"""The executor as all use cases see it.

Nothing is asked of it while one of the two audit logs is known to be forked, and each policy that it tells of is kept.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import ExecutorInfo, Sealed
from orchestrator.service.audit_log import Exchanged, LogExtract
from orchestrator.service.kept_policies import KeptPolicies
from orchestrator.service.ports import ControlOrder, ExecutionOrder, ExecutionUpdate, Executor, ObjectPart
from orchestrator.service.witnessing import Witness

_HALTS: Final = frozenset({ControlAction.PAUSE, ControlAction.STOP})


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedExecutor:
    """`Executor` that lets a dry run and an order pass only when the witness does.

    What only asks goes through in any case: a mission that was claimed before a fork was found is followed to its end.
    It can always be halted, too; only what has it go on is an order.
    """

    executor: Executor
    witness: Witness
    policies: KeptPolicies

    async def describe(self) -> ExecutorInfo:
        return await self.policies.describe()

    async def dry_run(self, request_id: str, plan: Sealed) -> Sealed:
        await self.witness.before_an_order()
        report = await self.executor.dry_run(request_id, plan)
        if not self.policies.covers(report):
            await self.witness.card.refresh()  # the policy has changed; the new one is to be kept before the report is
        return report

    async def execute(self, order: ExecutionOrder) -> AsyncGenerator[ExecutionUpdate, None]:
        await self.witness.before_an_order()
        async with aclosing(self.executor.execute(order)) as updates:
            async for update in updates:
                yield update

    def watch(self, mission_id: str, resume_token: str) -> AsyncGenerator[ExecutionUpdate, None]:
        return self.executor.watch(mission_id, resume_token)

    async def execution(self, mission_id: str) -> ExecutionState | None:
        return await self.executor.execution(mission_id)

    async def control(self, order: ControlOrder) -> ExecutionState:
        if order.action not in _HALTS:
            await self.witness.before_an_order()
        return await self.executor.control(order)

    async def processes(self, mission_id: str) -> tuple[LiveProcess, ...]:
        return await self.executor.processes(mission_id)

    async def stop_process(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        return await self.executor.stop_process(request_id, process_id, actor)

    async def read_object(self, digest: str, offset: int, limit: int) -> ObjectPart:
        return await self.executor.read_object(digest, offset, limit)

    async def exchange(self, checkpoint: str, consistency: tuple[bytes, ...], known_size: int) -> Exchanged:
        return await self.executor.exchange(checkpoint, consistency, known_size)

    async def mission_log(self, mission_id: str) -> LogExtract | None:
        return await self.executor.mission_log(mission_id)
