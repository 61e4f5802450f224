"""What is attacked: a whole executor as it is started, on real files, and the honest people around it."""

import dataclasses
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.bootstrap import build_core
from executor.domain.ladder import LadderLevel
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.executions import RefusedError
from executor.runner.orders import Executioner, Order
from executor.runner.ports import Ended
from executor.runner.requests import ExecuteInput
from executor.settings import Settings
from gonogo import sealing
from gonogo.signatures import ED25519, SSHSIG, new_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.fakes.security_key import SecurityKey
from tests.unit.executor.house import EXECUTOR_ID, WORKSPACE_ID, House, Person, ignore

OTHER_WORKSPACE = "other"
TRUST = """\
version = {version}
expires = 2100-01-01T00:00:00Z
executor_id = "{executor}"
orchestrators = ["spiffe://gonogo.local/orchestrator"]
[policy]
approvals_required = 1
self_approval = "refused"
max_approval_seconds = 86400
[[groups]]
id = "sre"
members = ["bob", "carol"]
[[rules]]
id = "deletions"
when = {{ step_kinds = ["delete_path"] }}
require = [{{ count = 1 }}]
[[rules]]
id = "the-other-workspace"
when = {{ workspaces = ["other"] }}
hardware_key = true
"""


class Wall:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """An executioner that tells whenever something begins."""

    executioner: Executioner
    begun: list[str]

    def run(self, order: Order) -> Ended:
        self.begun.append(order.execution_id)
        return self.executioner.run(order)


