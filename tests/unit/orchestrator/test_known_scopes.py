"""The scope of a plan that this process sealed is known without reading the plan again."""

from datetime import UTC, datetime

from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.domain.plan import DeletePath, FailurePolicy, Plan, Scope, Step


def a_plan(scope: Scope) -> Plan:
    """Return a small plan with this scope."""
    return Plan(
        plan_id="p-1",
        mission_id="m-1",
        intent_id="i-1",
        message_id="",
        transcription_id="",
        cloned_from="",
        objective="Tidy up",
        workspace_id="site",
        executor_id="executor-1",
        proposer="owner",
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        scope=scope,
        failure_policy=FailurePolicy.ROLL_BACK,
        steps=(Step(step_id="s1", action=DeletePath(path="old.txt")),),
    )


def test_a_known_scope_is_the_one_that_the_plan_says() -> None:
    """Whoever sealed a plan and whoever reads it find the same scope."""
    for scope in (Scope(), Scope(paths=("docs/**", "old.txt"), max_duration_seconds=60)):
        sealing, reading = SealedDocuments(), SealedDocuments()
        sealed = sealing.seal_plan(a_plan(scope))
        assert (sealing.scope_of(sealed), reading.scope_of(sealed)) == (scope, scope)
