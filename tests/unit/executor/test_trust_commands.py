"""`python -m executor trust`: the trust file on its own host, whether the executor runs or not."""

import io
import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.domain.errors import ExecutorError
from executor.entrypoints.trust_commands import run
from gonogo.digests import digest
from gonogo.policy_document import open_policy
from tests.unit.executor.house import Person, trust_text

OWNER, ALICE = Person("owner"), Person("alice")


@dataclass(frozen=True, kw_only=True)
class Host:
    """A state directory with a trust file, and a public key beside it."""

    state: Path
    key: Path

    @property
    def trust(self) -> Path:
        """The trust file."""
        return self.state / "trust.toml"

    def run(self, *arguments: str) -> str:
        """Run a command in this process."""
        out = io.StringIO()
        assert run([*arguments, "--state", str(self.state)], {}, out) == 0
        return out.getvalue()

    def json(self, *arguments: str) -> Any:
        """Run a command and read what it prints."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def add(self, *more: str) -> Any:
        """Add Alice."""
        return self.json("add", "--person", "alice", "--key", str(self.key), *more)

    def seen(self, version: int, content: str) -> None:
        """Have the ledger know that a version was in force."""
        (self.state / "executor").mkdir(exist_ok=True)
        ledger = SqliteLedger(self.state / "executor" / "ledger.db")
        ledger.see_trust(version, content, "sha256:policy", datetime.now(UTC))
        ledger.close()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(state=tmp_path / "state", key=tmp_path / "alice.pub")
    found.state.mkdir()
    found.trust.write_text(trust_text({"owner": [OWNER]}, self_approval='"refused"'))
    found.key.write_text(f"{ALICE.key.public.line} alice@laptop\n")
    return found


def test_show_says_who_may_do_what(host: Host) -> None:
    """Persons, keys, rules and limits, in words and as JSON, and what is probably not meant."""
    host.trust.write_text(host.trust.read_text() + '[[rules]]\nid = "two"\nrequire = [{ count = 2 }]\n')
    text = host.run("show")
    assert "owner may approve" in text
    assert f"owner approves with key {OWNER.key.public.key_id} (sshsig)" in text
    assert "rule two: always: approved by 2 of all who may approve" in text
    assert "warning: rule two asks for 2 of all who may approve, and 1 may: it can not be met" in text
    found = host.json("show")
    assert found["digest"] == digest(host.trust.read_bytes())
    assert [one["id"] for one in found["persons"]] == ["owner"]
    assert found["rules"] == [{"id": "two", "says": "rule two: always: approved by 2 of all who may approve"}]


def test_policy_prints_what_would_be_sealed(host: Host) -> None:
    """The policy in its sealed form, which other programs decide by without reading trust files."""
    body = host.run("policy").rstrip("\n").encode()
    assert open_policy(body) == parse_trust(host.trust.read_bytes()).policy
    assert host.json("show")["policy_digest"] == digest(body)


def test_add_and_revoke_change_the_file(host: Host) -> None:
    """Each tells what changes, raises the version and leaves the rest; the file keeps its permissions."""
    host.trust.chmod(0o640)
    before = host.trust.read_text()
    added = host.add()
    assert added["version"] == 2
    assert "+ alice may approve" in added["changes"]
    assert stat.S_IMODE(host.trust.stat().st_mode) == 0o640
    assert [path.name for path in host.state.iterdir()] == ["trust.toml"]
    revoked = host.json("revoke", "--key", ALICE.key.public.key_id)
    assert "- alice may approve" in revoked["changes"]
    assert host.trust.read_text() == before.replace("version = 1", "version = 3")


def test_an_agents_key_proposes_by_itself(host: Host) -> None:
    """Nobody has to say that an agent's key can not approve."""
    host.add("--kind", "agent", "--sponsor", "owner")
    [alice] = [one for one in host.json("show")["persons"] if one["id"] == "alice"]
    assert (alice["approves"], alice["sponsor"], alice["keys"][0]["use"]) == (False, "owner", "propose")


def test_check_says_what_would_change(host: Host, tmp_path: Path) -> None:
    """A file that would be taken, compared with the one in place; nothing is written."""
    new = tmp_path / "new.toml"
    new.write_text(host.trust.read_text().replace("version = 1", "version = 2").replace("required = 1", "required = 2"))
    before = host.trust.read_bytes()
    found = host.json("check", str(new))
    assert found["taken"]
    assert "+ always approved by 2 of all who may approve" in found["changes"]
    assert host.trust.read_bytes() == before


