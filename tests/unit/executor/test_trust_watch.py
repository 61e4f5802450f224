"""The trust file in force: a new one takes effect while the executor runs, an older or a bad one never does."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.ledger_trust import AnchoredTrust, read_trust_seen
from executor.adapters.trust_tables import TrustFileError
from executor.adapters.trust_watch import TrustWatch, admit
from executor.domain.errors import ExecutorError, StoreError
from executor.domain.policy import Limits, Trust
from executor.entrypoints.grpc_peers import Peers
from executor.runner.dry_runs import Admission
from executor.runner.limited import LimitedExecutioner, LimitedSimulator
from executor.runner.ports import Emit, Simulation
from executor.runner.trust import InForce, TrustInForce
from executor.workspace.globs import Globs
from executor.workspace.workspace import Workspace
from gonogo.digests import digest
from tests.unit.executor.house import House, trust_text

NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Site:
    """A trust file, a ledger, and what watches the one for the other."""

    def __init__(self, root: Path) -> None:
        self.house = House(root / "house")
        self.path = root / "trust.toml"
        self.now = NOW
        self.text = trust_text(self.house.persons)
        self.path.write_text(self.text)
        self.ledger = SqliteLedger(root / "ledger.db")
        self.start()

    def start(self) -> None:
        """Start as an executor does: the file that lies there, unless it is an older one."""
        data = self.path.read_bytes()
        first = admit(data, self.ledger, self.house.in_force, self.now)
        self.trust = TrustInForce(first, now=lambda: self.now)
        self.watch = TrustWatch(
            self.path,
            data,
            records=self.ledger,
            in_force=self.trust,
            prepare=self.house.in_force,
            now=lambda: self.now,
            every=0.01,
        )

    def write(self, text: str) -> None:
        """Put another file in place, and look."""
        self.path.write_text(text)
        self.watch.look()

    def version(self, number: int, **policy: object) -> str:
        """A good file of some version."""
        return trust_text(self.house.persons, **policy).replace("version = 1\n", f"version = {number}\n")

    def refused(self) -> tuple[str, str]:
        """Why nothing can be decided now, with what to do."""
        with pytest.raises(ExecutorError) as caught:
            self.trust.current()
        assert caught.value.fault.remedy
        return caught.value.fault.reason, caught.value.fault.message


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.watch.close()
    found.house.close()
    found.ledger.close()


def test_a_newer_file_takes_effect(site: Site) -> None:
    """A file with a higher version is in force at once, for what is decided and for what is told."""
    before = site.trust.current()
    site.write(site.version(2, approvals_required=2))
    assert site.trust.current().trust.policy.approvals_required == 2
    assert site.trust.last() is site.trust.current()
    assert not site.trust.same(before)
    assert site.ledger.trust_seen() == (2, digest(site.path.read_bytes()))


def test_why_nothing_is_decided_can_be_looked_up(site: Site) -> None:
    """While a file can not be used, what describes the executor says so, and no longer than that."""
    assert site.trust.finding() is None
    site.write(f"nonsense = 1\n{site.version(2)}")
    found = site.trust.finding()
    assert found is not None
    assert (found.name, found.ok) == ("trust file", False)
    assert "unknown keys: nonsense" in found.detail
    assert found.remedy
    site.write(site.version(2))
    assert site.trust.finding() is None


def test_the_thread_looks_by_itself(site: Site) -> None:
    """Nobody needs to restart anything."""
    seen = threading.Event()
    site.trust.follow(lambda _: seen.set())
    site.watch.start()
    site.path.write_text(site.version(2))
    assert seen.wait(10)


def test_a_change_is_an_entry_of_the_audit_log(site: Site) -> None:
    """Which file came into force, and by which policy is decided since, stands in the log in the same transaction."""
    site.write(site.version(2))
    entries = [json.loads(entry.leaf) for entry in site.ledger.stored_entries()]
    changed = [entry for entry in entries if entry["type"] == "trust_changed"]
    assert [entry["version"] for entry in changed] == [1, 2]
    assert changed[-1]["digest"] == digest(site.path.read_bytes())
    assert changed[-1]["policy_digest"] == site.trust.current().policy_digest


def test_the_same_file_again_is_no_change(site: Site) -> None:
    """A start with the file that was in force writes nothing, and looking at it does not either."""
    size = site.ledger.audit_size
    site.start()
    site.watch.look()
    assert site.ledger.audit_size == size


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda site: site.version(1, approvals_required=2), "says something else", id="same version"),
        pytest.param(lambda site: site.text + "# a word\n", "says something else", id="same version, a comment"),
        pytest.param(lambda _: "version = ", "not TOML", id="half written"),
        pytest.param(lambda site: site.version(3).replace("self_approval", "self_aproval"), "unknown keys", id="typo"),
        pytest.param(lambda site: site.version(3).replace("executor-test", "executor-2"), "is for executor", id="id"),
    ],
)
def test_a_bad_file_decides_nothing(site: Site, change: Callable[[Site], str], says: str) -> None:
    """With a file that can not be taken nothing is decided, what is over is still told, and mending it is enough."""
    before = site.trust.current()
    site.write(change(site))
    reason, message = site.refused()
    assert reason == "STATE_FORBIDS"
    assert says in message
    assert site.trust.last() is before
    site.write(site.text)
    assert site.trust.current() is before
    site.write(change(site))
    site.write(site.version(4))
    assert site.trust.current().trust.version == 4


def test_a_file_that_is_gone_decides_nothing(site: Site) -> None:
    """Somebody who removes the trust file does not leave the former one in force."""
    site.path.unlink()
    site.watch.look()
    assert "can not be read" in site.refused()[1]


def test_an_older_file_is_refused(site: Site) -> None:
    """Who brings back a file of the past does not bring back whoever was removed since, not by a restart either."""
    site.write(site.version(2))
    site.write(site.text)
    assert "version 2 was in force already" in site.refused()[1]
    with pytest.raises(TrustFileError):
        site.start()


def test_another_file_of_the_same_version_does_not_start(site: Site) -> None:
    """The ledger knows what a version said, over a restart too."""
    site.path.write_text(site.version(1, approvals_required=2))
    with pytest.raises(TrustFileError) as caught:
        site.start()
    assert "write version = 2" in caught.value.fault.remedy


def test_an_expired_file_decides_nothing(site: Site) -> None:
    """From its end on nothing is decided; a newer file ends that."""
    site.now = datetime(2100, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    site.trust.current()
    site.now = datetime(2100, 1, 1, tzinfo=UTC)
    assert site.refused()[0] == "TRUST_EXPIRED"
    assert site.trust.last().trust.version == 1
    site.write(site.version(2).replace("2100", "2101"))
    assert site.trust.current().trust.version == 2


def test_a_file_that_can_not_be_kept_is_not_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger can not keep does not come into force, and is tried again without another change."""
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise StoreError("STORE_FULL", "the disk is full", "make room")

        patched.setattr(site.ledger, "see_trust", full)
        site.write(site.version(2))
        assert "disk is full" in site.refused()[1]
    site.watch.look()
    assert site.trust.current().trust.version == 2


