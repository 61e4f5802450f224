"""`gonogo init --renew-certificates`: what holds longer, what stays, and what is refused."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.certificates import issue_all, name_of_client
from client.errors import StateError
from client.initialise import initialise
from client.renewal import renew_certificates
from client.state import StateDirectory

LATER = datetime.now(UTC) + timedelta(days=3000)
ROLES = ("ca", "executor", "orchestrator", "client")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A new state, without what a renewal needs not: its services' keys."""
    return initialise(StateDirectory(root=tmp_path / "state"), person="ann").state


def held(state: StateDirectory) -> dict[str, x509.Certificate]:
    """The certificates as they are now."""
    return {role: x509.load_pem_x509_certificate((state.tls / f"{role}.pem").read_bytes()) for role in ROLES}


def content(state: StateDirectory) -> Mapping[str, bytes]:
    """Every byte below the state."""
    return {str(path): path.read_bytes() for path in state.root.rglob("*") if path.is_file()}


def test_names_and_keys_stay_and_the_end_moves(state: StateDirectory) -> None:
    """Each certificate says what it said, for its old key, ten years from then on; no other file changes."""
    before, files = held(state), content(state)
    told = renew_certificates(state, LATER)
    after = held(state)
    for role in ROLES:
        assert after[role].subject == before[role].subject
        assert after[role].public_key() == before[role].public_key()
        assert list(after[role].extensions) == list(before[role].extensions)
        assert after[role].serial_number != before[role].serial_number
        assert told[role] == after[role].not_valid_after_utc > before[role].not_valid_after_utc + timedelta(days=2990)
        key = load_pem_private_key((state.tls / f"{role}.key").read_bytes(), password=None)
        assert key.public_key() == after[role].public_key()
    changed = {Path(path).name for path, data in content(state).items() if files.get(path) != data}
    assert changed == {f"{role}.pem" for role in ROLES}
    assert name_of_client(state.tls / "client.pem") == "ann"


def test_old_and_new_certificates_prove_each_other(state: StateDirectory) -> None:
    """Whatever was copied where, and in which order: the old authority vouches for new leaves, the new for old ones."""
    before = held(state)
    renew_certificates(state, LATER)
    after = held(state)
    for role in ROLES[1:]:
        after[role].verify_directly_issued_by(before["ca"])
        before[role].verify_directly_issued_by(after["ca"])


def test_the_authority_s_key_and_the_certificates_are_enough(state: StateDirectory) -> None:
    """Whoever keeps the authority offline renews there, with no key of a service; modes stay as they were."""
    for path in (*state.tls.glob("*.key"), *state.keys.iterdir(), state.trust, state.tls / "client.pem"):
        if path.name != "ca.key":
            path.unlink()
    (state.tls / "executor.pem").chmod(0o640)
    assert set(renew_certificates(state, LATER)) == {"ca", "executor", "orchestrator"}
    assert (state.tls / "executor.pem").stat().st_mode & 0o777 == 0o640
    assert not list(state.tls.glob("*.new"))


def test_an_expired_one_is_renewed(state: StateDirectory) -> None:
    """It is late, and not too late."""
    long_ago = datetime.now(UTC) - timedelta(days=4000)
    for role, one in issue_all("ann", long_ago).items():
        (state.tls / f"{role}.pem").write_bytes(one.certificate)
        (state.tls / f"{role}.key").write_bytes(one.key)
    renew_certificates(state)
    assert all(one.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3600) for one in held(state).values())


@pytest.mark.parametrize("fault", ["no key", "another key", "a foreign leaf", "half a leaf", "two authorities"])
def test_what_does_not_go_together_is_refused_and_nothing_changes(state: StateDirectory, fault: str) -> None:
    """The reason is told, with what to do, before one file is written."""
    other = issue_all("eve")
    tls = state.tls
    match fault:
        case "no key":
            (tls / "ca.key").unlink()
        case "another key":
            (tls / "ca.key").write_bytes(other["ca"].key)
        case "a foreign leaf":
            (tls / "client.pem").write_bytes(other["client"].certificate)
        case "half a leaf":
            (tls / "client.pem").write_bytes((tls / "client.pem").read_bytes()[:100])
        case _:
            (tls / "ca.pem").write_bytes((tls / "ca.pem").read_bytes() + other["ca"].certificate)
    before = content(state)
    with pytest.raises(StateError) as refused:
        renew_certificates(state, LATER)
    assert refused.value.remedy
    assert content(state) == before
