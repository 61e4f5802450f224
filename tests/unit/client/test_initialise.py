"""`gonogo init`: what it makes, and what it never overwrites."""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from client.doctor import Finding, examine
from client.errors import KeyFileError, StateError
from client.executor_command import trust_json
from client.initialise import initialise
from client.signing import (
    KeyOwner,
    owner_of_key,
    read_public_key,
    read_signing_key,
    require_approving,
    trusted_keys,
)
from client.state import StateDirectory
from gonogo.sqlite_release import sqlite_is_fixed


def state_in(folder: Path) -> StateDirectory:
    return StateDirectory(root=folder / "state")


def test_secrets_are_private_and_the_trust_file_is_written_out(tmp_path: Path) -> None:
    """Directories are 0700, keys 0600, and self-approval stands in the file as what it is."""
    made = initialise(state_in(tmp_path))
    root = made.state.root
    secret = [path for path in root.rglob("*") if path.is_file() and path.suffix in {".key", ""}]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()} == {0o700}
    trust = tomllib.loads(made.state.trust.read_text())
    assert trust["executor_id"] == made.executor_id
    assert trust["policy"]["self_approval"] == "allowed"
    assert trust["policy"]["approvals_required"] == 1
    assert trust["persons"][0]["id"] == "owner"
    assert "# One person proposes and approves here." in made.state.trust.read_text()


def test_what_stands_in_the_trust_file_as_an_example_would_be_taken(tmp_path: Path) -> None:
    """Rules, workspaces, secrets, servers of tools and databases: the executor knows every commented key."""
    made = initialise(state_in(tmp_path))
    example = re.compile(r"^# (?=\[|[a-z_]+ = )", re.MULTILINE)
    text = example.sub("", made.state.trust.read_text())
    said = tomllib.loads(text)
    assert {"domains", "groups", "rules", "workspaces", "network", "secrets", "mcp_servers", "databases"} <= said.keys()
    other = tmp_path / "other.toml"
    other.write_text(text.replace("version = 1", "version = 2", 1))
    told = trust_json(made.state, ["check", str(other)])
    assert told["taken"], told


def test_keys_are_openssh_keys(tmp_path: Path) -> None:
    """OpenSSH itself reads the private key and finds the public one in it."""
    made = initialise(state_in(tmp_path))
    shown = subprocess.run(["ssh-keygen", "-y", "-f", made.state.approver_key], capture_output=True, check=True)
    public = (made.state.keys / "approver.pub").read_text().split()
    assert shown.stdout.decode().split()[:2] == public[:2]
    owner = owner_of_key(made.state, made.approver_key_id)
    assert owner == KeyOwner(person="owner", scheme="sshsig", approves=True)


def test_an_agent_s_key_proposes_and_does_not_approve(tmp_path: Path) -> None:
    """The trust file lists it with who answers for the agent; this side refuses it before anything is signed."""
    made = initialise(state_in(tmp_path), person="ann")
    agent = tomllib.loads(made.state.trust.read_text())["persons"][1]
    public = read_signing_key(made.state.proposer_key).public
    assert (agent["id"], agent["kind"], agent["sponsor"], made.agent) == ("ann-agent", "agent", "ann", "ann-agent")
    assert [(key["use"], key["public_key"]) for key in agent["keys"]] == [("propose", f"{public.line} ann-agent")]
    owner = owner_of_key(made.state, public.key_id)
    assert owner == KeyOwner(person="ann-agent", scheme="sshsig", approves=False)
    with pytest.raises(KeyFileError, match="can propose and not approve"):
        require_approving(owner, made.state.proposer_key)
    assert set(trusted_keys(made.state)) == {made.approver_key_id}


