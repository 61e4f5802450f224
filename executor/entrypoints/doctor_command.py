"""`python -m executor doctor`: what works on the executor's host or in its container, whether one runs there or not.

What `gonogo doctor` shows of a running executor was found when that one started; this is found now. It opens nothing of
a running executor's: it tries the sandbox in a throw-away folder beside the staged changes, and reads the trust file.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, TextIO

from executor.adapters.sqlite_driver import installed_sqlite
from executor.adapters.trust_file import parse_trust, read_trust_bytes
from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.machines import probe_here
from executor.outside.installed import live_extra
from executor.runner.ports import Finding
from executor.settings import Settings, read_settings
from gonogo.safe_text import safe_line

LEVELS: Final = {
    LadderLevel.L0: "L0: reads only",
    LadderLevel.L1: "L1: typed steps, no commands and no tests",
    LadderLevel.L2: "L2: commands on a private copy of the workspace",
    LadderLevel.L3: "L3: commands on a copy-on-write view of the workspace",
}
FATAL: Final = frozenset({"trust_file"})
"""What keeps the executor from starting; the others keep it from something."""


def run(argv: Sequence[str], environment: Mapping[str, str], out: TextIO = sys.stdout) -> int:
    """Tell what works, one line each, and what to do about what does not; 1 where the executor could not start.

    Raises:
        SettingsError: what the executor would be started with can not be used.
    """
    parser = argparse.ArgumentParser(prog="python -m executor doctor", allow_abbrev=False, add_help=False)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the answer")
    given, others = parser.parse_known_args(argv)
    settings = read_settings(others, environment)
    level, findings = examine(settings)
    found = {"ladder_level": level.name, "findings": [asdict(one) for one in findings]}
    out.write((json.dumps(found) if given.output == "json" else _text(findings)) + "\n")
    return 1 if any(not one.ok and one.name in FATAL for one in findings) else 0


def examine(settings: Settings) -> tuple[LadderLevel, list[Finding]]:
    """Look at what the executor stands on, and try what can be isolated."""
    probed = probe_here(settings)
    # A cgroup can not be looked for without moving into it; the running executor tells of it.
    tried = [Finding(name=one.name, ok=one.ok, detail=one.detail, remedy=one.remedy) for one in probed.findings]
    whole = probed.level is max(LadderLevel)
    reached = Finding(
        name="ladder",
        ok=whole,
        detail=LEVELS[probed.level],
        remedy="" if whole else "the findings of the sandbox say why, and what to do",
    )
    sandbox = [one for one in tried if one.name != "cgroups"]
    return probed.level, [_trust_file(settings), installed_sqlite(), _ripgrep(), reached, *sandbox, live_extra()]


def _trust_file(settings: Settings) -> Finding:
    try:
        trust = parse_trust(read_trust_bytes(settings.trust_file))
    except ExecutorError as error:
        return Finding(
            name="trust_file", ok=False, detail=safe_line(error.fault.message), remedy=safe_line(error.fault.remedy)
        )
    return Finding(name="trust_file", ok=True, detail=f"{trust.executor_id}, version {trust.version}", remedy="")


def _ripgrep() -> Finding:
    path = shutil.which("rg")
    if path is None:
        detail, remedy = "rg is missing: search steps are blocked", "install the package ripgrep"
        return Finding(name="ripgrep", ok=False, detail=detail, remedy=remedy)
    return Finding(name="ripgrep", ok=True, detail=path, remedy="")


def _text(findings: Sequence[Finding]) -> str:
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{'ok' if one.ok else 'no':4}{one.name:{width}}  {one.detail}")
        if one.remedy:
            lines.append(f"{'':{width + 6}}{one.remedy}")
    return "\n".join(lines)
