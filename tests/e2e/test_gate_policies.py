"""Gate 3 under the policies that a one-person installation does not have, and gate 1 in a new ledger epoch."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from gonogo import sealing
from gonogo.signatures import SigningKey, new_signing_key
from gonogo.v1 import evidence_pb2, executor_pb2, sealed_pb2
from tests.e2e.by_hand import prepared, start_executor
from tests.e2e.installation import Installation
from tests.e2e.test_gates import check
from tests.e2e.wire_house import Forger, created, forger, refused_from, signed, untouched

PERSON = """
[[persons]]
id = "{name}"
  [[persons.keys]]
  scheme = "sshsig"
  public_key = "{line}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Three persons, and an executor that wants two of them and not the proposer."""

    house: Installation
    second: SigningKey
    third: SigningKey


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """An executor whose trust file asks for two of three persons and refuses a proposer's own approval."""
    house = prepared(tmp_path_factory.mktemp("team"))
    found = Team(house=house, second=new_signing_key(), third=new_signing_key())
    trust = house.state / "trust.toml"
    text = trust.read_text().replace("approvals_required = 1", "approvals_required = 2")
    text = text.replace('self_approval = "allowed"', "")  # the built-in default is to refuse
    text += PERSON.format(name="second", line=found.second.public.line)
    text += PERSON.format(name="third", line=found.third.public.line)
    trust.write_text(text)
    process = start_executor(house.state, house.workspaces)
    yield found
    process.stop()


@asynccontextmanager
async def asked(team: Team, name: str, *, proposer_signs: bool) -> AsyncIterator[tuple[Forger, "Documents"]]:
    async with forger(team.house.state) as bad:
        plan = bad.sealed(bad.plan(created(name)))
        if proposer_signs:
            signature = bad.owner.sign("sshsig", sealing.PLAN, plan.body)
            plan.signatures.add(key_id=bad.owner.public.key_id, scheme="sshsig", signature=signature)
        yield bad, Documents(bad=bad, plan=plan, report=await bad.dry_run(plan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """A plan and its report, and who approves them."""

    bad: Forger
    plan: sealed_pb2.Sealed
    report: sealed_pb2.Sealed

    def approved_by(self, **keys: SigningKey) -> executor_pb2.ExecuteRequest:
        """Return the request with an approval of each of these persons."""
        approvals = [
            signed(key, self.bad.approval(self.plan, self.report, approver=name)) for name, key in keys.items()
        ]
        return self.bad.request(self.plan, self.report, *approvals)


async def test_one_of_two_persons_is_not_enough(team: Team) -> None:
    """One approval, the same one twice, and two by one person leave the quorum unmet; a second person meets it."""
    async with asked(team, "quorum.txt", proposer_signs=True) as (bad, documents):
        before = untouched(team.house)
        alone = documents.approved_by(second=team.second)
        twice = documents.approved_by(second=team.second)
        twice.approvals.append(twice.approvals[0])
        two = documents.approved_by(second=team.second)
        two.approvals.extend(documents.approved_by(second=team.second).approvals)
        for request in (alone, twice, two):
            check(await bad.refused(request), bad, 3, "QUORUM_NOT_MET")
        before.check()
        receipt = await bad.execute(documents.approved_by(second=team.second, third=team.third))
        assert {approval.approver for approval in receipt.approvals} == {"second", "third"}
        assert receipt.self_approval == evidence_pb2.SELF_APPROVAL_REFUSED


async def test_the_proposers_own_approval_does_not_count(team: Team) -> None:
    """Two approvals of which one is the proposer's are refused, and the report says that this policy held."""
    async with asked(team, "self.txt", proposer_signs=True) as (bad, documents):
        told = sealing.open_sealed(documents.report.body, evidence_pb2.Report)
        assert told.self_approval == evidence_pb2.SELF_APPROVAL_REFUSED
        before = untouched(team.house)
        request = documents.approved_by(owner=bad.owner, second=team.second)
        check(await bad.refused(request), bad, 3, "SELF_APPROVAL")
        before.check()


async def test_a_proposer_who_proved_nothing_may_be_any_of_the_approvers(team: Team) -> None:
    """A plan whose proposer did not sign it is refused however many approve: one of them may have written it."""
    async with asked(team, "unproven.txt", proposer_signs=False) as (bad, documents):
        before = untouched(team.house)
        request = documents.approved_by(second=team.second, third=team.third)
        check(await bad.refused(request), bad, 3, "SELF_APPROVAL")
        before.check()


async def test_one_person_can_not_fill_two_places_with_somebody_elses_name(team: Team) -> None:
    """A person who signs an approval in another's name is found out by the key."""
    async with asked(team, "name.txt", proposer_signs=True) as (bad, documents):
        before = untouched(team.house)
        request = documents.approved_by(second=team.second, third=team.second)
        check(await bad.refused(request), bad, 3, "SIGNATURE_INVALID")
        before.check()


async def test_without_a_policy_nothing_can_be_approved_or_even_dry_run(tmp_path: Path) -> None:
    """An executor whose trust file lost its policy refuses what was approved under it, and every dry run."""
    house = prepared(tmp_path)
    process = start_executor(house.state, house.workspaces)
    try:
        async with forger(house.state) as bad:
            request = await bad.ready(created("never.txt"))
        process.stop()
        trust = house.state / "trust.toml"
        head, _, rest = trust.read_text().partition("[policy]")
        newer = head.replace("version = 1\n", "version = 2\n")
        trust.write_text(newer + rest[rest.index("[[persons]]") :])
        process = start_executor(house.state, house.workspaces)
        async with forger(house.state) as bad:
            before = untouched(house)
            check(await bad.refused(request), bad, 3, "POLICY_REFUSES")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bad.dry_run(bad.sealed(bad.plan(created("never-either.txt"))))
            refused = refused_from(caught.value)
            assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
            assert refused.remedy
            before.check()
    finally:
        process.stop()


async def test_a_new_ledger_knows_none_of_the_old_reports(tmp_path: Path) -> None:
    """An executor whose ledger was lost starts a new epoch: what was executed under the old one can not run again."""
    house = prepared(tmp_path)
    process = start_executor(house.state, house.workspaces)
    try:
        async with forger(house.state) as bad:
            request = await bad.ready(created("epoch.txt"))
            await bad.execute(request)
            (house.workspaces["site"] / "epoch.txt").unlink()
        process.stop()
        shutil.rmtree(house.state / "executor")
        process = start_executor(house.state, house.workspaces)
        async with forger(house.state) as bad:
            before = untouched(house)
            check(await bad.refused(request), bad, 1, "REPORT_UNKNOWN")
            before.check()
    finally:
        process.stop()
