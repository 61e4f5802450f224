"""Reads the trust file strictly: what it says in full, or a refusal to start that says what to change.

Nothing is guessed: an unknown key is a misspelt rule, and a misspelt rule that is skipped would be one that does not
hold.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from executor.domain.errors import ExecutorError
from executor.domain.plan_rules import is_identifier
from executor.domain.policy import Person, Policy, Trust, TrustedKey
from executor.domain.report import SelfApproval
from gonogo.signatures import SCHEMES, SignatureError, load_public_key

VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_NUMBER: Final = 2**31 - 1
MAX_BYTES: Final = 2**53

T = TypeVar("T")


class TrustFileError(ExecutorError):
    """The trust file does not say in full whom to trust; the operator must change it before anything starts."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("MALFORMED", f"trust file: {message}", remedy)


def read_trust_file(path: Path) -> Trust:
    """Read a trust file.

    Raises:
        TrustFileError: it is not there, or not strictly such a file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TrustFileError(f"{path} can not be read: {error.strerror}", "make it with: gonogo init") from error
    if len(data) > MAX_FILE_BYTES:
        raise TrustFileError(f"{path} is larger than {MAX_FILE_BYTES} bytes", "give a trust file")
    return parse_trust(data)


def parse_trust(data: bytes) -> Trust:
    """Read the text of a trust file.

    Raises:
        TrustFileError: it is not strictly such a file.
    """
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrustFileError(f"it is not TOML: {error}", "correct the line that is named") from error
    table = _Table("the file", document)
    if table.take("version", _number) != VERSION:
        raise TrustFileError(f"version {document['version']} is not known", f"write version = {VERSION}")
    trust = Trust(
        executor_id=table.take("executor_id", _identifier),
        orchestrators=table.take("orchestrators", _spiffe_ids),
        policy=table.take("policy", _policy, default=Policy()),
        persons=table.take("persons", _persons),
    )
    table.check_empty()
    _check_dry_runners(trust)
    return trust


def _check_dry_runners(trust: Trust) -> None:
    unknown = sorted(frozenset(trust.policy.may_dry_run or ()) - frozenset(trust.orchestrators))
    if unknown:
        raise TrustFileError(
            f"may_dry_run in policy names {unknown[0]!r}, which is no orchestrator of this file",
            "correct its spelling, or list it in orchestrators too; an empty list lets nobody dry run",
        )


class _Table:
    """One table of the file, read key by key; what nobody took is an error."""

    def __init__(self, place: str, value: object) -> None:
        if not isinstance(value, dict):
            raise TrustFileError(f"{place} is not a table", "write its name in square brackets, such as [policy]")
        self._place = place
        self._left: dict[str, Any] = dict(value)

    def take(self, key: str, read: Callable[[str, object], T], *, default: T | None = None) -> T:
        """Read one key."""
        place = f"{key} in {self._place}"
        if key not in self._left:
            if default is None:
                raise TrustFileError(f"{place} is missing", f"write {key}")
            return default
        return read(place, self._left.pop(key))

    def take_if_there(self, key: str, read: Callable[[str, object], T]) -> T | None:
        """Read one key, or return None where it is not written."""
        return self.take(key, read) if key in self._left else None

    def check_empty(self) -> None:
        """Refuse keys that have no meaning."""
        if self._left:
            names = ", ".join(sorted(self._left))
            raise TrustFileError(f"{self._place} has unknown keys: {names}", "remove them, or correct their spelling")


def _policy(place: str, value: object) -> Policy:
    table = _Table(place, value)
    default = Policy()
    policy = Policy(
        approvals_required=table.take("approvals_required", _number),
        self_approval=table.take("self_approval", _self_approval, default=default.self_approval),
        max_approval_seconds=table.take("max_approval_seconds", _number, default=default.max_approval_seconds),
        hidden=table.take("hidden", _texts, default=default.hidden),
        volatile=table.take("volatile", _texts, default=default.volatile),
        max_content_bytes=table.take("max_content_bytes", _number, default=default.max_content_bytes),
        max_change_bytes=table.take("max_change_bytes", _byte_count, default=default.max_change_bytes),
        max_dry_runs=table.take("max_dry_runs", _number, default=default.max_dry_runs),
        may_dry_run=table.take_if_there("may_dry_run", _texts),
        report_seconds=table.take("report_seconds", _number, default=default.report_seconds),
        checkpoint_seconds=table.take("checkpoint_seconds", _number, default=default.checkpoint_seconds),
    )
    table.check_empty()
    return policy


def _persons(place: str, value: object) -> tuple[Person, ...]:
    persons = tuple(_person(f"{place}, entry {number}", one) for number, one in enumerate(_list(place, value), 1))
    ids = [person.person_id for person in persons]
    if not ids or len(set(ids)) != len(ids):
        raise TrustFileError(f"{place} names nobody, or somebody twice", "name each person once, with all their keys")
    owners: dict[str, str] = {}
    for person in persons:
        for key in person.keys:
            # One key under two names would count as two persons.
            if owners.setdefault(key.key_id, person.person_id) != person.person_id:
                raise TrustFileError(
                    f"key {key.key_id} belongs to {owners[key.key_id]} and to {person.person_id}",
                    "a key belongs to one person; remove it from the other",
                )
    return persons


def _person(place: str, value: object) -> Person:
    table = _Table(place, value)
    person = Person(person_id=table.take("id", _identifier), keys=table.take("keys", _keys))
    table.check_empty()
    return person


def _keys(place: str, value: object) -> tuple[TrustedKey, ...]:
    keys = tuple(_key(f"{place}, entry {number}", one) for number, one in enumerate(_list(place, value), 1))
    uses = {(key.key_id, key.scheme) for key in keys}
    if not keys or len(uses) != len(keys):
        raise TrustFileError(f"{place}: no key, or one key twice for one scheme", "list each key once for each scheme")
    return keys


def _key(place: str, value: object) -> TrustedKey:
    table = _Table(place, value)
    scheme = table.take("scheme", _text)
    if scheme not in SCHEMES:
        raise TrustFileError(f"{place}: scheme {scheme!r} is not known", f"write one of {', '.join(SCHEMES)}")
    line = table.take("public_key", _text)
    table.check_empty()
    try:
        public = load_public_key(line)
    except SignatureError as error:
        raise TrustFileError(f"{place}: {error}", "give the one line of an OpenSSH .pub file, ssh-ed25519") from error
    return TrustedKey(key_id=public.key_id, scheme=scheme, public_key=public.line)


def _spiffe_ids(place: str, value: object) -> tuple[str, ...]:
    ids = _texts(place, value)
    if not ids or not all(one.startswith("spiffe://") for one in ids):
        raise TrustFileError(
            f"{place} names no orchestrator by its SPIFFE id", 'write such as ["spiffe://gonogo.local/orchestrator"]'
        )
    return ids


def _self_approval(place: str, value: object) -> SelfApproval:
    names: Mapping[str, SelfApproval] = {one.value: one for one in SelfApproval}
    found = names.get(_text(place, value))
    if found is None:
        raise TrustFileError(f"{place} is {value!r}", f"write one of {', '.join(names)}")
    return found


def _identifier(place: str, value: object) -> str:
    text = _text(place, value)
    if not is_identifier(text):
        raise TrustFileError(f"{place} is not an id", "use printable ASCII without blanks")
    return text


def _texts(place: str, value: object) -> tuple[str, ...]:
    return tuple(_text(place, one) for one in _list(place, value))


def _text(place: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TrustFileError(f"{place} is not a text", 'write it in quotes, such as "owner"')
    return value


def _number(place: str, value: object) -> int:
    return _whole(place, value, MAX_NUMBER)


def _byte_count(place: str, value: object) -> int:
    return _whole(place, value, MAX_BYTES)


def _whole(place: str, value: object, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise TrustFileError(f"{place} is not a whole number from 1 to {limit}", "write a number without quotes")
    return value


def _list(place: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise TrustFileError(f"{place} is not a list", "write it in square brackets")
    return value
