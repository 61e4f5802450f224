"""The file of callers: believed only when it is right, read again when it changes."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.callers_file import first_callers, look_at
from orchestrator.adapters.callers_file import LOOK_SECONDS, CallersFile
from orchestrator.adapters.clock import SystemClock
from orchestrator.domain.callers import Caller, Credential, Role
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.service.callers import CallerRecord, Callers, CallersUnreadableError

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OWNER: dict[str, Any] = {
    "name": "owner",
    "credential": "certificate",
    "roles": ["view", "administer"],
    "added_at": "2026-11-20T12:00:00Z",
}
TOKEN = {**OWNER, "name": "ci", "credential": "token", "token_sha256": "0" * 64}


class Ticks:
    """A clock that goes forwards when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def look(self) -> None:
        self.now += LOOK_SECONDS


def text(*callers: dict[str, Any], **changes: Any) -> str:
    return json.dumps({"version": 1, "callers": list(callers), **changes})


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Put a new file in the place of another, as a careful editor does."""
    new = path.with_suffix(".new")
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    new.chmod(mode)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one caller."""
    found = tmp_path / "callers.json"
    write(found, text(OWNER))
    return found


BAD: dict[str, str | bytes] = {
    "nothing": "",
    "no JSON": "{",
    "no text": b"\xff\xfe",
    "a list": "[]",
    "deep": "[" * 100_000,
    "another version": text(OWNER, version=2),
    "a version that is true": text(OWNER, version=True),
    "something unknown": text(OWNER, extra=1),
    "no list": text(callers={}),
    "a caller that is a text": text("owner"),  # type: ignore[arg-type]  # anything can stand in a file
    "an unknown key": text({**OWNER, "admin": True}),
    "a key too few": text({key: OWNER[key] for key in ("name", "credential", "roles")}),
    "a role that is none": text({**OWNER, "roles": ["root"]}),
    "no roles": text({**OWNER, "roles": []}),
    "a role twice": text({**OWNER, "roles": ["view", "view"]}),
    "roles that are a text": text({**OWNER, "roles": "view"}),
    "a credential that is none": text({**OWNER, "credential": "password"}),
    "a reserved name": text({**OWNER, "name": "executor"}),
    "a name that is a number": text({**OWNER, "name": 1}),
    "a name twice": text(OWNER, OWNER),
    "a token twice": text(TOKEN, {**TOKEN, "name": "cd"}),
    "a token without its hash": text({key: value for key, value in TOKEN.items() if key != "token_sha256"}),
    "a certificate with a hash": text({**OWNER, "token_sha256": "0" * 64}),
    "a hash that is none": text({**TOKEN, "token_sha256": "0" * 63}),
    "a hash that is null": text({**TOKEN, "token_sha256": None}),
    "a time without a zone": text({**OWNER, "added_at": "2026-11-20T12:00:00"}),
    "a time that is none": text({**OWNER, "expires_at": "never"}),
    "a time that is null": text({**OWNER, "expires_at": None}),
    "a key twice": text(OWNER).replace('"name": "owner"', '"name": "ann", "name": "owner"'),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_file_that_is_wrong_serves_nobody(path: Path, content: str | bytes) -> None:
    """No part of it is believed and nothing older is kept; what is wrong is said, and mending it is enough."""
    ticks = Ticks()
    file = CallersFile(path, monotonic=ticks)
    assert file.current().by_name
    write(path, content)
    ticks.look()
    with pytest.raises(CallersUnreadableError) as caught:
        file.current()
    assert caught.value.message.startswith("nobody is served: the list of callers ")
    assert "gonogo caller init" in caught.value.remedy
    with pytest.raises(CallersUnreadableError):
        file.change(lambda records: records)

    write(path, text(OWNER, TOKEN))
    ticks.look()
    assert set(file.current().by_name) == {"owner", "ci"}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_serves_nobody(path: Path, mode: int) -> None:
    """Whoever can write the list can make themselves anything."""
    write(path, text(OWNER), mode)
    with pytest.raises(CallersUnreadableError, match="may be written by others"):
        CallersFile(path).current()


def test_without_a_file_nobody_is_served(path: Path) -> None:
    """Neither at the start nor when it goes; who calls by certificate is told why, who shows a token is not."""
    path.unlink()
    callers = Callers(records=CallersFile(path), clock=SystemClock())
    with pytest.raises(RequestRefusedError, match="is missing") as caught:
        callers.of_certificate("owner")
    assert caught.value.reason is Reason.ROLE_MISSING
    with pytest.raises(RequestRefusedError) as caught:
        callers.of_token("gonogo_" + "A" * 43)
    assert caught.value.reason is Reason.UNAUTHENTICATED
    assert "missing" not in caught.value.message


def test_changes_by_hand_are_seen_without_a_restart(path: Path) -> None:
    """A file is looked at again after a moment; in between, no call touches the disk."""
    ticks = Ticks()
    file = CallersFile(path, monotonic=ticks)
    first = file.current()
    write(path, text(OWNER, TOKEN))
    assert file.current() is first
    ticks.look()
    assert set(file.current().by_name) == {"owner", "ci"}
    path.unlink()
    ticks.look()
    with pytest.raises(CallersUnreadableError):
        file.current()


def test_a_change_is_whole_private_and_based_on_what_stands_there(path: Path) -> None:
    """What somebody wrote by hand a moment ago is kept; the new file is the owner's alone."""
    file = CallersFile(path, monotonic=Ticks())
    file.current()
    write(path, text(OWNER, TOKEN))
    ann = Caller(name="ann", credential=Credential.CERTIFICATE, roles=frozenset({Role.VIEW}), added_at=NOW)

    file.change(lambda records: (*records, CallerRecord(caller=ann)))

    assert set(file.current().by_name) == {"owner", "ci", "ann"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["callers.json"]
    assert CallersFile(path).current().by_name["ann"].caller == ann


def test_a_change_that_can_not_be_written_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former list stays in force, and the caller of the change is told."""
    file = CallersFile(path)
    monkeypatch.setattr("os.fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="can not be written: No space left"):
        file.change(lambda _records: ())
    assert set(file.current().by_name) == {"owner"}
    assert path.read_text() == text(OWNER)


def test_a_fault_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However many calls a wrong file refuses, the log says it once."""
    ticks = Ticks()
    file = CallersFile(path, monotonic=ticks)
    path.unlink()
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            ticks.look()
            with pytest.raises(CallersUnreadableError):
                file.current()
    assert len(caplog.records) == 1


def test_the_first_list_is_one_that_the_orchestrator_reads(path: Path) -> None:
    """What `gonogo init` writes names its owner with all four roles."""
    write(path, first_callers("owner", NOW))
    assert CallersFile(path).current().by_name["owner"].caller == Caller(
        name="owner", credential=Credential.CERTIFICATE, roles=frozenset(Role), added_at=NOW
    )


def test_the_doctor_looks_at_the_list(path: Path) -> None:
    """It names a list that is missing, wrong, open to others, without an administrator or about to expire."""
    end = {**TOKEN, "expires_at": "2026-11-25T00:00:00Z"}
    cases = {
        text(OWNER): ["ok"],
        text(OWNER, end): ["warn", "ok"],
        text({**OWNER, "roles": ["view"]}): ["warn", "ok"],
        text({**OWNER, "roles": ["root"]}): ["fail"],
        "{": ["fail"],
    }
    for content, levels in cases.items():
        write(path, content)
        found = list(look_at(path, NOW))
        assert [seen.level for seen in found] == levels
        assert all(seen.remedy for seen in found if seen.level != "ok")
    write(path, text(OWNER), 0o666)
    assert [seen.level for seen in look_at(path, NOW)] == ["fail", "ok"]
    path.unlink()
    [missing] = look_at(path, NOW)
    assert (missing.level, missing.remedy) == ("fail", "gonogo caller init")
