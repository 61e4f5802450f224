"""Taking back a go, on the client's side: what is signed, by whom, and where it goes."""

from pathlib import Path

import pytest
from google.protobuf import json_format

from client.errors import ClientError
from client.revoking import document_text, executor_id_of, local_signer, revocation_address, sign_revocation
from client.state import StateDirectory
from gonogo import sealing
from gonogo.signatures import SSHSIG, new_signing_key, verify
from gonogo.v1 import evidence_pb2, sealed_pb2


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """A state directory whose trust file knows the owner's key."""
    key = new_signing_key()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "approver").write_bytes(key.private_bytes())
    (tmp_path / "trust.toml").write_text(
        'executor_id = "executor-1"\n[[persons]]\nid = "owner"\n[[persons.keys]]\n'
        f'scheme = "sshsig"\npublic_key = "{key.public.line}"\n'
    )
    return StateDirectory(root=tmp_path)


@pytest.mark.parametrize("deny", [True, False])
def test_what_is_signed_says_what_was_meant(state: StateDirectory, deny: bool) -> None:
    """Kind, mission, executor, person and words are in the signed bytes, with ids of their own."""
    signer = local_signer(state, state.approver_key, "")
    document = sign_revocation(signer, mission_id="m-1", executor_id="executor-1", deny=deny, reason="no")
    [signature] = document.signatures
    verify(
        signer.key.public,
        scheme=SSHSIG,
        signature=signature.signature,
        media_type=sealing.REVOCATION,
        body=document.body,
        extra=b"",
    )
    told = sealing.open_sealed(document.body, evidence_pb2.Revocation)
    kind = evidence_pb2.REVOCATION_KIND_DENY if deny else evidence_pb2.REVOCATION_KIND_WITHDRAW
    assert (told.kind, told.mission_id, told.executor_id, told.person, told.reason) == (
        kind,
        "m-1",
        "executor-1",
        "owner",
        "no",
    )
    assert told.revocation_id
    assert told.nonce
    assert told.HasField("revoked_at")


def test_the_file_for_the_host_holds_the_very_document(state: StateDirectory) -> None:
    """What is written for the command on the executor's host comes back byte for byte."""
    signer = local_signer(state, state.approver_key, "")
    document = sign_revocation(signer, mission_id="m-1", executor_id="executor-1", deny=True, reason="ü")
    assert json_format.Parse(document_text(document), sealed_pb2.Sealed()) == document


def test_whose_key_it_is(state: StateDirectory, tmp_path: Path) -> None:
    """A key that the state's file does not name needs a name, and a name that contradicts the file is refused."""
    stranger = tmp_path / "stranger"
    stranger.write_bytes(new_signing_key().private_bytes())
    with pytest.raises(ClientError) as unknown:
        local_signer(state, stranger, "")
    assert unknown.value.reason == "APPROVER_UNKNOWN"
    assert local_signer(state, stranger, "carol").person == "carol"
    with pytest.raises(ClientError) as other:
        local_signer(state, state.approver_key, "carol")
    assert other.value.reason == "APPROVER_UNKNOWN"


def test_where_it_goes(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said on the command line, else in the environment, else what the running services told."""
    monkeypatch.delenv("GONOGO_EXECUTOR_REVOCATIONS", raising=False)
    assert executor_id_of(state) == "executor-1"
    with pytest.raises(ClientError):
        revocation_address(state, "")
    state.run.mkdir()
    state.ready_file.write_text('{"revocations": "127.0.0.1:3"}')
    assert revocation_address(state, "") == "127.0.0.1:3"
    monkeypatch.setenv("GONOGO_EXECUTOR_REVOCATIONS", "127.0.0.1:2")
    assert revocation_address(state, "") == "127.0.0.1:2"
    assert revocation_address(state, "127.0.0.1:1") == "127.0.0.1:1"


def test_without_a_listener(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that takes none over the network is named as that."""
    monkeypatch.delenv("GONOGO_EXECUTOR_REVOCATIONS", raising=False)
    state.run.mkdir()
    state.ready_file.write_text('{"executor": "127.0.0.1:3"}')
    with pytest.raises(ClientError) as caught:
        revocation_address(state, "")
    assert "--revocation-listen" in str(caught.value)
