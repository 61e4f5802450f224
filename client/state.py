"""The state directory: where keys, certificates, trust file and running services are found."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import NotRunningError, StateError

DEFAULT = ".gonogo"
VARIABLE = "GONOGO_STATE"
ADDRESS_VARIABLE = "GONOGO_ORCHESTRATOR"
TOKEN_VARIABLE = "GONOGO_TOKEN"  # noqa: S105 - the variable's name
CA_VARIABLE = "GONOGO_CA"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDirectory:
    """Paths below one state directory, and how its orchestrator is called."""

    root: Path
    token_file: Path | None = None
    """The token to call with, where it was named; else the environment's, else the state's certificate is used."""

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def trust(self) -> Path:
        return self.root / "trust.toml"

    @property
    def approver_key(self) -> Path:
        return self.keys / "approver"

    @property
    def proposer_key(self) -> Path:
        """The key of the approver's agents: it proposes, and can not approve."""
        return self.keys / "proposer"

    @property
    def executor_public_key(self) -> Path:
        return self.keys / "executor.pub"

    @property
    def callers(self) -> Path:
        """The list of those who may call the orchestrator."""
        return self.root / "orchestrator" / "callers.json"

    @property
    def authority(self) -> Path:
        """The certificate that the services' certificates must be from."""
        return Path(os.environ.get(CA_VARIABLE) or self.tls / "ca.pem")

    @property
    def orchestrator_public_key(self) -> Path:
        return self.keys / "orchestrator.pub"

    @property
    def witness(self) -> Path:
        """What this side keeps of the services' audit logs."""
        return self.root / "witness"

    @property
    def ready_file(self) -> Path:
        return self.run / "ready.json"

    @property
    def unfinished(self) -> Path:
        """There while `gonogo init` writes, and left where it was interrupted."""
        return self.root / "init.unfinished"

    @property
    def initialised(self) -> bool:
        return self.trust.is_file()

    def require(self) -> "StateDirectory":
        """Return itself.

        Raises:
            StateError: there is no state here.
        """
        if not self.initialised:
            remedy = "make one with gonogo init, or name it with --state DIR or GONOGO_STATE"
            raise StateError("STATE_MISSING", f"there is no gonogo state in {self.root}", remedy)
        return self

    def orchestrator_address(self) -> str:
        """Return where the orchestrator listens, for whoever calls with what this state says.

        Raises:
            NotRunningError: `gonogo up` is not running on this state.
            StateError: the token can not be read.
        """
        given = os.environ.get(ADDRESS_VARIABLE)
        name = "orchestrator" if self.token() is None else "orchestrator_tokens"
        return given or str(self.ready().get(name, ""))

    def token(self) -> str | None:
        """Return the token to call with, None where the certificate is used.

        Raises:
            StateError: it can not be read, or is empty.
        """
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        try:
            token = self.token_file.read_text("utf-8").strip()
        except (OSError, ValueError):
            token = ""
        if not token.isascii() or not token.isprintable() or not token:
            remedy = "name a file that holds nothing but a token: gonogo caller add NAME --token prints one"
            raise StateError("FILE_UNREADABLE", f"{self.token_file} holds no token", remedy)
        return token

    def ready(self) -> dict[str, Any]:
        """Return what `gonogo up` wrote when both services were ready.

        Raises:
            NotRunningError: it did not, or the file can not be read.
        """
        try:
            found = json.loads(self.ready_file.read_text("utf-8"))
        except (OSError, ValueError):
            raise NotRunningError("not running: no services on this state directory") from None
        if not isinstance(found, dict):
            raise NotRunningError(f"not running: {self.ready_file} does not name the services")
        return found
