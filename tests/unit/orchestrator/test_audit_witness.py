"""Exchanging checkpoints with the executor: what is kept, when it is asked, and what follows from a fork."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from executor.runner.kept_logs import Kept, KeptLogs
from gonogo.merkle import consistency_path
from gonogo.notes import open_note
from gonogo.signatures import load_public_key, new_signing_key
from orchestrator.bootstrap import compose
from orchestrator.domain.errors import ExecutorUnavailableError, OrchestratorError, Reason
from orchestrator.domain.mission import MissionStatus
from orchestrator.service import witnessing
from orchestrator.service.audit_log import Exchanged
from tests.fakes.executor_simulator import Approver, ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request
from tests.fakes.simulated_log import SimulatedLog


async def test_both_sides_keep_the_other_s_checkpoint(house: House, executor: ExecutorSimulator) -> None:
    """After an exchange each has the other's newest, and the next one continues it."""
    for _ in range(3):
        await house.dry_run(await house.proposed())
        await house.orchestrator.witness.exchange()
        kept = house.orchestrator.witness.kept
        assert kept is not None
        assert (kept.size, kept.note) == (len(executor.log.leaves), executor.log.checkpoint())
        assert executor.log.kept[0] == house.log.head()
        assert house.log.witnessed() == (kept,)


async def test_the_executor_s_own_key_is_pinned(house: House, executor: ExecutorSimulator) -> None:
    """The orchestrator's checkpoint that the executor keeps is signed by the orchestrator's key."""
    signer = house.log.signer
    executor.log.orchestrator_key = load_public_key(signer.public_key)
    await house.orchestrator.witness.exchange()
    opened = open_note(executor.log.kept_note, load_public_key(signer.public_key), signer.origin)
    assert opened.size == executor.log.kept[0]


async def test_the_first_order_waits_for_an_exchange(house: House, executor: ExecutorSimulator) -> None:
    """Before anything is asked of an executor in a process's life, its checkpoint is looked at."""
    mission = await house.proposed()
    assert executor.log.kept_note == ""
    await house.dry_run(mission)
    assert executor.log.kept_note


async def test_an_executor_that_is_away_is_no_fork(house: House, executor: ExecutorSimulator) -> None:
    """Where no checkpoint can be exchanged the caller hears that, and later everything goes on."""
    mission = await house.proposed()
    executor.away = True
    with pytest.raises(ExecutorUnavailableError):
        await house.dry_run(mission)
    executor.away = False
    await house.dry_run(mission)
    assert house.orchestrator.witness.fault == ""


ATTACKS: dict[str, tuple[Callable[[SimulatedLog], None], str]] = {
    "cut": (lambda log: log.cut(1), "now has"),
    "rewritten": (lambda log: log.rewrite(0), "does not continue"),
    "another key": (lambda log: setattr(log, "key", new_signing_key()), "is not one of the log"),
    "another origin": (lambda log: setattr(log, "origin", "gonogo.local/executor/other"), "is not one of the log"),
}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
async def test_a_forked_executor_gets_no_orders(house: House, executor: ExecutorSimulator, attack: str) -> None:
    """A log that does not continue is named, and nothing is dry run or executed from then on."""
    waiting, approved = await house.proposed(), await house.approved()
    await house.orchestrator.witness.exchange()
    change, words = ATTACKS[attack]
    change(executor.log)
    await house.orchestrator.witness.exchange()

    assert words in house.orchestrator.witness.fault
    orders = executor.calls.count("dry_run"), executor.calls.count("execute")
    for refused in (house.dry_run(waiting), house.execute(approved), house.orchestrator.audit.own_log(0)):
        with pytest.raises(OrchestratorError) as caught:
            await refused
        assert (caught.value.reason, words in caught.value.message) == (Reason.AUDIT_FORKED, True)
    assert (executor.calls.count("dry_run"), executor.calls.count("execute")) == orders
    assert house.mission(approved.mission_id).status is MissionStatus.APPROVED


async def test_a_fork_is_not_forgotten_by_a_restart(house: House, executor: ExecutorSimulator) -> None:
    """What was found holds in the next life, although the executor shows a good log again, until it is forgotten."""
    mission = await house.approved()
    await house.orchestrator.witness.exchange()
    executor.log.rewrite(0)
    await house.orchestrator.witness.exchange()
    again = await house.reopen()
    with pytest.raises(OrchestratorError) as caught:
        await again.execute(mission)
    assert caught.value.reason is Reason.AUDIT_FORKED

    for kept in again.log.witnessed():
        await again.log.forget_witnessed(kept.origin)
    following = await again.reopen()
    await following.execute(mission)
    assert following.mission(mission.mission_id).status is MissionStatus.COMPLETED
    await following.close()


async def test_an_execution_under_way_is_followed_to_its_end(house: House, executor: ExecutorSimulator) -> None:
    """A fork that is found later takes nothing from a mission that was claimed: its receipt is recorded."""
    mission = await house.approved()
    executor.gate_open.clear()
    running = asyncio.ensure_future(house.execute(mission))
    async with asyncio.timeout(10):
        while "execute" not in executor.calls:  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.001)
    await house.orchestrator.witness.exchange()
    executor.log.cut(1)
    await house.orchestrator.witness.exchange()
    assert house.orchestrator.witness.fault
    executor.gate_open.set()
    await running
    assert house.mission(mission.mission_id).status is MissionStatus.COMPLETED


