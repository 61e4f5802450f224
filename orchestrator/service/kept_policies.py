"""The executor's policies, kept as documents: a report names its own, which may have been replaced long ago."""

from dataclasses import dataclass, field

from orchestrator.domain.evidence import ExecutorInfo, Sealed
from orchestrator.service.audit_log import AuditLog
from orchestrator.service.documents import document_of
from orchestrator.service.ports import Executor


@dataclass(slots=True, kw_only=True, eq=False)
class KeptPolicies:
    """Asks the executor who it is, and stores each policy that it tells of, once."""

    log: AuditLog
    executor: Executor
    newest: str = ""
    """Digest of the policy that the executor told last; empty where it told none."""
    _stored: set[str] = field(default_factory=set)

    async def describe(self) -> ExecutorInfo:
        """Return the executor's description; its policy is stored by then.

        Raises:
            OrchestratorError: the executor can not be asked.
            EventLogError: the policy can not be stored.
        """
        info = await self.executor.describe()
        await self._keep(info.policy)
        return info

    async def _keep(self, policy: Sealed | None) -> None:
        if policy is not None and policy.digest not in self._stored:
            if self.log.document(policy.digest) is None:
                await self.log.keep_document(document_of(policy))
            self._stored.add(policy.digest)
        self.newest = policy.digest if policy is not None else ""

    def covers(self, report: Sealed) -> bool:
        """Tell whether a report was made under the newest policy, which every report names by its digest."""
        return not self.newest or self.newest.encode() in report.body
