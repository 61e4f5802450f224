"""The door: who calls, and whether the method is open to them.

There are two listeners. One takes certificates of this installation's authority; a call that comes in by it has one, or
there would have been no connection. The other never asks for a certificate and takes tokens. So a certificate in a
call's authenticated context tells by which of the two it came, and what came with both is refused.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import grpc

from gonogo.grpc_requests import UNREADABLE
from gonogo.safe_text import safe_line
from orchestrator.domain.callers import Access, Caller, Reach, is_name, reach
from orchestrator.domain.errors import Reason, RequestRefusedError, malformed
from orchestrator.service.callers import Callers, unauthenticated

CLIENTS: Final = "spiffe://gonogo.local/client/"
SCHEME: Final = "bearer "
LOG_SECONDS: Final = 1.0
REFUSED: Final = frozenset({Reason.UNAUTHENTICATED, Reason.PEER_NOT_ALLOWED, Reason.ROLE_MISSING})

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]] | None
Peer: TypeAlias = Mapping[str, Iterable[bytes]]

_log = logging.getLogger(__name__)


class Door:
    """Lets callers in.

    Args:
        callers: tells who somebody is by what they show.
        proposer_of: returns who proposed a mission, which may be named by the beginning of its id.
    """

    def __init__(self, callers: Callers, proposer_of: Callable[[str], str]) -> None:
        self._callers = callers
        self._proposer_of = proposer_of
        self._refusals = _Refusals()

    def admit(self, context: Context, request: Any, access: Access) -> Caller:
        """Return who calls, where the method is open to them for this request.

        Raises:
            RequestRefusedError: UNAUTHENTICATED, PEER_NOT_ALLOWED or ROLE_MISSING; else MALFORMED, where the request
                could not be read.
        """
        try:
            caller = self._caller(context)
            self._check(caller, request, access)
        except RequestRefusedError as error:
            self.note(context, error)
            raise
        return caller

    def of_token(self, metadata: Metadata) -> Caller:
        """Return whose token a call's metadata holds.

        Raises:
            RequestRefusedError: UNAUTHENTICATED.
        """
        return self._callers.of_token(_token(_shown(metadata)))

    def note(self, context: Context, error: RequestRefusedError) -> None:
        """Take note of a call that was not let in."""
        if error.reason in REFUSED:
            self._refusals.note(context.peer(), error)

    def _caller(self, context: Context) -> Caller:
        peer: Peer = context.auth_context()
        metadata = context.invocation_metadata()
        if "x509_pem_cert" not in peer:
            return self.of_token(metadata)
        if _shown(metadata):
            raise unauthenticated(
                "a token is not taken where a certificate is shown",
                "Call the address for tokens (orchestrator_tokens in run/ready.json), or leave the token out.",
            )
        return self._callers.of_certificate(_certified(peer))

    def _check(self, caller: Caller, request: Any, access: Access) -> None:
        reached = reach(caller.roles, access)
        if reached is not Reach.NOTHING:
            _check_readable(request)
        if reached is Reach.EVERYTHING:
            return
        if reached is Reach.OWN_MISSIONS and self._proposer_of(request.mission_id) == caller.name:
            return
        raise _role_missing(caller, access)


def _check_readable(request: object) -> None:
    if request is UNREADABLE:
        raise malformed("the request is not a message of this method", "Send what the contract in protos/ says.")


def _role_missing(caller: Caller, access: Access) -> RequestRefusedError:
    own = f"{access.own}, for a mission of its own" if access.own else ""
    needed = " or ".join(word for word in (access.role, own) if word)
    remedy = f"Have an administrator add a caller with that role: gonogo caller add NAME --role {access.role}."
    if access.role is None:
        remedy = "Call as whoever proposed the mission, with that caller's own certificate or token."
    return RequestRefusedError(
        Reason.ROLE_MISSING,
        f"{caller.name} has not the role that this needs: {needed}",
        f"{remedy} Of an existing one, remove it first." if access.role else remedy,
    )


def _certified(peer: Peer) -> str:
    """Return the client's name in the one SPIFFE id of a certificate.

    Raises:
        RequestRefusedError: the certificate is not a client's.
    """
    identities = tuple(peer.get("peer_spiffe_id") or ())
    name = _client_named(identities[0]) if len(identities) == 1 else None
    if name is None:
        raise RequestRefusedError(
            Reason.PEER_NOT_ALLOWED,
            "the caller's certificate is not one of a client",
            "Use the client certificate that `gonogo init` made.",
        )
    return name


@lru_cache(maxsize=1024)
def _client_named(identity: bytes) -> str | None:
    """Return the client that an identity names, None where it names none; the same bytes always name the same."""
    text = identity.decode("utf-8", "replace")
    name = text.removeprefix(CLIENTS)
    return name if text.startswith(CLIENTS) and is_name(name) else None


def _shown(metadata: Metadata) -> Sequence[str | bytes]:
    return [value for key, value in metadata or () if key == "authorization"]


def _token(shown: Sequence[str | bytes]) -> str:
    """Return the token of a call's only `authorization` entry, in which it stands behind "Bearer".

    Raises:
        RequestRefusedError: there is no such entry, or more than one.
    """
    entry = shown[0] if len(shown) == 1 else None
    if not isinstance(entry, str) or entry[: len(SCHEME)].lower() != SCHEME:
        raise unauthenticated(
            "the call shows no token" if not shown else "the call's authorization is not one bearer token",
            "Set GONOGO_TOKEN or --token-file; where you have a certificate, call the other address.",
        )
    return entry[len(SCHEME) :]


class _Refusals:
    """Writes refused calls to the log, one line in a second at most: whoever hammers at the door fills no disk."""

    def __init__(self) -> None:
        self._next = 0.0
        self._left_out = 0

    def note(self, peer: str, error: RequestRefusedError) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        told = safe_line(f"{peer}: {error.message} [{error.reason}]")
        _log.warning("refused %s; %d more since the last such line", told, self._left_out)
        self._next, self._left_out = now + LOG_SECONDS, 0