async def test_another_executor_is_not_taken_for_this_one(house: House, executor: ExecutorSimulator) -> None:
    """An executor of another name, with a good log of its own, is a fork until an operator says otherwise."""
    await house.dry_run(await house.proposed())
    kept = house.orchestrator.witness.kept
    assert kept is not None
    for other in house.log.witnessed():
        await house.log.forget_witnessed(other.origin)
    await house.log.keep_witnessed(
        type(kept)(origin="gonogo.local/executor/other", public_key=kept.public_key, size=kept.size, note=kept.note)
    )
    again = await house.reopen()
    with pytest.raises(OrchestratorError, match="another executor"):
        await again.dry_run(await again.proposed())
    await again.close()


async def test_the_key_on_this_host_counts(tmp_path: Path, approver: Approver) -> None:
    """Where the operator put the executor's public key, an executor that answers with another one is a fork."""
    executor = ExecutorSimulator(approver)
    house = House(tmp_path, executor, approver)
    pinned = compose(house.log, executor, executor_key=new_signing_key().public.line)
    with pytest.raises(OrchestratorError) as caught:
        await pinned.witness.before_an_order()
    assert caught.value.reason is Reason.AUDIT_FORKED
    await pinned.close()
    await house.close()


async def test_checkpoints_go_round_by_themselves(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While missions go on, both sides have each other's newest checkpoint shortly after."""
    monkeypatch.setattr(witnessing, "EXCHANGE_EVERY", 0.02)
    house.orchestrator.start()
    await house.dry_run(await house.proposed())
    async with asyncio.timeout(10):
        while executor.log.kept[0] != house.log.head():  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.01)


async def test_the_mission_s_ways_are_covered_by_checkpoints(house: House) -> None:
    """Approvals and what was not done are under a checkpoint when they are answered, a success shortly after."""

    def signed() -> int:
        return [checkpoint.size for checkpoint in house.log.checkpoints()][-1]

    mission = await house.approved()
    assert signed() == house.log.head()
    await house.execute(mission)
    async with asyncio.timeout(10):
        while signed() != house.log.head():  # noqa: ASYNC110 - a state is polled, not waited for
            await asyncio.sleep(0.01)
    given_up = await house.approved()
    await house.use.executions.cancel(request(), given_up.mission_id, "not needed")
    assert signed() == house.log.head()


async def test_each_policy_is_kept(house: House, executor: ExecutorSimulator) -> None:
    """A report's policy is among the stored documents, also when it changed just before the dry run and after it."""
    digests = []
    for version in (1, 2, 3):
        executor.trust_version = version
        mission = await house.proposed()
        await house.dry_run(mission)
        digests.append(executor.policy.digest)
    assert all(house.log.document(digest) is not None for digest in digests)
    assert len(set(digests)) == 3


async def test_a_proposal_without_any_exchange_is_possible(house: House, executor: ExecutorSimulator) -> None:
    """What is only written down here does not wait for the executor's log."""
    await house.proposed()
    executor.away = True
    answer = await house.use.missions.propose(request(), draft())
    assert answer.mission.status is MissionStatus.PROPOSED


class Careful:
    """The executor's own keeping of callers' logs, in the place of the simulator's; some of its answers get lost."""

    def __init__(self, log: SimulatedLog, key: str) -> None:
        self.rows: dict[str, Kept] = {}
        self.lose = 0
        self._log = log
        self._kept = KeptLogs(self, log_key_of=lambda _identity: key, now=lambda: datetime.now(UTC), wishes=tuple)

    def kept_checkpoints(self) -> tuple[Kept, ...]:
        return tuple(self.rows.values())

    def keep_checkpoint(self, kept: Kept, _at: datetime) -> None:
        self.rows[kept.identity] = kept

    def forget_checkpoint_of(self, identity: str, _at: datetime) -> bool:
        return self.rows.pop(identity, None) is not None

    def exchange(self, checkpoint: str, consistency: Sequence[bytes], known_size: int) -> Exchanged:
        kept_size = self._kept.take("orchestrator", checkpoint, consistency)
        size = len(self._log.leaves)
        if checkpoint and self.lose:
            self.lose -= 1
            raise ExecutorUnavailableError(Reason.EXECUTOR_UNAVAILABLE, "the answer was lost", "Try again.")
        path = consistency_path(known_size, size, self._log.hashes) if known_size <= size else []
        return Exchanged(checkpoint=self._log.checkpoint(), consistency=tuple(path), kept_size=kept_size)


@pytest.mark.parametrize("lost", [1, 2, 5])
@pytest.mark.parametrize("heard", [False, True])
async def test_answers_that_get_lost_are_no_fork(
    house: House, executor: ExecutorSimulator, lost: int, heard: bool
) -> None:
    """However many answers in a row are lost while the log grows, the next that arrives puts all right again."""
    careful = Careful(executor.log, house.log.signer.public_key)
    executor.log.exchange = careful.exchange  # type: ignore[method-assign]  # the real keeping instead
    if heard:
        await house.proposed()
        await house.orchestrator.witness.exchange()
    careful.lose = lost
    for _ in range(lost):
        await house.proposed()
        with pytest.raises(ExecutorUnavailableError):
            await house.orchestrator.witness.exchange()
    for _ in range(2):
        await house.proposed()
        await house.orchestrator.witness.exchange()
    assert house.orchestrator.witness.fault == ""
    assert careful.exchange("", (), 0).kept_size == house.log.head()
    assert not careful.rows["orchestrator"].fork


async def test_an_exchange_that_does_not_come_about_is_told_once(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An executor that is away for hours does not fill the service log; the next time it goes away is told again."""
    monkeypatch.setattr(witnessing, "EXCHANGE_EVERY", 0.001)
    witness = house.orchestrator.witness
    for _ in range(2):
        await house.proposed()
        caplog.clear()
        executor.away = True
        witness.start()
        await asyncio.sleep(0.1)
        assert caplog.text.count("no checkpoints are exchanged") == 1
        executor.away = False
        await asyncio.sleep(0.1)
        assert witness.kept is not None
        await witness.close()
