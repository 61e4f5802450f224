"""The trust file of a running installation: keys come and go without a restart, and a bad file decides nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gonogo.signatures import SigningKey, new_signing_key
from tests.e2e.installation import Installation, installed

pytestmark = pytest.mark.long

SECONDS = 20.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose trust file these tests change."""
    with installed(tmp_path_factory.mktemp("trust")) as installation:
        yield installation


class Somebody:
    """A person with a key in two files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.key: SigningKey = new_signing_key()
        self.file = folder / name
        self.file.write_bytes(self.key.private_bytes())
        self.file.chmod(0o600)
        self.public = folder / f"{name}.pub"
        self.public.write_text(self.key.public.line + "\n")

    def join(self, installation: Installation, *more: str) -> None:
        """Be added to the trust file."""
        installation.json("trust", "add", "--person", self.name, "--key", str(self.public), *more)


def plan(name: str) -> str:
    """A plan that writes one file."""
    return f"objective: write {name}\nworkspace: site\nsteps:\n  - write_file: {{path: {name}, content: x}}\n"


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds: the executor looks at its trust file every second."""
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


def tried(installation: Installation, name: str) -> str:
    """Propose and dry run a plan."""
    mission: str = installation.json("propose", "-f", "-", text=plan(name))["mission_id"]
    assert installation.json("dry-run", mission)["status"] == "success"
    return mission


def stands(installation: Installation, mission: str, person: str) -> str:
    """How somebody stands to a mission, as `policy explain` says."""
    found = installation.json("policy", "explain", mission)
    return next((one["state"] for one in found["persons"] if one["person"] == person), "unknown")


def known(installation: Installation, person: str) -> bool:
    """Whether the running executor goes by a trust file that names somebody."""
    return stands(installation, tried(installation, f"{person}-{time.monotonic_ns()}"), person) == "may approve"


@contextmanager
def spoiled(installation: Installation, text: str) -> Iterator[None]:
    """Have another trust file lie there for a while."""
    trust = installation.state / "trust.toml"
    good = trust.read_text()
    trust.write_text(text)
    try:
        yield
    finally:
        trust.write_text(good)


def test_somebody_comes_and_goes_without_a_restart(own: Installation, tmp_path: Path) -> None:
    """A key that is added approves within a second or so; once it is revoked, what it approved is refused."""
    alice = Somebody(tmp_path, "alice")
    alice.join(own)
    eventually(lambda: known(own, "alice"))
    mission = tried(own, "alice.txt")
    own.json("approve", mission, "--key", str(alice.file), "--yes")
    assert stands(own, mission, "alice") == "counts"
    own.json("execute", mission)
    assert (own.workspaces["site"] / "alice.txt").read_text() == "x"
    late = tried(own, "late.txt")
    own.json("approve", late, "--key", str(alice.file), "--yes")
    own.json("trust", "revoke", "--person", "alice")
    eventually(lambda: not known(own, "alice"))
    refused = own.run("execute", late, "-o", "json")
    assert refused.code != 0
    assert refused.error["reason"] == "APPROVER_UNKNOWN"
    assert not (own.workspaces["site"] / "late.txt").exists()


def test_a_report_of_before_is_made_again(own: Installation, tmp_path: Path) -> None:
    """After any change of the trust file what was approved under the former one is refused, with what to do."""
    mission = tried(own, "before.txt")
    own.json("approve", mission, "--yes")
    Somebody(tmp_path, "bob").join(own)
    eventually(lambda: known(own, "bob"))
    assert "changed since the dry run" in own.json("policy", "explain", mission)["remarks"][0]
    refused = own.run("execute", mission, "-o", "json")
    assert refused.error["reason"] == "NOT_APPROVED"
    assert "dry run again" in refused.error["remedy"]
    assert not (own.workspaces["site"] / "before.txt").exists()


def test_a_bad_file_decides_nothing_until_it_is_mended(own: Installation) -> None:
    """A misspelt key in the trust file stops dry runs and executions at once; the good file takes up again."""
    mission = tried(own, "bad.txt")
    own.json("approve", mission, "--yes")
    text = (own.state / "trust.toml").read_text()
    with spoiled(own, text.replace("self_approval", "self_aproval")):
        other = own.json("propose", "-f", "-", text=plan("other.txt"))["mission_id"]
        eventually(lambda: own.run("dry-run", other, "-o", "json").code != 0)
        assert "self_aproval" in own.run("dry-run", other, "-o", "json").error["message"]
        assert own.run("execute", mission, "-o", "json").error["reason"] == "STATE_FORBIDS"
    assert not (own.workspaces["site"] / "bad.txt").exists()
    eventually(lambda: own.run("dry-run", other, "-o", "json").code == 0)


def test_an_older_file_is_refused_over_a_restart(tmp_path: Path) -> None:
    """Who puts a former trust file back gets no decisions, and no executor that starts."""
    with installed(tmp_path) as installation:
        trust = installation.state / "trust.toml"
        former = trust.read_text()
        Somebody(tmp_path, "carol").join(installation)
        eventually(lambda: known(installation, "carol"))
        trust.write_text(former)
        eventually(lambda: not _dry_runs(installation))
        installation.stop()
        with pytest.raises(AssertionError, match="was in force already"):
            installation.start()


def _dry_runs(installation: Installation) -> bool:
    mission = installation.json("propose", "-f", "-", text=plan("again.txt"))["mission_id"]
    return installation.run("dry-run", mission, "-o", "json").code == 0
