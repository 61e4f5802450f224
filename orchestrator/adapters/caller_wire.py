"""Callers ↔ contract messages, by closed tables."""

from collections.abc import Iterable
from typing import Final

from gonogo.v1 import orchestrator_pb2 as pb
from orchestrator.adapters.contract_errors import contract_error
from orchestrator.adapters.times import time_from_proto, time_to_proto
from orchestrator.domain.callers import Caller, Credential, Role
from orchestrator.service.callers import WantedCaller

_ROLES: Final = {
    Role.VIEW: pb.ROLE_VIEW,
    Role.PROPOSE: pb.ROLE_PROPOSE,
    Role.OPERATE: pb.ROLE_OPERATE,
    Role.ADMINISTER: pb.ROLE_ADMINISTER,
}
_CREDENTIALS: Final = {
    Credential.CERTIFICATE: pb.CALLER_CREDENTIAL_CERTIFICATE,
    Credential.TOKEN: pb.CALLER_CREDENTIAL_TOKEN,
}
_ROLE_NUMBERS: Final = {int(number): role for role, number in _ROLES.items()}
_CREDENTIAL_NUMBERS: Final = {int(number): credential for credential, number in _CREDENTIALS.items()}


def caller_to_proto(caller: Caller) -> pb.Caller:
    return pb.Caller(
        name=caller.name,
        credential=_CREDENTIALS[caller.credential],
        roles=[_ROLES[role] for role in Role if role in caller.roles],
        added_at=time_to_proto(caller.added_at),
        expires_at=None if caller.expires_at is None else time_to_proto(caller.expires_at),
    )


def wanted_from_proto(message: pb.AddCallerRequest) -> WantedCaller:
    """Return the caller that a request wants to add.

    Raises:
        ContractError: a role or a kind of credential is not set, or not known.
    """
    credential = _CREDENTIAL_NUMBERS.get(message.credential)
    if credential is None:
        raise contract_error("credential is not set, or not known")
    return WantedCaller(
        name=message.name,
        credential=credential,
        roles=_roles(message.roles),
        expires_at=time_from_proto(message.expires_at) if message.HasField("expires_at") else None,
    )


def _roles(numbers: Iterable[int]) -> frozenset[Role]:
    found = [_ROLE_NUMBERS.get(number) for number in numbers]
    known = frozenset(role for role in found if role is not None)
    if len(known) != len(found):
        raise contract_error("a role is not known, or is named twice")
    return known
