"""A person at work against the published port: the `gonogo` command with what the documented split leaves a person."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 120.0
WRITE = """\
objective: Write one file
workspace: site
steps:
  - create_file: {path: said.txt, content: "go\\n"}
  - search_files: {path: ., pattern: hello}
"""
SECOND = WRITE.replace("said.txt", "taken-back.txt")
RUN = """\
objective: Run a command
workspace: site
steps:
  - run_command: {argv: [sh, -c, "uname > kernel.txt"]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    said: Any
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a state directory of their own and the orchestrator's address."""

    state: Path
    address: str

    def gonogo(self, *arguments: str, text: str = "") -> Ended:
        """Run one command."""
        environment = {**os.environ, "GONOGO_STATE": str(self.state), "GONOGO_ORCHESTRATOR": self.address}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "client", *arguments, "-o", "json"],
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        said = json.loads(done.stdout) if done.stdout.strip() else {}
        return Ended(code=done.returncode, said=said, remark=done.stderr.strip())

    def proposed(self, plan: str) -> str:
        """Propose a plan file's text; return the mission."""
        ended = self.gonogo("propose", "-f", "-", text=plan)
        if ended.code:
            raise AssertionError(f"the plan was not taken: {ended.remark}")
        return str(ended.said["mission_id"])

    def dry_run(self, mission: str) -> Ended:
        """Have a mission tried."""
        return self.gonogo("dry-run", mission)

    def level_of(self, tried: Ended) -> str:
        """Return the ladder level that a dry run had."""
        return str(tried.said.get("ladder_level", "")).upper().removeprefix("LADDER_LEVEL_")

    def key(self) -> str:
        """Return the file of the approver's key."""
        return str(self.state / "keys/approver")

    def approved(self, mission: str) -> Ended:
        """Sign what the dry run found."""
        return self.gonogo("approve", mission, "--key", self.key(), "--yes")
