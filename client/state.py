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


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDirectory:
    """Paths below one state directory."""

    root: Path

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
    def executor_public_key(self) -> Path:
        return self.keys / "executor.pub"

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
        """Return where the orchestrator listens.

        Raises:
            NotRunningError: `gonogo up` is not running on this state.
        """
        given = os.environ.get(ADDRESS_VARIABLE)
        return given or str(self.ready().get("orchestrator", ""))

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
