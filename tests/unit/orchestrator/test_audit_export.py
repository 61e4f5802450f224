"""Exports of missions, and the proofs in them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from gonogo.merkle import leaf_hash, verify_consistency, verify_inclusion
from gonogo.notes import Checkpoint, open_note
from gonogo.signatures import load_public_key
from orchestrator.adapters.sqlite_driver import sqlite3
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.mission import MissionStatus
from orchestrator.service.audit_log import Exchanged, LogExtract
from orchestrator.service.exporting import MissionExport
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House


def proven(extract: LogExtract, public_key: str) -> Checkpoint:
    """Check every leaf of an extract; return its checkpoint."""
    checkpoint = open_note(extract.checkpoint, load_public_key(public_key), extract.checkpoint.partition("\n")[0])
    for entry in extract.entries:
        hashed = leaf_hash(entry.leaf)
        assert verify_inclusion(hashed, entry.index, checkpoint.size, entry.path, checkpoint.root)
    return checkpoint


def types(export: MissionExport) -> list[str]:
    """Return the types of an export's own events, in their order."""
    return [json.loads(entry.leaf)[3] for entry in export.own_log.entries]


async def exported(house: House, mission_id: str) -> MissionExport:
    return await house.use.exports.export(mission_id)


async def test_an_export_proves_a_whole_mission(house: House, executor: ExecutorSimulator) -> None:
    """All documents, the policy that the report names, and every event of both logs under signed checkpoints."""
    mission = await house.approved()
    await house.execute(mission)
    found = await exported(house, mission.mission_id)

    assert found.file.receipt is not None
    assert found.file.report is not None
    assert found.policy == executor.policy
    assert found.policy.digest == house.use.missions.documents.open_report(found.file.report).policy_digest
    assert types(found) == house.types(mission.mission_id)
    own = proven(found.own_log, found.public_key)
    assert own.size == house.log.head()
    assert found.executor_log is not None
    assert [json.loads(entry.leaf)["type"] for entry in found.executor_log.entries] == [
        "report_issued", "claimed", "ended"
    ]  # fmt: skip
    theirs = proven(found.executor_log, executor.key.public.line)
    kept = open_note(found.kept_checkpoint, executor.key.public, executor.log.origin)
    assert verify_consistency(kept.size, kept.root, theirs.size, theirs.root, found.consistency)
    assert 0 < kept.size < theirs.size


async def test_an_export_begins_with_the_message(house: House) -> None:
    """Of a mission from a chat the message and how it was understood come first, and no other message."""
    await house.say("help")
    reply = await house.say('in site: create file docs/hello.txt containing "hello"')
    other = await house.say("status", session_id=reply.session_id)
    assert reply.mission is not None
    assert other.text.startswith(f"{reply.mission.mission_id} is proposed")
    found = await exported(house, reply.mission.mission_id)

    assert types(found)[:3] == ["message_received", "intent_classified", "mission_proposed"]
    assert types(found).count("message_received") == 1
    said = json.loads(json.loads(found.own_log.entries[0].leaf)[9])
    assert said["message_id"] == reply.message_id
    proven(found.own_log, found.public_key)


async def test_a_mission_that_the_executor_never_heard_of(house: House, executor: ExecutorSimulator) -> None:
    """There are no leaves of it in the executor's log, whose checkpoint is there all the same, and no policy."""
    mission = await house.proposed()
    found = await exported(house, mission.mission_id)
    assert found.policy is None
    assert found.executor_log == LogExtract(checkpoint=executor.log.checkpoint(), entries=())


async def test_an_executor_that_is_away_leaves_its_part_out(house: House, executor: ExecutorSimulator) -> None:
    """The orchestrator's part is proved, and the executor's checkpoint that is kept goes along."""
    mission = await house.approved()
    await house.orchestrator.witness.exchange()
    executor.away = True
    found = await exported(house, mission.mission_id)
    assert found.executor_log is None
    assert house.orchestrator.witness.kept is not None
    assert found.kept_checkpoint == house.orchestrator.witness.kept.note
    proven(found.own_log, found.public_key)


async def test_the_policy_of_an_old_mission_is_its_own(house: House, executor: ExecutorSimulator) -> None:
    """An export carries the policy that the report was made under, not the one that came after."""
    mission = await house.approved()
    before = executor.policy
    executor.trust_version = 2
    await house.use.card.refresh()
    found = await exported(house, mission.mission_id)
    assert (found.policy, executor.policy == before) == (before, False)


