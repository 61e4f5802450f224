"""Whether commands of a plan have a network: scope, trust file and whether it is a dry run decide."""

from dataclasses import replace
from pathlib import Path

import pytest

from executor.adapters.trust_tables import TrustFileError
from executor.domain.ladder import LadderLevel
from executor.domain.plan import NetworkAccess, Plan, RunCommand
from executor.domain.report import ReportStatus
from executor.outside.command_gates import NOTHING_LISTED, OFF_IN_DRY_RUN, CommandGates, Doors
from executor.runner.simulate import Simulator
from executor.runner.working_copy import CopyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.steps.edit import EditLimits
from executor.workspace.objects import ObjectStore
from tests.unit.executor.house import ignore
from tests.unit.executor.network_house import HOSTS, server
from tests.unit.executor.outside_house import OutsideHouse, outside_house, plan_of

__all__ = ["server"]  # the fixture

LISTED = 'domains = ["listed.test"]\n'
ALLOWED = '[network]\nprivate_addresses = ["127.0.0.1/32"]\ncommands_in_dry_run = true\n'


def a_plan(*argv: str, domains: tuple[str, ...] = ("listed.test",)) -> Plan:
    action = RunCommand(argv=argv or ("true",), cwd="", env={}, success_codes=())
    plan = plan_of(action, seconds=20)
    network = NetworkAccess.LISTED_DOMAINS if domains else NetworkAccess.NONE
    return replace(plan, scope=replace(plan.scope, domains=domains, network=network))


@pytest.mark.parametrize(
    ("domains", "tables", "dry_run", "wanted"),
    [
        (LISTED, ALLOWED, True, True),
        (LISTED, ALLOWED, False, True),
        (LISTED, "", False, True),
        (LISTED, "", True, OFF_IN_DRY_RUN),
        (LISTED, "[network]\ncommands_in_dry_run = false\n", True, OFF_IN_DRY_RUN),
        ("", ALLOWED, True, NOTHING_LISTED),
        ("", "", False, NOTHING_LISTED),
    ],
)
def test_both_lists_and_the_dry_runs_own_word(
    tmp_path: Path, domains: str, tables: str, *, dry_run: bool, wanted: bool | str
) -> None:
    """Off in dry runs unless the operator says otherwise, and nowhere without hosts on both lists; it is said why."""
    with outside_house(tmp_path, tables, domains=domains) as house:
        gate = CommandGates(doors=Doors(trust=house.trust), dry_run=dry_run).gate(a_plan())
    assert (gate.gateway is not None or gate.why_none) == wanted
    assert bool(gate.gateway) != bool(gate.why_none)


def test_a_plan_that_asks_for_none_has_none(tmp_path: Path) -> None:
    """And nothing is said about it."""
    with outside_house(tmp_path, ALLOWED, domains=LISTED) as house:
        gate = CommandGates(doors=Doors(trust=house.trust), dry_run=False).gate(a_plan(domains=()))
    assert (gate.gateway, gate.why_none) == (None, "")


def test_the_word_is_true_or_false(tmp_path: Path) -> None:
    """Anything else is refused with its place."""
    with (
        pytest.raises(TrustFileError, match="commands_in_dry_run"),
        outside_house(tmp_path, '[network]\ncommands_in_dry_run = "yes"\n'),
    ):
        pass


def simulated(house: OutsideHouse, plan: Plan, port: int) -> tuple[ReportStatus, list[tuple[str, str]]]:
    """A dry run's status, and its notices of the network."""
    doors = Doors(trust=house.trust, ports=frozenset((80, 443, port)), lookup=lambda host, _port: (HOSTS[host],))
    simulator = Simulator(
        sandbox=Bubblewrap.on_this_machine(),
        ladder_level=LadderLevel.L3,
        objects=ObjectStore(house.folder / "objects", lambda _: None),
        edit_limits=EditLimits(content_bytes=1 << 20),
        copy_limits=CopyLimits(
            change_bytes=1 << 24, change_count=1000, output_bytes=1 << 20, processes=100, open_files=256
        ),
        tools=(),
        network=CommandGates(doors=doors, dry_run=True),
    )
    found = simulator.run(plan, house.workspace, ignore)
    kinds = {"network_off", "network_used"}
    return found.status, [(one.kind, one.message) for one in found.notices if one.kind in kinds]


@pytest.mark.sandbox
def test_a_dry_run_says_what_its_commands_reached(tmp_path: Path, server: int) -> None:
    """The report names each host with what went each way, and what was refused."""
    script = f"curl -sSf http://listed.test:{server}/a > fetched; curl -s https://other.test/ ; true"
    with outside_house(tmp_path, ALLOWED, domains=LISTED) as house:
        status, notices = simulated(house, a_plan("/bin/sh", "-c", script), server)
    assert status is ReportStatus.SUCCESS
    assert [kind for kind, _ in notices] == ["network_used", "network_used"]
    assert f"reached listed.test:{server}: 1 connections" in notices[0][1]
    assert "does not name other.test" in notices[1][1]


@pytest.mark.sandbox
def test_a_dry_run_without_says_so(tmp_path: Path, server: int) -> None:
    """The command runs, without a network."""
    with outside_house(tmp_path, "", domains=LISTED) as house:
        status, notices = simulated(house, a_plan("/bin/sh", "-c", "! env | grep -i proxy"), server)
    assert (status, notices) == (ReportStatus.SUCCESS, [("network_off", OFF_IN_DRY_RUN)])
