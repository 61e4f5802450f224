from collections.abc import Iterable, Sequence
from typing import Protocol

from client.render.layout import table
from gonogo.safe_text import safe_line


class Finding(Protocol):
    """One finding of the doctor."""

    @property
    def name(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def remedy(self) -> str: ...


class Check(Protocol):
    """One check of a proof."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...


def findings_text(findings: Iterable[Finding]) -> str:
    """Return findings one by one, each remedy below what it is for."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level:<4}  {safe_line(finding.name)}: {safe_line(finding.detail)}")
        if finding.remedy:
            lines.append(f"      → {safe_line(finding.remedy)}")
    return "\n".join(lines)


def proof_text(checks: Sequence[Check], missing: Sequence[Check]) -> str:
    """Return a proof as a table: what was checked, what was not there, and the verdict below."""
    rows = [("ok" if check.ok else "FAIL", check.name, check.detail) for check in checks]
    rows += [("-", check.name, f"not there: {check.detail}") for check in missing]
    holding = sum(check.ok for check in checks)
    verdict = "valid" if checks and holding == len(checks) else "NOT VALID"
    absent = f", {len(missing)} could not be made" if missing else ""
    return f"{table(('', 'check', 'detail'), rows)}\n\n{verdict}{absent}: {holding} of {len(checks)} checks hold"
