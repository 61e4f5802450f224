"""Chat: intents, proposals, answers, and results that are told once."""

import asyncio

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.intent import IntentKind
from orchestrator.domain.mission import MissionStatus
from orchestrator.service.intake import GONOGO, ChatTurn, Reply
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House, draft, request

S = MissionStatus
SENTENCE = "create docs/new.md with 'hello'"


@pytest.mark.quick
async def test_a_sentence_becomes_a_proposed_mission_with_the_whole_chain_of_ids(house: House) -> None:
    """Message, intent and mission name each other, in the log and in the sealed plan."""
    reply = await house.say(SENTENCE)

    assert reply.intent is IntentKind.PROPOSE
    assert reply.mission is not None
    assert reply.mission.status is S.PROPOSED
    chain = (reply.mission.session_id, reply.mission.message_id, reply.mission.intent_id)
    assert chain == (reply.session_id, reply.message_id, reply.intent_id)
    stored = [event for event in house.log.read_all() if event.stream_id == f"chat/{reply.session_id}"]
    assert [(event.type, event.actor) for event in stored] == [
        ("message_received", "owner"),
        ("intent_classified", "owner"),
        ("message_received", GONOGO),
    ]


@pytest.mark.parametrize("name", ["two words", "line\nfeed", "\x1b[31m", "é", "x" * 129])
async def test_a_transcription_s_id_is_one_that_a_plan_can_carry(house: House, name: str) -> None:
    """What no executor would take for an id is refused when it is said, and nothing of it is written down."""

    def turn(transcription_id: str) -> ChatTurn:
        heard = ev.Transcription(transcription_id=transcription_id, text=SENTENCE, source="phone")
        return ChatTurn(session_id="", text=SENTENCE, transcription=heard, workspace_id="")

    events = len(house.log.read_all())
    with pytest.raises(OrchestratorError) as caught:
        await house.orchestrator.intake.send(request(), turn(name))
    assert caught.value.reason is Reason.MALFORMED
    assert len(house.log.read_all()) == events
    reply = await house.orchestrator.intake.send(request(), turn("t-1"))
    assert reply.mission is not None
    assert reply.mission.transcription_id == "t-1"


async def test_a_chat_neither_approves_nor_executes(house: House, executor: ExecutorSimulator) -> None:
    """The words are understood, and answered with how it is done."""
    mission = await house.approved()
    calls = list(executor.calls)

    approve = await house.say(f"approve {mission.mission_id}")
    execute = await house.say(f"execute {mission.mission_id}")

    assert "gonogo approve" in approve.text
    assert "gonogo execute" in execute.text
    assert house.mission(mission.mission_id).status is S.APPROVED
    assert executor.calls == calls


async def test_a_chat_answers_while_an_execution_runs(house: House, executor: ExecutorSimulator) -> None:
    """A long execution keeps nobody from talking."""
    executor.gate_open.clear()
    mission = await house.approved()
    running = asyncio.ensure_future(house.execute(mission))
    await asyncio.sleep(0.02)

    async with asyncio.timeout(1):
        reply = await house.say(f"what is the status of {mission.mission_id}")

    assert "is active" in reply.text
    executor.gate_open.set()
    await running


async def test_what_is_not_understood_changes_nothing_and_shows_the_nearest_forms(house: House) -> None:
    """The message and its classification are recorded; no mission is."""
    reply = await house.say("please do not delete old.txt")

    assert reply.intent is IntentKind.UNCLEAR
    assert reply.mission is None
    assert house.use.missions.page(size=9, before=None, status=None).missions == ()


async def test_a_refused_plan_is_answered_with_reason_and_remedy(house: House) -> None:
    """A chat is told in words what a program is told in reasons."""
    reply = await house.say("in nowhere: delete old.txt")

    assert reply.mission is None
    assert "no workspace" in reply.text


async def test_questions_and_control_words(house: House) -> None:
    """Status, list, waiting and help are answered from what is known; cancel cancels."""
    first = await house.say(SENTENCE)
    assert first.mission is not None
    mission_id = first.mission.mission_id

    assert mission_id in (await house.say("list missions")).text
    assert mission_id in (await house.say("what is waiting?")).text
    assert "is proposed" in (await house.say("status", first.session_id)).text
    assert "no result yet" in (await house.say(f"what is the result of {mission_id}")).text
    assert "create F with" in (await house.say("help")).text
    cancelled = await house.say(f"cancel {mission_id} because it is late")

    assert house.mission(mission_id).status is S.CANCELLED
    assert "it is late" in cancelled.text


