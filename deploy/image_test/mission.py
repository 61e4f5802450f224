"""A person at work against the published port: the `gonogo` command with what the documented split leaves a person."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 120.0
PATIENCE = 30.0
NOT_APPROVED, ALREADY_EXECUTED = 3, 8  # the command's documented exit codes
WRITE = """\
objective: Write one file
workspace: site
steps:
  - create_file: {path: said.txt, content: "go\\n"}
  - search_files: {path: ., pattern: hello}
"""
SECOND = WRITE.replace("said.txt", "taken-back.txt")
SLOW = """\
objective: Test for as long as it is held
workspace: site
steps:
  - create_file: {{path: {name}-1.txt, content: "1\\n"}}
  - run_tests: {{argv: [sh, -c, "while test -e /hold/{name}; do sleep 0.1; done"]}}
  - create_file: {{path: {name}-2.txt, content: "2\\n"}}
"""
FETCH = """\
objective: Read a page
workspace: site
scope: {network: listed_domains, domains: [web.example], max_pages: 1}
steps:
  - fetch_url: {url: "http://web.example/news", extract_text: true}
"""
SEND = """\
objective: Read a page and answer it
workspace: site
scope: {network: listed_domains, domains: [web.example], max_pages: 1}
steps:
  - fetch_url: {url: "http://web.example/news", extract_text: true}
  - search_bodies: {query: figures}
  - http_request:
      method: POST
      url: http://web.example/posts
      content: "it is here"
      idempotency_header: Idempotency-Key
"""
FAR = """\
objective: Call a tool and change a database
workspace: site
steps:
  - call_tool: {server: notes, tool: add, arguments: {text: "it is here"}}
  - run_sql: {database: shop, statement: "UPDATE banner SET text = ? WHERE id = ?", parameters: ["It is here", 7]}
"""
OUT = """\
objective: Fetch with a command, and with a program that runs once
workspace: site
scope: {network: listed_domains, domains: [web.example]}
steps:
  - run_command:
      argv:
        - python3
        - -c
        - import urllib.request as u; open("page.html", "wb").write(u.urlopen("http://web.example/command").read())
  - run_live:
      argv:
        - python3
        - -c
        - import urllib.request as u; u.urlopen("http://web.example/program", b"it is here")
      access: network
"""
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

    def ready(self, plan: str) -> str:
        """Propose a plan, have it tried, and approve of it; return the mission."""
        mission = self.proposed(plan)
        for ended in (self.dry_run(mission), self.approved(mission)):
            if ended.code:
                raise AssertionError(f"{mission} is not ready: {ended.remark}")
        return mission

    def standing(self, mission: str) -> tuple[str, str]:
        """Return a mission's status, and the kind of its pause or its outcome."""
        found = self.gonogo("show", mission).said
        pause = found.get("pause") or {}
        return str(found["status"]), str(pause.get("kind") or found.get("outcome") or "")

    def until(self, mission: str, *wanted: str) -> tuple[str, str]:
        """Wait until a mission has one of these statuses; return how it stands then, or when patience ends."""
        deadline = time.monotonic() + PATIENCE
        while (standing := self.standing(mission))[0] not in wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        return standing

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