@pytest.mark.parametrize(
    ("role", "path"), [("executor", "executor"), ("orchestrator", "orchestrator"), ("client", "client/ann")]
)
def test_certificates_carry_identity_and_name(tmp_path: Path, role: str, path: str) -> None:
    """Each leaf has its URI and DNS name, is no authority, and is issued by the installation's own."""
    state = initialise(state_in(tmp_path), person="ann").state
    authority = x509.load_pem_x509_certificate((state.tls / "ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((state.tls / f"{role}.pem").read_bytes())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://gonogo.local/{path}"]
    assert role in names.get_values_for_type(x509.DNSName)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is True
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert len(list(usage)) == 2
    of_issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert of_issuer == authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    """It is refused with a remedy, and every byte stays."""
    state = initialise(state_in(tmp_path)).state
    before = {path: path.read_bytes() for path in state.root.rglob("*") if path.is_file()}
    with pytest.raises(StateError, match="holds a gonogo state already") as refused:
        initialise(state)
    assert refused.value.remedy
    assert {path: path.read_bytes() for path in state.root.rglob("*") if path.is_file()} == before


def test_an_interrupted_init_is_completed_by_the_next(tmp_path: Path) -> None:
    """Half written keys go away with their marker; the next run's are whole."""
    state = state_in(tmp_path)
    state.keys.mkdir(parents=True)
    state.approver_key.write_text("half")
    state.unfinished.touch()
    made = initialise(state)
    assert read_signing_key(state.approver_key).public.key_id == made.approver_key_id
    assert not state.unfinished.exists()


def test_two_inits_at_once_are_one(tmp_path: Path) -> None:
    """While one holds the marker, the other is refused."""
    state = state_in(tmp_path)
    state.root.mkdir()
    marker = os.open(state.unfinished, os.O_RDWR | os.O_CREAT)
    fcntl.flock(marker, fcntl.LOCK_EX)
    with pytest.raises(StateError, match="another gonogo init"):
        initialise(state)
    os.close(marker)


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    """A directory with other files, and a file, are refused untouched."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match="not empty"):
        initialise(state_in(tmp_path))
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["thesis.txt"]
    with pytest.raises(StateError, match="not a directory"):
        initialise(StateDirectory(root=tmp_path / "state" / "thesis.txt"))


def test_a_persons_own_key_is_trusted_and_none_is_made(tmp_path: Path) -> None:
    """With a public key given, the state holds no private key of the approver."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    made = initialise(state_in(tmp_path), person="ann", approver_public=tmp_path / "id.pub")
    assert made.approver_key is None
    assert not made.state.approver_key.exists()
    owner = owner_of_key(made.state, read_public_key(tmp_path / "id.pub").key_id)
    assert owner == KeyOwner(person="ann", scheme="sshsig", approves=True)


def test_a_key_of_another_kind_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """Only Ed25519 serves."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "id"], check=True)
    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        initialise(state_in(tmp_path), approver_public=tmp_path / "id.pub")
    assert not state_in(tmp_path).root.exists()


@pytest.mark.parametrize("person", ["", "Ann", 'x"\nself_approval = "no', "../x"])
def test_a_persons_id_is_a_plain_word(tmp_path: Path, person: str) -> None:
    """Nothing that could leave its place in the trust file or a certificate is taken."""
    with pytest.raises(StateError, match="no person's id"):
        initialise(state_in(tmp_path), person=person)


def test_an_encrypted_key_asks_for_its_passphrase(tmp_path: Path) -> None:
    """The right one opens it, a wrong one is told."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", tmp_path / "id"], check=True)
    key = read_signing_key(tmp_path / "id", lambda _prompt: "open sesame")
    assert key.public.key_id == read_public_key(tmp_path / "id.pub").key_id
    with pytest.raises(KeyFileError) as refused:
        read_signing_key(tmp_path / "id", lambda _prompt: "wrong")
    assert "passphrase" in refused.value.remedy


async def test_the_doctor_finds_what_is_broken(tmp_path: Path) -> None:
    """An open key, a missing one and a foreign certificate each fail with a remedy."""
    state = initialise(state_in(tmp_path)).state
    other = initialise(StateDirectory(root=tmp_path / "other")).state
    (state.keys / "executor").chmod(0o644)
    (state.tls / "client.key").unlink()
    (state.tls / "client.pem").write_bytes((other.tls / "client.pem").read_bytes())
    failed = {finding.name: finding for finding in await examine(state) if finding.level == "fail"}
    assert failed.keys() == {"keys/executor", "tls/client.key", "certificate client"}
    assert all(finding.remedy for finding in failed.values())
    assert failed["keys/executor"].remedy == f"chmod 600 {state.keys / 'executor'}"


async def test_the_doctor_looks_at_the_trust_file(tmp_path: Path) -> None:
    """A good one says for how long, a bad, an expired and a missing one fail, each with a remedy that fits."""
    state = initialise(state_in(tmp_path)).state
    text = state.trust.read_text()

    async def found(trust: str) -> Finding:
        state.trust.write_text(trust)
        return next(one for one in await examine(state) if one.name == "trust file")

    good = await found(text)
    assert (good.level, good.detail.partition(",")[0]) == ("ok", "version 1")
    bad = await found(f"nonsense = 1\n{text}")
    assert (bad.level, bad.detail) == ("fail", "the file has unknown keys: nonsense")
    old = await found(re.sub("expires = .*", "expires = 2026-01-01T00:00:00Z", text))
    assert (old.level, old.remedy.partition(" and ")[0]) == ("fail", f"change {state.trust}")
    lonely = '[[rules]]\nid = "two"\nrequire = [{ count = 2 }]\n'
    assert (await found(text + lonely)).level == "warn"
    state.trust.unlink()
    gone = (await examine(state))[-1]
    assert (gone.name, gone.level) == ("state", "fail")
    assert "put it back" in gone.remedy


async def test_the_doctor_asks_nobody_for_a_service_s_keys(tmp_path: Path) -> None:
    """In the directory of a person or an agent elsewhere nothing is missing that belongs to the services' hosts."""
    whole = initialise(state_in(tmp_path)).state
    own = StateDirectory(root=tmp_path / "person")
    for name in ("keys/executor.pub", "keys/proposer", "tls/ca.pem", "tls/client.pem", "tls/client.key"):
        (own.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole.root / name, own.root / name)
    found = {one.name: one for one in await examine(own)}
    assert {one.level for name, one in found.items() if name != "services"} <= {"ok", "warn"}
    assert found.keys() >= {"state", "tls/client.key", "certificate client"}
    assert not found.keys() & {"keys/executor", "certificate executor", "trust file", "callers"}
    (own.tls / "client.key").unlink()
    assert any((one.name, one.level) == ("tls/client.key", "fail") for one in await examine(own))


async def test_the_doctor_names_an_interrupted_init(tmp_path: Path) -> None:
    """The remedy is to run it again."""
    state = state_in(tmp_path)
    state.root.mkdir()
    state.unfinished.touch()
    finding = (await examine(state))[-1]
    assert (finding.name, finding.level) == ("state", "fail")
    assert "run gonogo init again" in finding.remedy


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.4", True),
    ],
)
def test_the_wal_reset_defect_is_known_by_version(version: str, fixed: bool) -> None:
    """The main line and the corrected branches count as fixed, others do not."""
    assert sqlite_is_fixed(version) is fixed
