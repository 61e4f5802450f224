"""Taking back a go: a signed word to the executor itself, past an orchestrator that may not pass it on."""

import os
import secrets
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf import json_format

from client.approver_keys import find_key
from client.connection import client_error, open_executor_channel
from client.errors import ClientError, NotRunningError
from client.signing import Signer, new_id, owner_of_key, require_approving, unknown_key
from client.state import StateDirectory
from gonogo import sealing
from gonogo.signatures import SSHSIG, fits
from gonogo.v1 import evidence_pb2, executor_pb2, executor_pb2_grpc, sealed_pb2

ADDRESS_VARIABLE = "GONOGO_EXECUTOR_REVOCATIONS"
SECONDS = 10.0


def sign_revocation(signer: Signer, *, mission_id: str, executor_id: str, deny: bool, reason: str) -> sealed_pb2.Sealed:
    """Seal and sign that a mission shall not go on: that it is denied, or only the own approvals withdrawn."""
    revocation = evidence_pb2.Revocation(
        revocation_id=new_id("rv"),
        executor_id=executor_id,
        mission_id=mission_id,
        kind=evidence_pb2.REVOCATION_KIND_DENY if deny else evidence_pb2.REVOCATION_KIND_WITHDRAW,
        person=signer.person,
        reason=reason,
        nonce=secrets.token_hex(16),
    )
    revocation.revoked_at.FromDatetime(datetime.now(UTC))
    body = sealing.seal(revocation)
    blob = signer.key.sign(signer.scheme, sealing.REVOCATION, body)
    signature = sealed_pb2.Signature(key_id=signer.key.public.key_id, scheme=signer.scheme, signature=blob)
    return sealed_pb2.Sealed(media_type=sealing.REVOCATION, body=body, signatures=[signature])


def local_signer(state: StateDirectory, key_file: Path, person: str) -> Signer:
    """Find the key and whose it is, without asking anybody: by the state's trust file, or as the caller says.

    Raises:
        KeyFileError: it can not be read, is only for proposing, or nobody here knows whose it is.
        ClientError: it is somebody else's.
    """
    key = find_key(key_file)
    known = owner_of_key(state, key.public.key_id)
    if known is not None:
        require_approving(known, key_file)
    elif not person:
        raise unknown_key(key.public, key_file)
    name, scheme = (known.person, known.scheme) if known else (person, SSHSIG)
    if person and person != name:
        message = f"the key {key_file} is {name}'s, not {person}'s"
        raise ClientError("APPROVER_UNKNOWN", message, "use your own key, or leave --as out")
    return Signer(key=key, person=name, scheme=scheme if fits(scheme, key.public) else SSHSIG)


def executor_id_of(state: StateDirectory) -> str:
    """Return the id of the executor whose trust file is in the state directory; empty where there is none."""
    try:
        return str(tomllib.loads(state.trust.read_text("utf-8")).get("executor_id", ""))
    except (OSError, ValueError):
        return ""


def revocation_address(state: StateDirectory, given: str) -> str:
    """Return where the executor takes revocations.

    Raises:
        NotRunningError: nobody says where.
    """
    address = given or os.environ.get(ADDRESS_VARIABLE) or str(state.ready().get("revocations", ""))
    if not address:
        raise NotRunningError("the executor takes no revocations over the network: it has no --revocation-listen")
    return address


async def hand_in(state: StateDirectory, address: str, document: sealed_pb2.Sealed) -> executor_pb2.RevokeResponse:
    """Hand a revocation in at the executor.

    Raises:
        ClientError: the executor does not answer, or does not take it.
    """
    async with open_executor_channel(state, address) as channel:
        stub = executor_pb2_grpc.RevocationServiceStub(channel)
        try:
            return await stub.Revoke(executor_pb2.RevokeRequest(revocation=document), timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise _unreachable(address) from None
            raise client_error(error) from error


def document_text(document: sealed_pb2.Sealed) -> str:
    """Return a signed document as the command on the executor's host reads it."""
    return json_format.MessageToJson(document, preserving_proto_field_name=True) + "\n"


def _unreachable(address: str) -> ClientError:
    return ClientError(
        "NOT_RUNNING",
        f"the executor does not take revocations at {address}",
        "write the document with --out FILE, and on the executor's host: python -m executor revoke FILE",
    )