class Target(House):
    """An executor with two workspaces: alice proposes, bob and carol approve, an agent of alice's proposes.

    Documents are made as honest people make them; what is done with them is the orchestrator's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.alice, self.bob, self.carol = Person("alice"), Person("bob"), Person("carol", scheme=ED25519)
        self.bobs_other_key = Person("bob", scheme=ED25519)
        self.bot = Person("bot", scheme=ED25519)
        self.security_key = SecurityKey.new()
        self.owner, self.second = self.bob, self.carol
        self.executor_key = new_signing_key()
        self.state = root / "state"
        self.site, self.other = root / WORKSPACE_ID, root / OTHER_WORKSPACE
        for folder in (self.site, self.other, self.state / "keys"):
            folder.mkdir(parents=True)
        (self.site / "kept.txt").write_text("kept\n")
        (self.state / "keys" / "executor").write_bytes(self.executor_key.private_bytes())
        self.settings = Settings(
            state=self.state,
            workspaces={WORKSPACE_ID: self.site, OTHER_WORKSPACE: self.other},
            staging={},
            tools=(),
            listen="",
            ready_file=None,
            die_with_parent=False,
            reflection=False,
            grace_seconds=1,
            max_ladder_level=LadderLevel.L1,
        )
        self.requests = 0
        self.wall = Wall()
        self.write_trust(self.trust_file(1))
        self.open()

    def trust_file(self, version: int, *, more: str = "", without: str = "") -> str:
        """The text of the operator's file; `more` is put at its end, `without` leaves a person out."""
        people = {
            "alice": [self.alice],
            "bob": [self.bob, self.bobs_other_key],
            "carol": [self.carol],
        }
        lines = [TRUST.format(version=version, executor=EXECUTOR_ID)]
        for name, keys in people.items():
            if name == without:
                continue
            lines += ["[[persons]]", f'id = "{name}"']
            for key in keys:
                lines += ["[[persons.keys]]", f'scheme = "{key.scheme}"', f'public_key = "{key.key.public.line}"']
            if name == "carol":
                lines += ["[[persons.keys]]", f'scheme = "{SSHSIG}"', f'public_key = "{self.security_key.public.line}"']
        lines += ["[[persons]]", 'id = "bot"', 'kind = "agent"', 'sponsor = "alice"', "[[persons.keys]]"]
        lines += [f'scheme = "{ED25519}"', f'public_key = "{self.bot.key.public.line}"', 'use = "propose"', more]
        return "\n".join(lines) + "\n"

    def write_trust(self, text: str) -> None:
        """What only the executor's operator can do."""
        self.settings.trust_file.write_text(text)

    def open(self) -> None:
        """Start the executor."""
        self._closing = ExitStack()
        self.core = build_core(self.settings, self._closing)
        self.ledger = self.core._ledger  # type: ignore[assignment]  # the one that bootstrap chooses
        self.core._executions._gates._clock._wall = self.wall
        self.begun: list[str] = []
        carrier = self.core._executions._carrier
        object.__setattr__(carrier, "executioner", Watched(carrier.executioner, self.begun))

    def close(self) -> None:
        """Stop the executor."""
        self._closing.close()

    def restart(self) -> None:
        """Stop it and start it again on what its files hold."""
        self.close()
        self.open()

    def plan(
        self,
        *,
        mission: str = "m-1",
        path: str = "hello.txt",
        content: str = "hello\n",
        workspace: str = WORKSPACE_ID,
        proposer: str = "alice",
    ) -> plan_pb2.Plan:
        """A plan that writes one file, proposed by alice."""
        plan = super().plan(mission=mission, path=path, content=content)
        plan.proposer, plan.workspace_id = proposer, workspace
        return plan

    def signed_plan(self, *, by: Person | None = None, **plan: str) -> SealedBytes:
        """A plan with its proposer's signature."""
        proposer = by or self.alice
        return self.sealed_plan(self.plan(proposer=proposer.name, **plan), by=proposer)

    def good(
        self, *, mission: str = "m-1", path: str = "hello.txt", content: str = "hello\n", workspace: str = WORKSPACE_ID
    ) -> ExecuteInput:
        """A request that every gate lets pass: alice proposed, bob approved."""
        sealed = self.signed_plan(mission=mission, path=path, content=content, workspace=workspace)
        report = self.dry_run(sealed)
        return self.request(sealed, report, self.approve(sealed, report, by=self.bob))

    def touched(self, plan: SealedBytes, report: SealedBytes, *, flags: int = 0x01) -> SealedBytes:
        """Carol's approval by her security key."""
        body = sealing.seal(self.approval(plan, report, by=self.carol))
        return self.touched_document(sealing.APPROVAL, body, flags=flags)

    def touched_document(self, media_type: str, body: bytes, *, flags: int = 0x01) -> SealedBytes:
        """What carol signed by her security key."""
        raw = self.security_key.sign(media_type, body, flags=flags)
        signature = Signature(key_id=self.security_key.public.key_id, scheme=SSHSIG, signature=raw)
        return SealedBytes(media_type=media_type, body=body, signatures=(signature,))

    def deleting(self, *approvers: Person) -> ExecuteInput:
        """A plan of alice's that deletes, which two persons must approve, and the approvals of some."""
        plan = self.plan(mission="m-deleting")
        del plan.steps[:]
        plan.steps.add(step_id="s1", stage=plan_pb2.STAGE_EDIT).delete_path.path = "kept.txt"
        sealed = self.sealed_plan(plan, by=self.alice)
        report = self.dry_run(sealed)
        return self.request(sealed, report, *(self.approve(sealed, report, by=one) for one in approvers))

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Both workspaces, byte for byte, with bits and inode."""
        found: dict[str, tuple[int, bytes]] = {}
        for root in (self.site, self.other):
            for path in sorted(root.rglob("*")):
                found[str(path.relative_to(self.root))] = (path.stat().st_ino, path.read_bytes())
        return found

    def refusals(self) -> list[tuple[bytes, str, str]]:
        """The refusals in the ledger: body, key and reason."""
        query = "SELECT body, key_id, reason FROM refusals ORDER BY rowid"
        return list(self.ledger._connection.execute(query).fetchall())

    def again(self, request: ExecuteInput, **changes: Any) -> ExecuteInput:
        """The same request, altered, under a new id."""
        return dataclasses.replace(request, **{"request_id": self.next_request(), **changes})

    def refused(self, request: ExecuteInput) -> SealedBytes:
        """Send a request that must be refused, and return the executor's signed refusal."""
        with pytest.raises(RefusedError) as caught:
            self.core.execute(request, ignore)
        return caught.value.refusal

    def reason_of(self, request: ExecuteInput) -> str:
        """The stable reason for which a request is refused."""
        return sealing.open_sealed(self.refused(request).body, evidence_pb2.Refusal).abort_reason

    def run(self, request: ExecuteInput) -> None:
        """Have it executed, which it is."""
        assert self.core.execute(request, ignore).progress(0).ended
