"""The callers of the orchestrator: finding out who calls, and keeping the list of those who may.

A token is 32 random bytes. Only its SHA-256 is kept: nobody can try out 2**256 values, so there is nothing that a slow
password hash would slow down, and a fast one costs a call less than a microsecond.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from orchestrator.domain.callers import Caller, Credential, Role, is_name
from orchestrator.domain.errors import OrchestratorError, Reason, RequestRefusedError, malformed
from orchestrator.domain.plan import shortened
from orchestrator.service.ports import Clock
from orchestrator.service.requests import Request

TOKEN_BYTES: Final = 32
TOKEN_PREFIX: Final = "gonogo_"  # noqa: S105 - what every token begins with, so that one is found where it leaked
MAX_CALLERS: Final = 1_000

_TOKEN: Final = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{43}", re.ASCII)
_REMEDY: Final = "Ask an administrator for a new one: gonogo caller add NAME --token --role ROLE."


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRecord:
    """A caller as the list keeps it."""

    caller: Caller
    token_digest: str = ""
    """SHA-256 of the token's text in hex; empty for callers with certificates."""
    request_digest: str = ""
    """What the request that added it asked for, and who asked, so that a retry is known; empty where none did."""


Records: TypeAlias = tuple[CallerRecord, ...]


@dataclass(frozen=True, slots=True)
class CallerList:
    """All callers at one moment, indexed by what they show."""

    records: Records = ()
    by_name: Mapping[str, CallerRecord] = field(init=False)
    by_token: Mapping[str, CallerRecord] = field(init=False)

    def __post_init__(self) -> None:
        named = {record.caller.name: record for record in self.records}
        tokens = {record.token_digest: record for record in self.records if record.token_digest}
        object.__setattr__(self, "by_name", MappingProxyType(named))
        object.__setattr__(self, "by_token", MappingProxyType(tokens))


class CallersUnreadableError(OrchestratorError):
    """The list of callers is missing, or is not what such a list must be; nobody is served until it is mended."""