def test_a_file_that_lies_still_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a file that has not changed for a while is one look at its status."""
    monkeypatch.setattr("executor.adapters.trust_watch.SETTLED_SECONDS", -1.0)  # as if it had been written long ago
    site.watch.look()
    monkeypatch.setattr("executor.adapters.trust_watch.read_trust_bytes", None)
    site.watch.look()
    site.trust.current()


def test_followers_come_first(site: Site) -> None:
    """Whoever keeps a part of the file has the new one before anybody decides by it."""
    seen: list[tuple[Trust, bool]] = []

    def follow(trust: Trust) -> None:
        asked = threading.Thread(target=site.trust.current)
        asked.start()
        asked.join(0.05)
        seen.append((trust, asked.is_alive()))

    site.trust.follow(follow)
    site.write(site.version(2))
    assert seen == [(site.trust.current().trust, True)]


def test_a_file_that_can_not_be_followed_is_not_taken(site: Site) -> None:
    """Where somebody can not go by the new file, everybody stays with the former one, and it is tried again."""
    before = site.trust.current()
    kept: list[int] = []
    broken = True

    def follow(trust: Trust) -> None:
        if broken and trust.version == 2:
            raise ExecutorError("SECRET_UNAVAILABLE", "the secret is not there", "put it there")

    site.trust.follow(lambda trust: kept.append(trust.version))
    site.trust.follow(follow)
    site.write(site.version(2))
    assert "secret is not there" in site.refused()[1]
    assert (site.trust.last(), kept) == (before, [2, 1])
    broken = False
    site.watch.look()
    assert site.trust.current().trust.version == 2


def test_another_process_can_look_into_the_ledger(site: Site, tmp_path: Path) -> None:
    """The command on the host reads what was in force while an executor has the ledger open."""
    assert read_trust_seen(tmp_path / "ledger.db") == site.ledger.trust_seen()
    assert read_trust_seen(tmp_path / "none.db") is None


class FakeAnchor:
    """Keeps one version, as the anchor does."""

    def __init__(self) -> None:
        self.seen = (0, "")

    def trust_seen(self) -> tuple[int, str]:
        return self.seen

    def see_trust(self, version: int, digest: str) -> None:
        self.seen = (version, digest)


def test_a_restored_ledger_does_not_bring_an_older_file_back(site: Site, tmp_path: Path) -> None:
    """What the anchor knows counts where the ledger is an older copy of itself."""
    anchor = FakeAnchor()
    both = AnchoredTrust(ledger=site.ledger, anchor=anchor)
    assert both.trust_seen() == site.ledger.trust_seen()
    both.see_trust(7, "sha256:7", "sha256:policy", NOW)
    assert (site.ledger.trust_seen(), anchor.seen) == ((7, "sha256:7"), (7, "sha256:7"))
    older = SqliteLedger(tmp_path / "older.db")
    restored = AnchoredTrust(ledger=older, anchor=anchor)
    assert restored.trust_seen() == (7, "sha256:7")
    with pytest.raises(TrustFileError):
        admit(site.version(6).encode(), restored, site.house.in_force, NOW)
    older.close()


class TestDryRuns:
    @pytest.fixture
    def house(self, tmp_path: Path) -> Iterator[House]:
        found = House(tmp_path)
        yield found
        found.close()

    def test_a_dry_run_under_a_file_that_changes_is_no_report(self, house: House) -> None:
        """What began under one file and ends under another is made again."""
        newer = with_version(house, 2)
        honest = house.simulator.run

        def run(plan: object, workspace: Workspace, emit: Emit) -> Simulation:
            house.core._trust.replace(newer)
            return honest(plan, workspace, emit)  # type: ignore[arg-type]  # it is a plan

        house.simulator.run = run  # type: ignore[method-assign]  # the file changes meanwhile
        with pytest.raises(ExecutorError) as caught:
            house.dry_run(house.sealed_plan(), "q")
        assert caught.value.fault.reason == "STATE_FORBIDS"
        house.simulator.run = honest  # type: ignore[method-assign]  # it does not change any more
        assert house.dry_run(house.sealed_plan(), "q").body

    def test_nothing_runs_under_an_expired_file(self, house: House) -> None:
        """Neither a dry run nor an execution that was approved in time."""
        request = house.ready()
        house.use(replace(house.trust, expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
        for work in (lambda: house.dry_run(house.sealed_plan()), lambda: house.execute(request)):
            with pytest.raises(ExecutorError) as caught:
                work()
            assert caught.value.fault.reason == "TRUST_EXPIRED"
        assert house.executioner.runs == []


def test_a_workspace_goes_by_new_rules(tmp_path: Path) -> None:
    """What is hidden, volatile or too large is what the new file says, also for a directory that is open already."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "big").write_bytes(bytes(10))
    nothing = Globs(())
    workspace = Workspace(
        workspace_id="site",
        root=tmp_path / "site",
        staging=None,
        locks=tmp_path / "locks",
        hidden=nothing,
        volatile=nothing,
    )
    assert workspace.open().state(b"big") is not None
    workspace.use(hidden=Globs(("secret",)), volatile=Globs(("noise",)), largest_file=9)
    assert workspace.hidden.covers(b"secret")
    assert workspace.volatile.covers(b"noise")
    with pytest.raises(ExecutorError):
        workspace.open().state(b"big")
    workspace.close()