async def test_a_log_that_grows_meanwhile(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves and checkpoint belong together while the log grows between the calls; one that never rests is refused."""
    mission = await house.approved()
    grown: list[int] = []
    extract = executor.log.extract

    def growing(mission_id: str) -> Any:
        if len(grown) < limit:
            grown.append(1)
            executor.log.add("report_issued", "m-other", "")
        return extract(mission_id)

    monkeypatch.setattr(executor.log, "extract", growing)
    limit = 3
    found = await exported(house, mission.mission_id)
    assert found.executor_log is not None
    theirs = proven(found.executor_log, executor.key.public.line)
    kept = open_note(found.kept_checkpoint, executor.key.public, executor.log.origin)
    assert verify_consistency(kept.size, kept.root, theirs.size, theirs.root, found.consistency)

    limit = 1000
    with pytest.raises(OrchestratorError) as caught:
        await exported(house, mission.mission_id)
    assert caught.value.reason is Reason.OVERLOADED


async def test_leaves_under_a_foreign_checkpoint_are_not_handed_on(
    house: House, executor: ExecutorSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the executor gives as a mission's leaves must come under a checkpoint of its own log."""
    mission = await house.approved()
    extract = executor.log.extract(mission.mission_id)
    assert extract is not None
    forged = replace(extract, checkpoint=extract.checkpoint.replace("\n", "\n1", 1))
    monkeypatch.setattr(executor.log, "extract", lambda _mission_id: forged)
    with pytest.raises(OrchestratorError) as caught:
        await exported(house, mission.mission_id)
    assert caught.value.reason is Reason.AUDIT_FORKED


async def test_both_logs_are_shown_with_their_proofs(house: House, executor: ExecutorSimulator) -> None:
    """Whoever keeps a checkpoint of either log gets a newer one that continues it, and its key."""
    audit = house.orchestrator.audit
    for look in (audit.own_log, audit.executor_log):
        first = await look(0)
        public = load_public_key(first.public_key)
        old = open_note(first.checkpoint, public, first.checkpoint.partition("\n")[0])
        await house.dry_run(await house.proposed())
        second = await look(old.size)
        new = open_note(second.checkpoint, public, old.origin)
        assert new.size > old.size
        assert verify_consistency(old.size, old.root, new.size, new.root, second.consistency)
    executor.away = True
    with pytest.raises(OrchestratorError) as caught:
        await audit.executor_log(0)
    assert caught.value.reason is Reason.EXECUTOR_UNAVAILABLE


async def test_more_than_there_is_is_a_fork(house: House) -> None:
    """A caller that keeps a checkpoint of more events than there are is told what that means."""
    await house.proposed()
    with pytest.raises(OrchestratorError, match="you keep a checkpoint over 1000 entries") as caught:
        await house.orchestrator.audit.own_log(1000)
    assert caught.value.reason is Reason.AUDIT_FORKED


def command(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the service's own commands."""
    line = [sys.executable, "-m", "orchestrator", "audit", *words, "--state", str(house.folder), "-o", "json"]
    return subprocess.run(line, capture_output=True, text=True, check=False)


async def test_the_commands_of_an_operator(house: House, executor: ExecutorSimulator) -> None:
    """`audit check` reads beside the running service and names what it finds; `audit forget` wants it stopped."""
    (house.folder / "keys" / "orchestrator.pub").write_text(house.log.signer.public_key + " orchestrator\n")
    await house.execute(await house.approved())
    shown = await house.orchestrator.audit.own_log(0)
    executor.log.rewrite(0)
    await house.orchestrator.witness.exchange()
    found = await asyncio.to_thread(command, house, "check")
    answer = json.loads(found.stdout)
    assert (found.returncode, answer["events"], answer["first_bad_event"]) == (1, house.log.head(), None)
    assert "does not continue" in answer["faults"][0]

    refused = await asyncio.to_thread(command, house, "forget")
    assert json.loads(refused.stderr.splitlines()[-1])["reason"] == "STORE_LOCKED"
    await house.close()
    forgotten = json.loads((await asyncio.to_thread(command, house, "forget")).stdout)["forgotten"]
    assert [one["log"] for one in forgotten] == [executor.log.origin]
    good = await asyncio.to_thread(command, house, "check")
    assert (good.returncode, json.loads(good.stdout)["faults"]) == (0, [])

    note = house.folder / "kept.note"
    note.write_text(shown.checkpoint)
    good = await asyncio.to_thread(command, house, "check", "--kept", str(note))
    assert (good.returncode, json.loads(good.stdout)["faults"]) == (0, [])
    note.write_text(shown.checkpoint.replace("\n", "\n1", 1))
    bad = await asyncio.to_thread(command, house, "check", "--kept", str(note))
    assert "kept.note: it is not a checkpoint of this log" in json.loads(bad.stdout)["faults"][0]

    with closing(sqlite3.connect(house.folder / "orchestrator" / "events.db")) as connection, connection:
        connection.execute("DROP TRIGGER events_are_never_changed")
        connection.execute("UPDATE events SET actor = 'eve' WHERE pos = 3")
    bad = await asyncio.to_thread(command, house, "check")
    assert (bad.returncode, json.loads(bad.stdout)["first_bad_event"]) == (1, 3)


async def test_an_export_of_a_mission_that_runs_is_of_one_moment(house: House, executor: ExecutorSimulator) -> None:
    """What has happened and is not in the log yet is in none of it: the shown state is that of the shown events."""
    mission = await house.approved()
    executor.gate_open.clear()
    running = asyncio.ensure_future(house.execute(mission))
    async with asyncio.timeout(10):
        while not house.use.missions.store.has_unwritten(mission.mission_id):  # noqa: ASYNC110 - a state is polled
            await asyncio.sleep(0)
    found = await exported(house, mission.mission_id)
    assert found.file.mission.last_sequence == len(found.own_log.entries)
    assert found.file.mission.status is MissionStatus.APPROVED
    executor.gate_open.set()
    await running
    assert (await exported(house, mission.mission_id)).file.mission.status is MissionStatus.COMPLETED


async def test_who_claims_to_keep_too_much_is_told_without_the_executor(
    house: House, executor: ExecutorSimulator
) -> None:
    """A caller's size that no log ever had is refused here; it is not carried on to the executor's log of errors."""
    await house.dry_run(await house.proposed())
    asked: list[int] = []
    exchange = executor.log.exchange

    def listening(checkpoint: str, consistency: Sequence[bytes], known_size: int) -> Exchanged:
        asked.append(known_size)
        return exchange(checkpoint, consistency, known_size)

    executor.log.exchange = listening  # type: ignore[method-assign]  # the test listens in
    with pytest.raises(OrchestratorError) as caught:
        await house.orchestrator.audit.executor_log(2**63)
    assert caught.value.reason is Reason.AUDIT_FORKED
    assert asked
    assert max(asked) < 2**63
    assert house.orchestrator.witness.fault == ""