def test_check_refuses_what_the_executor_would(host: Host, tmp_path: Path) -> None:
    """An older file, another one of the same version, and one for another executor."""
    new = tmp_path / "new.toml"
    text = host.trust.read_text()
    host.seen(5, digest(text.encode()))
    for version, other in ((4, text), (5, text + "\n"), (6, text.replace("executor-test", "executor-2"))):
        new.write_text(other.replace("version = 1", f"version = {version}"))
        with pytest.raises(TrustFileError):
            host.run("check", str(new))


def test_a_file_that_was_rolled_back_is_not_edited(host: Host) -> None:
    """Nobody builds on a file that the executor does not go by."""
    host.seen(7, "sha256:other")
    before = host.trust.read_bytes()
    with pytest.raises(TrustFileError) as caught:
        host.add()
    assert "version 7 was in force" in str(caught.value)
    assert host.trust.read_bytes() == before


def test_a_link_is_not_replaced(host: Host, tmp_path: Path) -> None:
    """A trust file that lies elsewhere is named by its own path."""
    real = tmp_path / "real.toml"
    host.trust.rename(real)
    host.trust.symlink_to(real)
    with pytest.raises(TrustFileError) as caught:
        host.add()
    assert "--file" in caught.value.fault.remedy
    host.add("--file", str(real))
    assert host.trust.is_symlink()


def test_several_at_once_lose_nothing(host: Host, tmp_path: Path) -> None:
    """Of several changes at the same time each is made to what the one before it left."""
    people = [Person(f"p{number}") for number in range(6)]
    for person in people:
        (tmp_path / f"{person.name}.pub").write_text(person.key.public.line)

    def add(person: Person) -> None:
        host.json("add", "--person", person.name, "--key", str(tmp_path / f"{person.name}.pub"))

    threads = [threading.Thread(target=add, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trust = parse_trust(host.trust.read_bytes())
    assert {one.person_id for one in trust.policy.persons} == {"owner", *(person.name for person in people)}
    assert trust.version == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "--person", "a b", "--key", "KEY"),
        ("add", "--person", "alice", "--key", "/dev/null"),
        ("add", "--person", "alice", "--key", "/no/such/file"),
        ("check", "/no/such/file"),
        ("show", "--file", "/no/such/file"),
    ],
)
def test_what_can_not_be_used(host: Host, arguments: tuple[str, ...]) -> None:
    """Names, keys and files that are none are refused with a remedy."""
    with pytest.raises(ExecutorError) as caught:
        host.run(*(str(host.key) if one == "KEY" else one for one in arguments))
    assert caught.value.fault.remedy


@pytest.mark.parametrize(
    ("arguments", "says", "remedy"),
    [
        (("--kind", "agent"), "needs somebody who answers for it", "--sponsor ID"),
        (("--sponsor", "owner"), "only an agent has a sponsor", "--kind agent"),
        (("--group", "sre"), "it has no group 'sre'; there is none", "[[groups]]"),
    ],
)
def test_add_says_what_is_missing(host: Host, arguments: tuple[str, ...], says: str, remedy: str) -> None:
    """Each is told in the words of the command line, and changes nothing."""
    before = host.trust.read_bytes()
    with pytest.raises(ExecutorError) as caught:
        host.run("add", "--person", "bob", "--key", str(host.key), *arguments)
    assert says in caught.value.fault.message
    assert remedy in caught.value.fault.remedy
    assert host.trust.read_bytes() == before


def test_a_key_that_is_listed_is_not_added_again(host: Host) -> None:
    """Neither for the same person nor for another one."""
    host.run("add", "--person", "bob", "--key", str(host.key))
    for person in ("bob", "carol"):
        with pytest.raises(ExecutorError) as caught:
            host.run("add", "--person", person, "--key", str(host.key))
        assert "is bob's already" in caught.value.fault.message


def test_the_program_itself(host: Host) -> None:
    """It works as a process of its own, and says in one JSON line why it refused."""
    environment = {**os.environ, "GONOGO_STATE": str(host.state)}
    argv = [sys.executable, "-P", "-m", "executor", "trust"]
    shown = subprocess.run([*argv, "show"], env=environment, capture_output=True, check=True)
    assert b"owner may approve" in shown.stdout
    refused = subprocess.run([*argv, "revoke", "--person", "owner"], env=environment, capture_output=True, check=False)
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["reason"] == "MALFORMED"
