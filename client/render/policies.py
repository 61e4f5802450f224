"""What a policy asks of a mission, for people."""

from collections.abc import Iterable, Sequence

from client.explaining import Explanation, proposer_words
from client.policy_cases import Result
from client.render.layout import fields, table
from gonogo.policy_words import demand_words, requirements_words
from gonogo.safe_text import safe_line


def explanation_text(found: Explanation) -> str:
    """Return an explanation."""
    head = fields(
        [
            ("mission", found.mission.plan.mission_id),
            ("policy", f"{found.policy_digest} (trust file version {found.policy.trust_version})"),
            ("proposer", proposer_words(found.proposer)),
            ("verdict", "approved" if found.verdict.met else f"not approved: {found.verdict.message}"),
            ("missing", requirements_words(found.verdict.missing)),
        ]
    )
    parts = [head, _listed("DEMANDED", demand_words(found.demand)), _listed("BECAUSE OF", found.rules)]
    rows = [(one.person, one.state, one.why) for one in found.standings]
    parts += [table(("person", "state", "why"), rows), _listed("NOTE", found.remarks)]
    return "\n\n".join(part for part in parts if part)


def results_text(results: Sequence[Result]) -> str:
    """Return what came of a table of cases."""
    rows = [
        ("ok" if not one.differences else "FAILED", one.case.name, "; ".join(one.differences) or _came_to(one))
        for one in results
    ]
    return table(("", "case", "came to"), rows)


def _came_to(one: Result) -> str:
    return "approved" if one.verdict.met else f"{one.verdict.reason}: {one.verdict.message}"


def _listed(title: str, lines: Iterable[str]) -> str:
    kept = [f"  {safe_line(line)}" for line in lines]
    return "\n".join([title, *kept]) if kept else ""
