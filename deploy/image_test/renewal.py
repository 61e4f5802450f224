"""Certificates that are replaced under running containers, as docs/deploy.md says."""

from collections.abc import Mapping

from deploy.image_test import page
from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine
from deploy.image_test.mission import Person

READ_AGAIN = "the certificates were read again"


def check(engine: Engine, person: Person, places: Mapping[str, str], checks: Checks) -> None:
    """Renew where the authority is kept, bring the files over, and restart nothing."""
    page.run_commands("Running them", places)
    listed = person.gonogo("list")
    holds = listed.code == 0 and READ_AGAIN in engine.said("orchestrator")
    checks.say("certificates are renewed without a restart", holds=holds, detail=listed.remark)
