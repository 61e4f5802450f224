"""The door: what a call's authenticated context and metadata come to. The real listeners are in the contract tests."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from client.callers_file import first_callers
from gonogo.v1 import orchestrator_pb2 as pb
from orchestrator.adapters.callers_file import CallersFile
from orchestrator.adapters.clock import SystemClock
from orchestrator.domain.callers import ACCESS, Caller, Credential, Role
from orchestrator.domain.errors import RequestRefusedError
from orchestrator.entrypoints.door import Door
from orchestrator.service.callers import Callers, WantedCaller
from tests.fakes.orchestrator_house import request

MICROSECONDS = 20
OWNER = "spiffe://gonogo.local/client/owner"
PROPOSERS = {"m-mine": "ci", "m-other": "owner"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What gRPC tells of a call, as far as the door asks."""

    peer_has: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    metadata: Sequence[tuple[str, str | bytes]] = ()

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self.peer_has

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


class House:
    """A door, an owner with a certificate, and `ci`, who may propose, with a token."""

    def __init__(self, folder: Path) -> None:
        path = folder / "callers.json"
        path.write_bytes(first_callers("owner"))
        path.chmod(0o600)
        callers = Callers(records=CallersFile(path), clock=SystemClock())
        wanted = WantedCaller(name="ci", credential=Credential.TOKEN, roles=frozenset({Role.PROPOSE}))
        self.token = callers.add(request(), wanted).token
        self.door = Door(callers, PROPOSERS.__getitem__)

    def certified(self, *identities: str, metadata: Sequence[tuple[str, str]] = ()) -> Shown:
        named = {"peer_spiffe_id": [identity.encode() for identity in identities]} if identities else {}
        return Shown(peer_has={"x509_pem_cert": [b"pem"], **named}, metadata=metadata)

    def tokened(self, *tokens: str) -> Shown:
        return Shown(metadata=[("user-agent", "x"), *(("authorization", f"Bearer {token}") for token in tokens)])

    def admit(self, shown: Any, method: str = "ListMissions", message: object = None) -> Caller:
        return self.door.admit(shown, message, ACCESS[method])

    def reason(self, shown: Shown, method: str = "ListMissions", message: object = None) -> str:
        with pytest.raises(RequestRefusedError) as caught:
            self.admit(shown, method, message)
        assert caught.value.remedy
        return caught.value.reason.value


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_one_name_in_the_certificate(house: House) -> None:
    """The caller is who the certificate's single SPIFFE id names; anything else is no client of this house."""
    assert house.admit(house.certified(OWNER)).name == "owner"
    clients = OWNER.removesuffix("owner")
    for identities in (
        (),
        (OWNER, OWNER + "2"),
        ("spiffe://gonogo.local/orchestrator",),
        ("spiffe://gonogo.local/client",),
        (clients,),
        (clients + "owner/x",),
        (clients + "executor",),
        ("spiffe://elsewhere.local/client/owner",),
        (OWNER.upper(),),
    ):
        assert house.reason(house.certified(*identities)) == "PEER_NOT_ALLOWED", identities
    assert house.reason(house.certified(clients + "ann")) == "ROLE_MISSING"
    assert house.reason(house.certified(clients + "Owner")) == "ROLE_MISSING"


def test_one_token_or_one_certificate(house: House) -> None:
    """A token counts where no certificate is shown, alone, and never beside one."""
    assert house.admit(house.tokened(house.token)).name == "ci"
    assert house.reason(house.tokened()) == "UNAUTHENTICATED"
    assert house.reason(house.tokened(house.token, house.token)) == "UNAUTHENTICATED"
    assert house.reason(Shown(metadata=[("authorization", b"Bearer " + house.token.encode())])) == "UNAUTHENTICATED"
    assert house.reason(Shown(metadata=[("authorization-bin", f"Bearer {house.token}")])) == "UNAUTHENTICATED"
    mixed = house.certified(OWNER, metadata=[("authorization", f"Bearer {house.token}")])
    assert house.reason(mixed) == "UNAUTHENTICATED"
    assert house.reason(Shown(peer_has={"peer_spiffe_id": [OWNER.encode()]})) == "UNAUTHENTICATED"


def test_own_missions(house: House) -> None:
    """Who may propose may reject and cancel what they proposed themselves, and nothing of others."""
    shown = house.tokened(house.token)
    for method, message in (("RejectMission", pb.RejectMissionRequest), ("CancelMission", pb.CancelMissionRequest)):
        assert house.admit(shown, method, message(mission_id="m-mine")).name == "ci"
        assert house.reason(shown, method, message(mission_id="m-other")) == "ROLE_MISSING"
        assert house.admit(house.certified(OWNER), method, message(mission_id="m-mine")).name == "owner"


def test_refusals_are_logged_without_the_token_and_not_without_end(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Who hammers at the door leaves a line in a second, which says how many more there were."""
    with caplog.at_level(logging.DEBUG):
        for _ in range(100):
            house.reason(house.tokened(house.token), "ExecuteMission")
            house.reason(house.tokened("gonogo_" + "B" * 43))
    assert 1 <= len(caplog.records) <= 5
    assert "127.0.0.1" in caplog.text
    assert house.token not in caplog.text
    assert "BBBB" not in caplog.text


def test_a_call_costs_next_to_nothing(house: House) -> None:
    """Finding out who calls takes less than 20 µs, by certificate and by token."""
    for shown in (house.certified(OWNER), house.tokened(house.token)):
        best = min(_seconds(house, shown) for _ in range(5))
        assert best * 1_000_000 < MICROSECONDS


def _seconds(house: House, shown: Shown) -> float:
    begun = time.perf_counter()
    for _ in range(1000):
        house.admit(shown)
    return (time.perf_counter() - begun) / 1000
