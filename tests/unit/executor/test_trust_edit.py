"""Editing the trust file: exactly what was meant changes, everything else stays as it was written."""

import difflib
from collections.abc import Callable

import pytest

from executor.adapters.trust_edit import Addition, add, revoke_key, revoke_person
from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from gonogo.policy import Key, KeyUse, PersonKind
from tests.unit.executor.house import Person

ALICE, BOB, CAROL, SPARE = (Person(name) for name in ("alice", "bob", "carol", "spare"))
TEXT = f"""\
# The file of a test.
version = 3  # raised by every change
expires = 2100-01-01T00:00:00Z
executor_id = "executor-test"
orchestrators = ["spiffe://gonogo.local/orchestrator"]

[policy]
approvals_required = 1
hidden = [
  "a", # a comment in a list
]

# Alice runs the place.
[[persons]]
id = "alice"

  [[persons.keys]]
  scheme = "sshsig"
  public_key = "{ALICE.key.public.line} alice@laptop"  # her laptop

# Bob helps out.
[[persons]]
id = "bob"
[[persons.keys]]
scheme = "sshsig"
public_key = "{BOB.key.public.line}"
[[persons.keys]]
scheme = "ed25519"
public_key = "{BOB.key.public.line}"

# Who is woken at night.
[[groups]]
id = "sre"
members = [
  "alice",  # in the week
  "bob",
]

[[groups]]
id = "empty"
members = []

[[rules]]
id = "production"
when = {{ labels = ["prod"] }}
require = [{{ count = 1, group = "sre" }}]

[workspaces.site]
labels = ["prod"]
"""


def key(person: Person, scheme: str = "sshsig", use: KeyUse = KeyUse.APPROVE) -> Key:
    """A person's key as the file lists it."""
    public = person.key.public
    return Key(key_id=public.key_id, scheme=scheme, public_key=public.line, use=use)


