"""A workspace, a trust file in force and a step's setting, for tests of what is outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from executor.adapters.trust_file import parse_trust
from executor.domain.cancel import Cancel
from executor.domain.plan import Action, FailurePolicy, NetworkAccess, Plan, Scope, Stage, Step
from executor.domain.sealed import SealedBytes
from executor.outside.worker import Confinement
from executor.runner.keyring import Keyring
from executor.runner.outside import Setting
from executor.runner.secrets import Secrets
from executor.runner.trust import InForce, TrustInForce
from executor.sandbox.bubblewrap import find_launchers
from executor.workspace.globs import Globs
from executor.workspace.workspace import Workspace
from gonogo.signatures import new_signing_key

HEAD = """
version = 1
expires = 2100-01-01T00:00:00Z
executor_id = "executor-1"
orchestrators = ["spiffe://gonogo.local/orchestrator"]
"""
TOKEN = "t0k3n-f0r-the-far-side"


@dataclass(kw_only=True)
class OutsideHouse:
    """Where one test's far sides are used from."""

    folder: Path
    workspace: Workspace
    trust: TrustInForce
    secrets: Secrets
    cancel: Cancel = field(default_factory=Cancel)

    @property
    def confinement(self) -> Confinement:
        """Bubblewrap, with the executor's state covered."""
        return Confinement(launcher=find_launchers().bwrap, covered=(str(self.folder / "state"),))

    def setting(self, action: Action, *, seconds: int = 20, execution_id: str = "") -> Setting:
        """The setting of a plan's one step."""
        return Setting(
            plan=plan_of(action, seconds=seconds),
            step_id="s1",
            workspace=self.workspace,
            execution_id=execution_id,
            redactor=self.secrets.redactor,
            cancel=self.cancel,
        )


@contextmanager
def outside_house(folder: Path, tables: str, *, domains: str = "") -> Iterator[OutsideHouse]:
    """Open a house whose trust file has some more tables and, before them, domains; its secret is called `token`."""
    for name in ("site", "staging", "state"):
        (folder / name).mkdir(exist_ok=True)
    token = folder / "state" / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    person = f'[[persons]]\nid = "owner"\n[[persons.keys]]\nscheme = "ed25519"\npublic_key = "{_KEY}"\n'
    secret = f'[[secrets]]\nname = "token"\nworkspaces = ["site"]\nfile = "{token}"\n'
    trust = parse_trust((HEAD + domains + person + secret + tables).encode())
    workspace = Workspace(
        workspace_id="site",
        root=folder / "site",
        staging=folder / "staging",
        locks=folder / "locks",
        hidden=Globs(()),
        volatile=Globs(()),
    )
    force = InForce(
        trust=trust,
        keyring=Keyring(trust.policy.persons),
        sealed_policy=SealedBytes(media_type="", body=b"", signatures=()),
        policy_digest="",
    )
    try:
        yield OutsideHouse(
            folder=folder, workspace=workspace, trust=TrustInForce(force), secrets=Secrets(trust.secrets)
        )
    finally:
        workspace.close()


def plan_of(action: Action, *, seconds: int) -> Plan:
    """A plan of one step."""
    return Plan(
        plan_id="p-1",
        mission_id="m-1",
        intent_id="i-1",
        message_id="",
        transcription_id="",
        objective="reach out",
        workspace_id="site",
        executor_id="executor-1",
        proposer="owner",
        created_at=datetime.now(UTC),
        scope=Scope(
            paths=(), domains=(), network=NetworkAccess.NONE, max_pages=1, max_duration_seconds=seconds, max_bytes=None
        ),
        failure_policy=FailurePolicy.PAUSE,
        steps=(Step(step_id="s1", description="", stage=Stage.EDIT, action=action),),
    )


_KEY = new_signing_key().public.line
