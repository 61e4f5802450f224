"""Who a caller is by what it shows, and the keeping of the list."""

import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.callers_file import CallersFile
from orchestrator.domain.callers import ACCESS, Access, Credential, Reach, Role, is_name, reach
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.service.callers import Callers, WantedCaller
from tests.fakes.orchestrator_house import MovableClock, request

EVERYTHING = frozenset(Role)
OWNER = WantedCaller(name="owner", credential=Credential.CERTIFICATE, roles=EVERYTHING)
EMPTY = '{"version": 1, "callers": []}'


class Desk:
    """The list of callers in a file, and a clock that can be set forward."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "callers.json"
        self.path.write_text(EMPTY)
        self.path.chmod(0o600)
        self.clock = MovableClock()
        self.callers = Callers(records=CallersFile(self.path), clock=self.clock)
        self.callers.add(request(), OWNER)

    def token(self, name: str = "ci", *roles: Role, expires_at: datetime | None = None) -> str:
        """Add a caller with a token and return the token."""
        wanted = WantedCaller(
            name=name,
            credential=Credential.TOKEN,
            roles=frozenset(roles or (Role.PROPOSE,)),
            expires_at=expires_at,
        )
        return self.callers.add(request(), wanted).token


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A list with an owner of all roles."""
    return Desk(tmp_path)


def refused(error: pytest.ExceptionInfo[RequestRefusedError]) -> Reason:
    """Return the reason, after making sure that there is a remedy."""
    assert error.value.remedy
    return error.value.reason


@pytest.mark.parametrize(
    ("roles", "method", "reached"),
    [
        ((), "GetMission", Reach.NOTHING),
        (("view",), "GetMission", Reach.EVERYTHING),
        (("view",), "ProposeMission", Reach.NOTHING),
        (("propose",), "ListMissions", Reach.EVERYTHING),
        (("propose",), "ProposeMission", Reach.EVERYTHING),
        (("propose",), "ApproveMission", Reach.NOTHING),
        (("propose",), "ExecuteMission", Reach.NOTHING),
        (("propose",), "CancelMission", Reach.OWN_MISSIONS),
        (("propose",), "DryRunMission", Reach.OWN_MISSIONS),
        (("propose",), "SignPlan", Reach.OWN_MISSIONS),
        (("operate",), "SignPlan", Reach.NOTHING),
        (("propose", "operate", "administer"), "SignPlan", Reach.OWN_MISSIONS),
        (("operate",), "DryRunMission", Reach.EVERYTHING),
        (("operate",), "CancelMission", Reach.EVERYTHING),
        (("operate",), "ProposeMission", Reach.NOTHING),
        (("operate",), "AddCaller", Reach.NOTHING),
        (("administer",), "AddCaller", Reach.EVERYTHING),
        (("administer",), "WatchMission", Reach.EVERYTHING),
        (("administer",), "ExecuteMission", Reach.NOTHING),
        (("propose", "operate"), "RejectMission", Reach.EVERYTHING),
    ],
)
def test_what_roles_reach(roles: tuple[str, ...], method: str, reached: Reach) -> None:
    """Each role opens its own methods and viewing, and nothing else."""
    assert reach(frozenset(Role(role) for role in roles), ACCESS[method]) is reached


def test_nobody_reaches_anything_without_a_role() -> None:
    """No row of the table is open to a caller without roles."""
    assert {reach(frozenset(), access) for access in ACCESS.values()} == {Reach.NOTHING}
    assert reach(frozenset(), Access(role=Role.VIEW, own=Role.VIEW)) is Reach.NOTHING


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "gonogo", "executor", "deadline", "x" * 65, "a\n", "٣"])
def test_names_that_are_none(name: str, desk: Desk) -> None:
    """A caller is not called what could be taken for something else."""
    assert not is_name(name)
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.add(request(), replace(OWNER, name=name))
    assert refused(caught) is Reason.MALFORMED


def test_a_certificate_s_name_must_be_listed(desk: Desk) -> None:
    """A name that the list does not have has no role, and is told how to get one."""
    assert desk.callers.of_certificate("owner").roles == EVERYTHING
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.of_certificate("ann")
    assert refused(caught) is Reason.ROLE_MISSING
    assert "gonogo caller add ann" in caught.value.remedy


