"""Changes one entry in the text of the trust file, and leaves every other line as it is.

The text is cut at its table headers. A new entry goes behind the person it belongs to or to the end; an entry that is
revoked is taken out with its lines. Whatever came of it is read again: only where it says exactly what was meant, and
nothing else, is the file replaced. Comments, order and form of everything else survive; a file in a form that this does
not see through is left alone.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.domain.policy import Trust
from gonogo.policy import Group, Key, KeyUse, Person, PersonKind
from gonogo.signatures import SignatureError, load_public_key

PERSONS: Final = "persons"
KEYS: Final = "persons.keys"
GROUPS: Final = "groups"

_HEADER: Final = re.compile(r"[ \t]*\[\[?([^\[\]]+)\]\]?[ \t]*(?:#.*)?")
_VERSION: Final = re.compile(r"([ \t]*version[ \t]*=[ \t]*)[0-9][0-9_]*")
_MEMBERS: Final = re.compile(r"^[ \t]*members[ \t]*=[ \t]*\[", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A key for somebody who is in the file, or for somebody new."""

    person_id: str
    key: Key
    kind: PersonKind = PersonKind.PERSON
    sponsor: str = ""
    groups: tuple[str, ...] = ()


def add(text: str, addition: Addition) -> tuple[str, Trust]:
    """Return the file's text with one more key, and what it says.

    Raises:
        TrustFileError: it is no trust file, would be none then, or can not be edited for certain.
    """
    trust = parse_trust(text.encode())
    known = trust.policy.person(addition.person_id)
    _check_addition(trust, addition, known)
    meant = _with_key(trust, addition, known)
    lines = _Text(text)
    if known is None:
        lines.append(_person_entry(addition))
    else:
        lines.insert_behind(lines.person(addition.person_id), _key_entry(addition.key))
    for group in addition.groups:
        lines.change(lines.group(group), lambda entry: _with_member(entry, addition.person_id))
    return _proven(lines, trust, meant)


def revoke_person(text: str, person_id: str) -> tuple[str, Trust]:
    """Return the file's text without somebody, and what it says.

    Raises:
        TrustFileError: as `add`; nobody has that id, or an agent stands behind them.
    """
    trust = parse_trust(text.encode())
    if trust.policy.person(person_id) is None:
        raise TrustFileError(f"it names nobody with the id {person_id!r}", "gonogo trust show lists everybody")
    agents = [one.person_id for one in trust.policy.persons if one.sponsor == person_id]
    if agents:
        raise TrustFileError(
            f"{person_id} answers for the agent {agents[0]}", f"gonogo trust revoke --person {agents[0]} first"
        )
    if len(trust.policy.persons) == 1:
        raise TrustFileError(f"it names nobody else than {person_id}", "add another person first: gonogo trust add")
    groups = [one.group_id for one in trust.policy.groups if person_id in one.members]
    meant = _without_person(trust, person_id)
    lines = _Text(text)
    for group in groups:
        lines.change(lines.group(group), lambda entry: _without_member(entry, person_id))
    lines.remove(lines.person(person_id))
    return _proven(lines, trust, meant)


