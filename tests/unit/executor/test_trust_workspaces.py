"""The trust file's tables of workspaces: labels, and what live programs may reach."""

import pytest

from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.entrypoints.trust_words import statements
from tests.unit.executor.house import Person, trust_text

GOOD = trust_text({"owner": [Person("owner")]})


def test_access_is_given_by_workspace() -> None:
    """One, the other or both; a table without labels leaves them unknown, which is strictest."""
    shop = '[workspaces.shop]\nlabels = []\nlive_access = ["host", "network"]\n'
    tables = f'[workspaces.site]\nlive_access = ["network"]\n{shop}'
    trust = parse_trust((GOOD + tables).encode())
    assert trust.live_access == {"site": ("network",), "shop": ("host", "network")}
    assert trust.policy.labels == {"shop": ()}
    assert {"site", "shop"} <= trust.workspaces


def test_the_policys_digest_names_it() -> None:
    """What is approved under one access is not approved under another."""
    digests = {
        parse_trust((GOOD + table).encode()).policy.limits_digest
        for table in (
            "",
            '[workspaces.site]\nlive_access = ["network"]\n',
            '[workspaces.site]\nlive_access = ["host"]\n',
            '[workspaces.shop]\nlive_access = ["host"]\n',
            "[network]\ncommands_in_dry_run = true\n",
        )
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('live_access = ["internet"]', "write one of"),
        ("live_access = []", "names something twice"),
        ('live_access = ["host", "host"]', "names something twice"),
        ('live_access = "host"', "not a list"),
        ("", "says nothing"),
        ('labels = ["a", "a"]', "twice"),
        ("access = true", "unknown keys"),
    ],
)
def test_what_is_not_clear_is_refused(table: str, says: str) -> None:
    """With the place, and what to write there."""
    with pytest.raises(TrustFileError) as caught:
        parse_trust(f"{GOOD}[workspaces.site]\n{table}\n".encode())
    assert says in f"{caught.value.fault.message}; {caught.value.fault.remedy}"


def test_it_is_told_in_words() -> None:
    """Whoever compares two files sees it."""
    told = statements(parse_trust(f'{GOOD}[workspaces.site]\nlive_access = ["network", "host"]\n'.encode()))
    assert "live programs of workspace site may reach the host and the network" in told