def test_a_token_is_shown_once_and_kept_as_its_hash(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """32 random bytes; neither the list nor the log has them, and the hash is of the token's text."""
    caplog.set_level(logging.DEBUG)
    token = desk.token()

    assert len(token) == len("gonogo_") + 43
    assert desk.token("other") != token
    assert token not in desk.path.read_text()
    assert token not in caplog.text
    assert hashlib.sha256(token.encode()).hexdigest() in desk.path.read_text()
    assert desk.callers.of_token(token).name == "ci"


def test_what_is_no_token_is_nobody_s(desk: Desk) -> None:
    """A token that is changed by one character, cut, longer, empty, or another text is refused, and never repeated."""
    token = desk.token()
    stored = hashlib.sha256(token.encode()).hexdigest()
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    for shown in (changed, token[:-1], token + "A", token + "\n", " " + token, "", "x", stored, token.upper()):
        with pytest.raises(RequestRefusedError) as caught:
            desk.callers.of_token(shown)
        assert refused(caught) is Reason.UNAUTHENTICATED
        assert len(shown) < 2 or shown.strip() not in caught.value.message + caught.value.remedy


def test_a_token_s_name_is_no_certificate_s(desk: Desk) -> None:
    """A certificate that carries the name of a caller with a token does not make its holder that caller."""
    desk.token("ci")
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.of_certificate("ci")
    assert refused(caught) is Reason.UNAUTHENTICATED


def test_callers_expire(desk: Desk) -> None:
    """From the moment of its expiry on a caller is refused, whichever way it shows who it is."""
    end = desk.clock.now() + timedelta(minutes=5)
    token = desk.token("ci", expires_at=end)
    desk.callers.add(request(), replace(OWNER, name="ann", expires_at=end))
    assert desk.callers.of_token(token).name == desk.callers.of_token(token).name == "ci"
    assert desk.callers.of_certificate("ann").name == "ann"

    desk.clock.ahead = timedelta(minutes=5)

    for show in (partial(desk.callers.of_token, token), partial(desk.callers.of_certificate, "ann")):
        with pytest.raises(RequestRefusedError) as caught:
            show()
        assert refused(caught) is Reason.UNAUTHENTICATED
    with pytest.raises(RequestRefusedError) as caught:
        desk.token("late", expires_at=end)
    assert refused(caught) is Reason.MALFORMED


def test_a_removed_caller_is_refused_at_once(desk: Desk) -> None:
    """Nothing that was remembered of it outlives its removal; a second removal finds nobody."""
    token = desk.token()
    desk.callers.of_token(token)
    desk.callers.remove("ci")
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.of_token(token)
    assert refused(caught) is Reason.UNAUTHENTICATED
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.remove("ci")
    assert refused(caught) is Reason.NOT_FOUND


def test_somebody_can_always_administer(desk: Desk) -> None:
    """The last caller who may is not removed, one who has expired does not count."""
    end = desk.clock.now() + timedelta(minutes=1)
    desk.callers.add(request(), replace(OWNER, name="ann", expires_at=end))
    desk.clock.ahead = timedelta(minutes=2)
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.remove("owner")
    assert refused(caught) is Reason.STATE_FORBIDS
    desk.callers.remove("ann")
    desk.callers.add(request(), replace(OWNER, name="eve"))
    desk.callers.remove("owner")


def test_names_are_given_once(desk: Desk) -> None:
    """A name that is taken stays with whoever has it; nothing of theirs changes."""
    before = desk.path.read_bytes()
    for credential in Credential:
        with pytest.raises(RequestRefusedError) as caught:
            desk.callers.add(request(), replace(OWNER, credential=credential, roles=frozenset({Role.VIEW})))
        assert refused(caught) is Reason.CONFLICT
    assert desk.path.read_bytes() == before


def test_a_retry_finds_what_was_added(desk: Desk) -> None:
    """The same request adds once; it is never shown the token a second time, and never makes another."""
    asked = request("again")
    wanted = replace(OWNER, name="ann")
    assert desk.callers.add(asked, wanted) == desk.callers.add(asked, wanted)
    other = request("other")
    wanted = WantedCaller(name="ci", credential=Credential.TOKEN, roles=frozenset({Role.VIEW}))
    token = desk.callers.add(other, wanted).token
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.add(other, wanted)
    assert refused(caught) is Reason.CONFLICT
    assert "shown" in caught.value.message
    assert desk.callers.of_token(token).name == "ci"


def test_a_caller_needs_a_role(desk: Desk) -> None:
    """Nobody is added who could do nothing."""
    with pytest.raises(RequestRefusedError) as caught:
        desk.callers.add(request(), replace(OWNER, name="ann", roles=frozenset()))
    assert refused(caught) is Reason.MALFORMED


def test_pages(desk: Desk) -> None:
    """Names in order, each once, whatever the size of the page."""
    for name in ("c", "a", "b"):
        desk.token(name)
    first, after = desk.callers.page(size=3, after="")
    second, end = desk.callers.page(size=3, after=after)
    assert [caller.name for caller in (*first, *second)] == ["a", "b", "c", "owner"]
    assert end == ""


def test_times_are_utc(desk: Desk) -> None:
    """What the file says of times comes back as it was."""
    caller = desk.callers.of_certificate("owner")
    again = Callers(records=CallersFile(desk.path), clock=desk.clock).of_certificate("owner")
    assert again == caller
    assert caller.added_at.tzinfo is UTC