def revoke_key(text: str, key_id: str) -> tuple[str, Trust]:
    """Return the file's text without a key, under whatever schemes it is listed; whose last key it is goes with it.

    Raises:
        TrustFileError: as `revoke_person`; nobody has that key.
    """
    trust = parse_trust(text.encode())
    owner = next((one for one in trust.policy.persons if any(key.key_id == key_id for key in one.keys)), None)
    if owner is None:
        raise TrustFileError(f"nobody has the key {key_id!r}", "gonogo trust show lists everybody's keys")
    left = tuple(key for key in owner.keys if key.key_id != key_id)
    if not left:
        return revoke_person(text, owner.person_id)
    meant = _with_persons(trust, [one if one != owner else replace(owner, keys=left) for one in trust.policy.persons])
    lines = _Text(text)
    for _ in range(len(owner.keys) - len(left)):
        lines.remove(lines.key(key_id))
    return _proven(lines, trust, meant)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Some lines that belong together, and what they say."""

    begin: int
    end: int
    value: Mapping[str, Any]


class _Text:
    """The file's lines, cut at its headers."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        if self._lines and not self._lines[-1].endswith("\n"):
            self._lines[-1] += "\n"

    def __str__(self) -> str:
        return "".join(self._lines)

    def person(self, person_id: str) -> _Entry:
        return self._only(entry for entry in self._entries(PERSONS, KEYS) if entry.value.get("id") == person_id)

    def group(self, group_id: str) -> _Entry:
        return self._only(entry for entry in self._entries(GROUPS) if entry.value.get("id") == group_id)

    def key(self, key_id: str) -> _Entry:
        found = [entry for entry in self._entries(KEYS) if _fingerprint(entry.value) == key_id]
        if not found:
            raise _by_hand()
        return found[0]

    def append(self, entry: str) -> None:
        self._lines += ["\n", *entry.splitlines(keepends=True)]

    def insert_behind(self, entry: _Entry, text: str) -> None:
        self._lines[entry.end : entry.end] = text.splitlines(keepends=True)

    def remove(self, entry: _Entry) -> None:
        """Take an entry's lines out, and one of the two blank lines that would meet."""
        begin, end = entry.begin, entry.end
        blank_before = begin == 0 or not self._lines[begin - 1].strip()
        if blank_before and end < len(self._lines) and not self._lines[end].strip():
            end += 1
        elif blank_before and begin and end == len(self._lines):
            begin -= 1
        del self._lines[begin:end]

    def change(self, entry: _Entry, edit: Callable[[str], str]) -> None:
        changed = edit("".join(self._lines[entry.begin : entry.end]))
        self._lines[entry.begin : entry.end] = changed.splitlines(keepends=True)

    def raise_version(self, version: int) -> None:
        top = next((number for number, _ in self._headers()), len(self._lines))
        found = [number for number in range(top) if _VERSION.match(self._lines[number])]
        if len(found) != 1:
            raise _by_hand()
        self._lines[found[0]] = _VERSION.sub(rf"\g<1>{version}", self._lines[found[0]], count=1)

    def _headers(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self._lines):
            found = _HEADER.fullmatch(line.rstrip("\r\n"))
            if found is not None:
                yield number, "".join(found[1].split())

    def _entries(self, name: str, *inside: str) -> Iterator[_Entry]:
        """Yield the entries of a list of tables, each with the tables inside it."""
        headers = [*self._headers(), (len(self._lines), "")]
        for place, (begin, header) in enumerate(headers):
            if header == name:
                end = next(number for number, other in headers[place + 1 :] if other not in inside)
                yield _Entry(begin=begin, end=self._trimmed(begin, end), value=self._value(begin, end, name))

    def _trimmed(self, begin: int, end: int) -> int:
        """Leave out blank lines and comments at the end: they belong to what comes next."""
        while end > begin + 1 and self._lines[end - 1].partition("#")[0].strip() == "":
            end -= 1
        return end

    def _value(self, begin: int, end: int, name: str) -> Mapping[str, Any]:
        try:
            value: Any = tomllib.loads("".join(self._lines[begin:end]))
            for part in name.split("."):
                value = value[part]
        except (tomllib.TOMLDecodeError, KeyError, TypeError):
            raise _by_hand() from None
        if not isinstance(value, list) or not isinstance(value[0], dict):
            raise _by_hand()
        return value[0]

    @staticmethod
    def _only(found: Iterable[_Entry]) -> _Entry:
        entries = list(found)
        if len(entries) != 1:
            raise _by_hand()
        return entries[0]


def _proven(lines: _Text, before: Trust, meant: Trust) -> tuple[str, Trust]:
    """Return a text only where it says what was meant, with the next version, and nothing else."""
    version = before.version + 1
    lines.raise_version(version)
    text = str(lines)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise _by_hand() from None
    meant = replace(meant, version=version, policy=replace(meant.policy, trust_version=version))
    found = parse_trust(text.encode())
    if found != meant:
        raise _by_hand()
    return text, found