async def test_feedback_is_recorded_on_the_mission(house: House) -> None:
    """Also on one that has ended."""
    mission = await house.approved()
    await house.execute(mission)

    await operating(house, f"feedback {mission.mission_id}: quick and tidy")

    last = house.events(mission.mission_id)[-1]
    assert last.payload == ev.FeedbackRecorded(text="quick and tidy")


async def operating(house: House, text: str, session_id: str = "") -> Reply:
    """Say something as somebody who may operate missions."""
    turn = ChatTurn(session_id=session_id, text=text, transcription=None, workspace_id="", controls_all=True)
    return await house.intake.send(request(person="operator"), turn)


async def test_feedback_asks_for_the_role_that_the_call_for_it_asks_for(house: House) -> None:
    """Who may only propose says nothing of missions in a chat that it could not say by the call."""
    mission = await house.proposed()
    reply = await house.say(f"feedback {mission.mission_id}: quick and tidy", asked=request(person="guest"))

    assert "may not" in reply.text
    assert "feedback_recorded" not in house.types(mission.mission_id)


@pytest.mark.parametrize("said", ["feedback: slow", "feedback: it broke"])
async def test_a_chat_without_a_mission_means_nobody_elses(house: House, said: str) -> None:
    """A sentence that names no mission is about the chat's own; in a new chat it changes nothing at all."""
    mission = await house.proposed()
    before = house.types(mission.mission_id)
    reply = await operating(house, said)

    assert "name the mission" in reply.text.lower()
    assert house.types(mission.mission_id) == before


async def ended_by_chat(house: House) -> tuple[str, str]:
    """Return the session and the mission of a chat's mission that was executed."""
    reply = await house.say(SENTENCE)
    assert reply.mission is not None
    await house.execute(await house.approve(reply.mission))
    return reply.session_id, reply.mission.mission_id


async def test_a_result_is_posted_back_once(house: House) -> None:
    """The chat that proposed a mission hears how it ended, and not again after restarts."""
    session_id, mission_id = await ended_by_chat(house)
    await house.intake.settle()
    following = await house.reopen()
    await following.intake.settle()

    told = [message for message in following.intake.messages(session_id, after=0, size=99) if message.mission_id]

    assert [(message.actor, message.mission_id) for message in told] == [(GONOGO, mission_id)] * 2
    assert "is completed" in told[-1].text
    await following.close()


async def test_a_result_that_was_not_told_is_told_after_the_restart(house: House) -> None:
    """A process that dies between the end and the telling leaves the telling to the next."""
    house.use.missions.store.ended_listeners.clear()
    session_id, _mission_id = await ended_by_chat(house)
    assert len(house.intake.messages(session_id, after=0, size=99)) == 2

    following = await house.reopen()
    await following.intake.settle()

    assert "is completed" in following.intake.messages(session_id, after=0, size=99)[-1].text
    await following.close()


async def test_the_same_message_request_is_answered_the_same(house: House) -> None:
    """Also when it comes many times at once, and after its mission moved on."""
    asked = request()
    replies = await asyncio.gather(*(house.say(SENTENCE, asked=asked) for _ in range(20)))
    assert replies[0].mission is not None
    await house.use.missions.reject(request(), replies[0].mission.mission_id, "no")

    again = await house.say(SENTENCE, asked=asked)

    assert all(reply == again for reply in replies)
    assert len(house.use.missions.page(size=9, before=None, status=None).missions) == 1


async def test_a_message_that_is_too_long_is_refused(house: House) -> None:
    """With a reason, and nothing is recorded."""
    with pytest.raises(OrchestratorError) as caught:
        await house.say("x" * 70_000)

    assert caught.value.reason is Reason.TOO_LARGE
    assert house.log.head() == 0


async def test_no_caller_takes_the_place_of_the_house_s_own_word(house: House) -> None:
    """Whatever a caller is called and names its requests, the chat is told how its mission ended."""
    reply = await house.say('in site: create file docs/hello.txt containing "hello"')
    assert reply.mission is not None
    mission_id = reply.mission.mission_id
    await house.use.missions.propose(request(mission_id, person="result"), draft())
    await house.use.missions.reject(request(), mission_id, "not this one")
    await house.intake.settle()
    told = [message.text for message in house.intake.messages(reply.session_id, after=0, size=10)]
    assert "not this one" in told[-1]