class CallerRecords(Protocol):
    """Where the list of callers is kept, for this process alone to write and for the operator to edit.

    A list that is missing or malformed is never taken for an empty or a former one: both methods raise
    `CallersUnreadableError` until it is mended.
    """

    def current(self) -> CallerList:
        """Return the list; somebody else's change to it is seen within a second, one made through `change` at once."""
        ...

    def change(self, edit: Callable[[Records], Iterable[CallerRecord]]) -> None:
        """Replace the list, durably and as a whole, by what an edit makes of it.

        Raises:
            OrchestratorError: whatever the edit raises; nothing is changed then.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCaller:
    """A caller that somebody wants to add."""

    name: str
    credential: Credential
    roles: frozenset[Role]
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    caller: Caller
    token: str
    """Shown this once; empty for callers with certificates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Tells who calls; adds, lists and removes callers."""

    records: CallerRecords
    clock: Clock

    def of_certificate(self, name: str) -> Caller:
        """Return the caller whose certificate carries a name.

        Raises:
            RequestRefusedError: ROLE_MISSING where the list does not name it, UNAUTHENTICATED where what the list says
                of it does not go with a certificate, or has expired.
        """
        try:
            record = self.records.current().by_name.get(name)
        except CallersUnreadableError as error:
            raise RequestRefusedError(Reason.ROLE_MISSING, error.message, error.remedy) from error
        if record is None:
            raise RequestRefusedError(
                Reason.ROLE_MISSING,
                f"the list of callers does not name {name}",
                f"Have an administrator add it: gonogo caller add {name} --role view.",
            )
        if record.caller.credential is not Credential.CERTIFICATE:
            raise unauthenticated(f"{name} is listed with a token, not with a certificate", "Use its token.")
        return self._unexpired(record.caller, "Have an administrator remove the caller and add it again.")

    def of_token(self, token: str) -> Caller:
        """Return the caller that holds a token.

        Raises:
            RequestRefusedError: UNAUTHENTICATED; it never repeats any of what was shown as a token.
        """
        try:
            known = self.records.current().by_token
        except CallersUnreadableError as error:
            raise unauthenticated(
                "the list of callers can not be used", "Have the orchestrator's operator run gonogo doctor."
            ) from error
        shown = sha256(token.encode()).hexdigest() if _TOKEN.fullmatch(token) else ""
        record = known.get(shown) if shown else None
        # The lookup is by a hash, of which a caller can not choose a single bit towards the stored one; the comparison
        # is in constant time all the same, so that nothing rests on how a dictionary compares.
        if record is None or not compare_digest(record.token_digest, shown):
            raise unauthenticated("the token is not one of a caller", _REMEDY)
        return self._unexpired(record.caller, _REMEDY)

    def add(self, request: Request, wanted: WantedCaller) -> Added:
        """Add a caller, and make its token where it shows who it is by one.

        A retry finds what the first call added. It can not show the token again, which nobody has kept.

        Raises:
            RequestRefusedError: the wish is malformed, or the name is taken.
        """
        now = self.clock.now()
        _check_wanted(wanted, now)
        caller = Caller(
            name=wanted.name,
            credential=wanted.credential,
            roles=wanted.roles,
            added_at=now,
            expires_at=wanted.expires_at,
        )
        token = _new_token() if caller.credential is Credential.TOKEN else ""
        record = CallerRecord(
            caller=caller,
            token_digest=sha256(token.encode()).hexdigest() if token else "",
            request_digest=_digest_of(request),
        )
        known = self.records.current().by_name.get(wanted.name)
        if known is not None and known.request_digest == record.request_digest and not token:
            return Added(caller=known.caller, token="")
        self.records.change(lambda records: (*_without_name(records, record), record))
        return Added(caller=caller, token=token)

    def remove(self, name: str) -> None:
        """Remove a caller; its next call is refused.

        Raises:
            RequestRefusedError: there is none of that name, or nobody could administer any more.
        """

        def without(records: Records) -> Records:
            left = tuple(record for record in records if record.caller.name != name)
            if len(left) == len(records):
                raise RequestRefusedError(
                    Reason.NOT_FOUND, f"there is no caller {shortened(name, 64)!r}", "gonogo caller list names them."
                )
            self._check_administered(left)
            return left

        self.records.change(without)

    def page(self, *, size: int, after: str) -> tuple[tuple[Caller, ...], str]:
        """Return callers by name, and the name after which the next page begins, empty at the end."""
        known = self.records.current().by_name
        names = sorted(name for name in known if name > after)
        shown = names[:size]
        return tuple(known[name].caller for name in shown), shown[-1] if len(names) > size else ""

    def _unexpired(self, caller: Caller, remedy: str) -> Caller:
        if caller.expires_at is not None and caller.expired(self.clock.now()):
            raise unauthenticated(f"the caller {caller.name} has expired", remedy)
        return caller

    def _check_administered(self, records: Records) -> None:
        now = self.clock.now()
        callers = (record.caller for record in records)
        if not any(Role.ADMINISTER in caller.roles and not caller.expired(now) for caller in callers):
            raise RequestRefusedError(
                Reason.STATE_FORBIDS,
                "it is the last caller who may administer",
                "Add another one first: gonogo caller add NAME --role administer.",
            )


def unauthenticated(message: str, remedy: str) -> RequestRefusedError:
    """Say that somebody did not show who they are."""
    return RequestRefusedError(Reason.UNAUTHENTICATED, message, remedy)


def _new_token() -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def _digest_of(request: Request) -> str:
    return sha256(f"{request.command_id}\0{request.digest}".encode()).hexdigest()


def _check_wanted(wanted: WantedCaller, now: datetime) -> None:
    if not is_name(wanted.name):
        raise malformed(
            f"{shortened(wanted.name, 64)!r} is no caller's name",
            "Use 1 to 64 letters, digits, dots, dashes, underscores and @; gonogo's own names are taken.",
        )
    if not wanted.roles:
        raise malformed("the caller has no role", "Give it at least one: view, propose, operate, administer.")
    if wanted.expires_at is not None and wanted.expires_at <= now:
        raise malformed("the caller would have expired already", "Give a time that is to come, or none.")


def _without_name(records: Records, wanted: CallerRecord) -> Records:
    """Return the list, in which nobody has the wanted caller's name yet.

    Raises:
        RequestRefusedError: somebody has, or there are too many already.
    """
    name = wanted.caller.name
    known = next((record for record in records if record.caller.name == name), None)
    if known is not None:
        again = known.request_digest == wanted.request_digest
        told = "was added by this very request, and its token was shown in its answer" if again else "is there already"
        raise RequestRefusedError(
            Reason.CONFLICT, f"a caller {name} {told}", f"Remove it first: gonogo caller remove {name}."
        )
    if len(records) >= MAX_CALLERS:
        raise RequestRefusedError(
            Reason.STORE_FULL, f"there are {MAX_CALLERS} callers already", "Remove those that are not needed."
        )
    return records