def difference(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that are gone and those that came."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [one[2:] for one in lines if one[:2] == "- "], [one[2:] for one in lines if one[:2] == "+ "]


def version(number: int) -> str:
    return f"version = {number}  # raised by every change"


def test_a_new_person() -> None:
    """Somebody new comes to the end; the version rises, and no other line changes."""
    text, trust = add(TEXT, Addition(person_id="carol", key=key(CAROL)))
    gone, came = difference(TEXT, text)
    assert gone == [version(3)]
    assert came == [
        version(4),
        "",
        "[[persons]]",
        'id = "carol"',
        "",
        "  [[persons.keys]]",
        '  scheme = "sshsig"',
        f'  public_key = "{CAROL.key.public.line}"',
    ]
    assert trust == parse_trust(text.encode())


def test_an_agent_proposes() -> None:
    """An agent comes with its sponsor, and with a key that can only propose."""
    addition = Addition(person_id="bot", key=key(CAROL, use=KeyUse.PROPOSE), kind=PersonKind.AGENT, sponsor="alice")
    _, trust = add(TEXT, addition)
    bot = trust.policy.person("bot")
    assert bot is not None
    assert (bot.kind, bot.sponsor, bot.keys) == (PersonKind.AGENT, "alice", (key(CAROL, use=KeyUse.PROPOSE),))


def test_one_more_key_stands_beside_the_others() -> None:
    """A key of somebody who is there comes behind their last one, in the middle of the file."""
    text, trust = add(TEXT, Addition(person_id="alice", key=key(CAROL)))
    lines = text.splitlines()
    assert lines.index(f'  public_key = "{CAROL.key.public.line}"') < lines.index("# Bob helps out.")
    alice = trust.policy.person("alice")
    assert alice is not None
    assert [one.key_id for one in alice.keys] == [ALICE.key.public.key_id, CAROL.key.public.key_id]


@pytest.mark.parametrize("name", ["sre", "empty"])
def test_a_group_gets_a_member(name: str) -> None:
    """Somebody joins a group on several lines or an empty one; its comments stay."""
    text, trust = add(TEXT, Addition(person_id="carol", key=key(CAROL), groups=(name,)))
    [group] = [one for one in trust.policy.groups if one.group_id == name]
    assert "carol" in group.members
    assert "# in the week" in text


def test_a_person_goes_with_their_keys_and_memberships() -> None:
    """Who is revoked is in no list any more; everybody else's lines stay."""
    text, trust = revoke_person(TEXT, "bob")
    gone, came = difference(TEXT, text)
    assert [line for line in came if line] == [version(4)]
    assert [line for line in gone if line] == [
        version(3),
        "[[persons]]",
        'id = "bob"',
        "[[persons.keys]]",
        'scheme = "sshsig"',
        f'public_key = "{BOB.key.public.line}"',
        "[[persons.keys]]",
        'scheme = "ed25519"',
        f'public_key = "{BOB.key.public.line}"',
        '  "bob",',
    ]
    assert [one.person_id for one in trust.policy.persons] == ["alice"]
    assert "bob" not in text.replace("# Bob", "")


def test_adding_and_revoking_comes_back() -> None:
    """Who is added and revoked leaves nothing behind but two versions."""
    text, _ = add(TEXT, Addition(person_id="carol", key=key(CAROL), groups=("sre", "empty")))
    text, _ = revoke_person(text, "carol")
    assert text.replace("version = 5", "version = 3") == TEXT


def test_one_key_of_several() -> None:
    """A key goes under all its schemes, and its owner stays with the others."""
    text, _ = add(TEXT, Addition(person_id="bob", key=key(SPARE)))
    _, trust = revoke_key(text, BOB.key.public.key_id)
    bob = trust.policy.person("bob")
    assert bob is not None
    assert [one.key_id for one in bob.keys] == [SPARE.key.public.key_id]


def test_the_last_key_takes_its_owner_along() -> None:
    """Somebody without a key is nobody: they go from everywhere."""
    text, trust = revoke_key(TEXT, BOB.key.public.key_id)
    assert text == revoke_person(TEXT, "bob")[0]
    assert trust.policy.person("bob") is None


AGENT = f"""
[[persons]]
id = "bot"
kind = "agent"
sponsor = "bob"
[[persons.keys]]
scheme = "sshsig"
public_key = "{CAROL.key.public.line}"
use = "propose"
"""


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        pytest.param(lambda: revoke_person(TEXT, "nobody"), "nobody with the id", id="unknown person"),
        pytest.param(lambda: revoke_key(TEXT, "SHA256:x"), "nobody has the key", id="unknown key"),
        pytest.param(lambda: revoke_person(TEXT + AGENT, "bob"), "answers for the agent bot", id="a sponsor"),
        pytest.param(
            lambda: revoke_person(revoke_person(TEXT, "bob")[0], "alice"), "nobody else", id="the last person"
        ),
        pytest.param(lambda: add(TEXT, Addition(person_id="carol", key=key(BOB))), "is bob's already", id="key"),
        pytest.param(
            lambda: add(TEXT, Addition(person_id="carol", key=key(CAROL), groups=("none",))), "no group", id="group"
        ),
        pytest.param(
            lambda: add(TEXT, Addition(person_id="bob", key=key(CAROL), groups=("sre",))), "already", id="member"
        ),
        pytest.param(
            lambda: add(TEXT, Addition(person_id="bob", key=key(CAROL), kind=PersonKind.AGENT, sponsor="alice")),
            "as something else",
            id="a person becomes an agent",
        ),
        pytest.param(
            lambda: add(TEXT, Addition(person_id="bot", key=key(CAROL), kind=PersonKind.AGENT, sponsor="alice")),
            "agents never approve",
            id="an agent with a key to approve",
        ),
        pytest.param(lambda: add("version = 1", Addition(person_id="c", key=key(CAROL))), "missing", id="no file"),
    ],
)
def test_what_is_refused(edit: Callable[[], object], says: str) -> None:
    """What would leave a file that is none, or that nobody meant, is refused with a remedy."""
    with pytest.raises(TrustFileError) as caught:
        edit()
    assert says in str(caught.value)
    assert caught.value.fault.remedy


INLINE = TEXT.replace(
    TEXT[TEXT.index("# Alice") : TEXT.index("# Who is woken")],
    f'[[persons]]\nid = "alice"\nkeys = [{{ scheme = "sshsig", public_key = "{ALICE.key.public.line}" }}]\n'
    f'[[persons]]\nid = "bob"\nkeys = [{{ scheme = "sshsig", public_key = "{BOB.key.public.line}" }}]\n',
)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        pytest.param(INLINE, lambda text: add(text, Addition(person_id="bob", key=key(CAROL))), id="keys in a line"),
        pytest.param(
            TEXT.replace("version = 3", '"version" = 3'),
            lambda text: add(text, Addition(person_id="carol", key=key(CAROL))),
            id="a quoted version",
        ),
        pytest.param(
            TEXT.replace("members = [", '"members" = ['),
            lambda text: revoke_person(text, "bob"),
            id="quoted members",
        ),
        pytest.param(
            TEXT.replace("[[persons]]", '[["persons"]]'), lambda text: revoke_person(text, "bob"), id="a quoted table"
        ),
        pytest.param(
            TEXT.replace('"a", #', '"""\n[[persons]]\nid = "bob"\n""", #'),
            lambda text: revoke_person(text, "bob"),
            id="a table in a text",
        ),
    ],
)
def test_a_form_that_is_not_seen_through_is_left_alone(text: str, edit: Callable[[str], object]) -> None:
    """A file that says the same in a rarer form of TOML is for an editor, not for this."""
    parse_trust(text.encode())
    with pytest.raises(TrustFileError) as caught:
        edit(text)
    assert "can not be changed for certain" in str(caught.value)