def test_places_follow_the_limit() -> None:
    """A new limit of dry runs at once holds for whoever comes next."""
    limit = 1
    admission = Admission(lambda: limit, waiting=0, patience=0.01)
    with admission.enter():
        with pytest.raises(ExecutorError), admission.enter():
            pass
        limit = 2
        with admission.enter():
            pass


def with_version(house: House, version: int) -> InForce:
    """The house's trust file with another version."""
    policy = replace(house.trust.policy, trust_version=version)
    return house.in_force(replace(house.trust, version=version, policy=policy))


class Called:
    """A call by somebody with a certificate."""

    def __init__(self, *identities: str) -> None:
        self._identities = [one.encode() for one in identities]

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": self._identities}


def test_callers_follow_the_file(site: Site) -> None:
    """An orchestrator that the file no longer names is served no longer, and one that it names is from then on."""
    peers = Peers(lambda: site.trust.last().trust)
    known, other = (Called(f"spiffe://gonogo.local/{name}") for name in ("orchestrator", "other"))
    identity = peers.check(known)  # type: ignore[arg-type]  # a call
    peers.check_dry_run(identity)
    site.write(site.version(2).replace("gonogo.local/orchestrator", "gonogo.local/other"))
    peers.check(other)  # type: ignore[arg-type]  # a call
    with pytest.raises(ExecutorError) as caught:
        peers.check(known)  # type: ignore[arg-type]  # a call
    assert caught.value.fault.reason == "PEER_NOT_ALLOWED"
    site.write(site.version(3, may_dry_run="[]"))
    with pytest.raises(ExecutorError):
        peers.check_dry_run(identity)


def test_a_dry_run_and_an_execution_use_the_limits_of_their_beginning() -> None:
    """Both are made for the limits in force when they begin, not for those of the executor's start."""
    limits = Limits(max_content_bytes=1)
    made: list[int] = []

    class Told:
        """A machine that was made for some limits."""

        def __init__(self, limits: Limits) -> None:
            made.append(limits.max_content_bytes)

        def run(self, *_: object) -> str:
            return "ran"

    simulator = LimitedSimulator(limits=lambda: limits, within=Told)  # type: ignore[arg-type]  # takes anything
    executioner = LimitedExecutioner(limits=lambda: limits, within=Told)  # type: ignore[arg-type]  # takes anything
    nothing: Any = None
    assert str(simulator.run(nothing, nothing, nothing)) == "ran"
    limits = Limits(max_content_bytes=2)
    assert str(simulator.run(nothing, nothing, nothing)) == "ran"
    assert str(executioner.run(nothing)) == "ran"
    assert made == [1, 2, 2]
