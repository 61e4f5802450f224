"""How the streams of the log are named: one per mission, one per chat session."""

from typing import Final

_MISSION: Final = "mission/"
_CHAT: Final = "chat/"

MISSIONS: Final = "mission"
"""The projection that holds where each mission stands."""
REFUSALS: Final = "refusal"
"""Index from a refusal's id to its document."""
WORDS: Final = "word"
"""Index from a mission and the id of a signed word about one of its steps to the word."""
CHAT_RESULTS: Final = "chat_result"
"""Missions that a chat proposed and whose result it has not been told."""


def mission_stream(mission_id: str) -> str:
    return _MISSION + mission_id


def chat_stream(session_id: str) -> str:
    return _CHAT + session_id


def mission_of(stream_id: str) -> str:
    """Return the mission whose stream this is, or nothing for a chat's."""
    return stream_id.removeprefix(_MISSION) if stream_id.startswith(_MISSION) else ""


def key_of(stream_id: str) -> str:
    """Return the id that a stream is named for."""
    return stream_id.partition("/")[2]
