"""The trust file's persons and agents with their keys, and its groups."""

from collections.abc import Collection, Sequence

from executor.adapters.trust_tables import Table, TrustFileError, check_some, choice, each, identifier, text
from gonogo.policy import Group, Key, KeyUse, Person, PersonKind
from gonogo.signatures import SCHEMES, SSHSIG, SignatureError, fits, load_public_key


def read_persons(place: str, value: object) -> tuple[Person, ...]:
    """Read everybody, sorted by id."""
    persons = each(place, value, _person)
    ids = [person.person_id for person in persons]
    if not ids or len(set(ids)) != len(ids):
        raise TrustFileError(f"{place} names nobody, or somebody twice", "name each person once, with all their keys")
    _check_one_owner(persons)
    _check_sponsors(persons)
    return tuple(sorted(persons, key=lambda person: person.person_id))


def read_groups(place: str, value: object, persons: Collection[Person]) -> tuple[Group, ...]:
    """Read the groups, sorted by id; each names persons of this file."""
    known = {person.person_id: person for person in persons}

    def group(place: str, value: object) -> Group:
        table = Table(place, value)
        found = Group(group_id=table.take("id", identifier), members=table.take("members", _members))
        table.check_empty()
        for member in found.members:
            if member not in known:
                raise TrustFileError(
                    f"{place}: group {found.group_id} names {member!r}, who is no person of this file",
                    "correct the spelling, or list the person in [[persons]]",
                )
            if known[member].kind is PersonKind.AGENT:
                raise TrustFileError(
                    f"{place}: group {found.group_id} names the agent {member!r}, and agents never approve",
                    "take it out of the group",
                )
        return found

    groups = each(place, value, group)
    ids = [one.group_id for one in groups]
    if len(set(ids)) != len(ids):
        raise TrustFileError(f"{place} names a group twice", "name each group once, with all its members")
    return tuple(sorted(groups, key=lambda one: one.group_id))


def _members(place: str, value: object) -> tuple[str, ...]:
    members = each(place, value, identifier)
    if members:  # a group may be empty: then nobody fills its places
        check_some(place, members)
    return members


def _check_one_owner(persons: Sequence[Person]) -> None:
    """Refuse one key under two names, which would count as two persons, or for two uses."""
    owners: dict[bytes, tuple[str, KeyUse]] = {}
    for person in persons:
        for key in person.keys:
            # By the key itself: its fingerprint is another where it is written as a security key's.
            point = load_public_key(key.public_key).key.public_bytes_raw()
            owner, use = owners.setdefault(point, (person.person_id, key.use))
            if owner != person.person_id:
                raise TrustFileError(
                    f"key {key.key_id} belongs to {owner} and to {person.person_id}",
                    "a key belongs to one person; remove it from the other",
                )
            if use is not key.use:
                raise TrustFileError(
                    f"key {key.key_id} of {owner} is listed to approve and to propose",
                    "a key has one use; make another key for the other",
                )


def _check_sponsors(persons: Sequence[Person]) -> None:
    known = {person.person_id for person in persons if person.kind is PersonKind.PERSON}
    for agent in persons:
        if agent.kind is PersonKind.AGENT and agent.sponsor not in known:
            raise TrustFileError(
                f"agent {agent.person_id} names the sponsor {agent.sponsor!r}, who is no person of this file",
                "name the person who answers for the agent",
            )


def _person(place: str, value: object) -> Person:
    table = Table(place, value)
    person_id = table.take("id", identifier)
    kind = PersonKind(table.take_or("kind", choice([one.value for one in PersonKind]), PersonKind.PERSON.value))
    sponsor = table.take_or("sponsor", identifier, None) or ""
    keys = table.take("keys", _keys)
    table.check_empty()
    if (kind is PersonKind.AGENT) != bool(sponsor):
        raise TrustFileError(
            f"{place}: {person_id} is {'an agent without' if not sponsor else 'a person with'} a sponsor",
            'an agent needs sponsor = "the person who answers for it"; a person has none',
        )
    if kind is PersonKind.AGENT and any(key.use is KeyUse.APPROVE for key in keys):
        raise TrustFileError(
            f"{place}: the agent {person_id} has a key to approve with, and agents never approve",
            'write use = "propose" beside each key of an agent',
        )
    return Person(person_id=person_id, kind=kind, sponsor=sponsor, keys=keys)


def _keys(place: str, value: object) -> tuple[Key, ...]:
    keys = each(place, value, _key)
    uses = {(key.key_id, key.scheme) for key in keys}
    if not keys or len(uses) != len(keys):
        raise TrustFileError(f"{place}: no key, or one key twice for one scheme", "list each key once for each scheme")
    return keys


def _key(place: str, value: object) -> Key:
    table = Table(place, value)
    scheme = table.take("scheme", choice(SCHEMES))
    line = table.take("public_key", text)
    use = KeyUse(table.take_or("use", choice([one.value for one in KeyUse]), KeyUse.APPROVE.value))
    table.check_empty()
    try:
        public = load_public_key(line)
    except SignatureError as error:
        raise TrustFileError(f"{place}: {error}", "give the one line of an OpenSSH .pub file, ssh-ed25519") from error
    if not fits(scheme, public):
        remedy = f'write scheme = "{SSHSIG}" beside a hardware key'
        raise TrustFileError(f"{place}: a key of type {public.key_type} does not sign under {scheme}", remedy)
    return Key(key_id=public.key_id, scheme=scheme, public_key=public.line, use=use, hardware=public.hardware)