def _check_addition(trust: Trust, addition: Addition, known: Person | None) -> None:
    if known is not None and (addition.kind, addition.sponsor) not in {
        (known.kind, known.sponsor),
        (PersonKind.PERSON, ""),
    }:
        raise TrustFileError(
            f"{known.person_id} is in it already, as something else", "leave --kind and --sponsor out, or use a new id"
        )
    for person in trust.policy.persons:
        own = person.person_id == addition.person_id  # who may have one key under two schemes
        same = [key for key in person.keys if key.key_id == addition.key.key_id]
        if any(not own or key.scheme == addition.key.scheme for key in same):
            raise TrustFileError(
                f"the key {addition.key.key_id} is {person.person_id}'s already",
                "give another key; each is one person's",
            )
    for group in addition.groups:
        listed = next((one for one in trust.policy.groups if one.group_id == group), None)
        if listed is None:
            there = ", ".join(one.group_id for one in trust.policy.groups) or "none"
            raise TrustFileError(
                f"it has no group {group!r}; there is {there}", "write the group into [[groups]] with an editor first"
            )
        if addition.person_id in listed.members:
            raise TrustFileError(f"{addition.person_id} is in group {group} already", "leave --group out")


def _with_key(trust: Trust, addition: Addition, known: Person | None) -> Trust:
    if known is None:
        person = Person(
            person_id=addition.person_id, keys=(addition.key,), kind=addition.kind, sponsor=addition.sponsor
        )
        persons = (*trust.policy.persons, person)
    else:
        more = replace(known, keys=(*known.keys, addition.key))
        persons = tuple(more if one == known else one for one in trust.policy.persons)
    changed = _with_persons(trust, persons)
    return _with_groups(
        changed,
        lambda group: (addition.person_id, *group.members) if group.group_id in addition.groups else group.members,
    )


def _without_person(trust: Trust, person_id: str) -> Trust:
    changed = _with_persons(trust, [one for one in trust.policy.persons if one.person_id != person_id])
    return _with_groups(changed, lambda group: tuple(one for one in group.members if one != person_id))


def _with_persons(trust: Trust, persons: Iterable[Person]) -> Trust:
    ordered = tuple(sorted(persons, key=lambda one: one.person_id))
    return replace(trust, policy=replace(trust.policy, persons=ordered))


def _with_groups(trust: Trust, members: Callable[[Group], tuple[str, ...]]) -> Trust:
    groups = tuple(replace(group, members=members(group)) for group in trust.policy.groups)
    return replace(trust, policy=replace(trust.policy, groups=groups))


def _person_entry(addition: Addition) -> str:
    lines = ["[[persons]]", f"id = {_quoted(addition.person_id)}"]
    if addition.kind is PersonKind.AGENT:
        lines += ['kind = "agent"', f"sponsor = {_quoted(addition.sponsor)}"]
    return "\n".join(lines) + "\n" + _key_entry(addition.key)


def _key_entry(key: Key) -> str:
    lines = [
        "",
        "  [[persons.keys]]",
        f"  scheme = {_quoted(key.scheme)}",
        f"  public_key = {_quoted(key.public_key)}",
    ]
    if key.use is not KeyUse.APPROVE:
        lines.append(f"  use = {_quoted(key.use.value)}")
    return "\n".join(lines) + "\n"


def _with_member(entry: str, person_id: str) -> str:
    found = _MEMBERS.search(entry)
    if found is None:
        raise _by_hand()
    rest = entry[found.end() :]
    comma = "" if rest.lstrip().startswith("]") else ("," if rest.startswith(("\n", "\r")) else ", ")
    return entry[: found.end()] + _quoted(person_id) + comma + rest


def _without_member(entry: str, person_id: str) -> str:
    found = _MEMBERS.search(entry)
    if found is None:
        raise _by_hand()
    place = re.compile(rf"([\"']){re.escape(person_id)}\1[ \t]*(,[ \t]*)?").search(entry, found.end())
    if place is None:
        raise _by_hand()
    before, after = entry[: place.start()], entry[place.end() :]
    if place[2] is None and before.rstrip(" \t").endswith(","):
        before = before.rstrip(" \t").removesuffix(",")  # it was the last one
    alone = before.rstrip(" \t").endswith("\n") and after.startswith("\n")
    return before.rstrip(" \t") + after[1:] if alone else before + after


def _fingerprint(value: Mapping[str, Any]) -> str:
    try:
        return load_public_key(str(value.get("public_key", ""))).key_id
    except SignatureError:
        return ""  # the fingerprint of none that anybody could ask for; reading the file names the fault


def _quoted(text: str) -> str:
    """Write a text as TOML; ids, keys and words have nothing in them that needs more than these two escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _by_hand() -> TrustFileError:
    return TrustFileError(
        "it is written in a form that can not be changed for certain, so nothing was",
        "change it with an editor, raise its version, and look with: gonogo trust check FILE",
    )
