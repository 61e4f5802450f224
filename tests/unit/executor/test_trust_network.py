"""What the trust file says of the network."""

import pytest

from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.domain.policy import Network
from executor.entrypoints.trust_words import statements, trust_json
from gonogo.policy_document import seal_policy
from gonogo.signatures import new_signing_key
from tests.unit.executor.outside_house import HEAD

KEY = new_signing_key().public.line
GOOD = f'{HEAD}[[persons]]\nid = "owner"\n[[persons.keys]]\nscheme = "ed25519"\npublic_key = "{KEY}"\n'
WHOLE = """
[network]
fetch_in_dry_run = false
commands_in_dry_run = true
max_fetch_bytes = 1000
private_addresses = ["127.0.0.0/8", "::1/128", "10.0.0.5"]
ca_file = "/etc/our-ca.pem"
"""


def test_the_whole_table() -> None:
    """Everything written in the table ends up where it belongs."""
    assert parse_trust((GOOD + WHOLE).encode()).network == Network(
        fetch_in_dry_run=False,
        commands_in_dry_run=True,
        max_fetch_bytes=1000,
        private_addresses=("127.0.0.0/8", "::1/128", "10.0.0.5/32"),
        ca_file="/etc/our-ca.pem",
    )


def test_nothing_is_written() -> None:
    """Without the table no private address is reached, and nothing but reads leaves a dry run."""
    trust = parse_trust(GOOD.encode())
    assert trust.network == Network()
    assert trust.network.private_addresses == ()
    assert not trust.network.commands_in_dry_run


def test_domains_have_one_form() -> None:
    """Domains are kept as they are compared, patterns too."""
    text = 'domains = ["EXAMPLE.org.", "*.München.example", "127.0.0.1"]\n' + GOOD
    assert parse_trust(text.encode()).domains == ("example.org", "*.xn--mnchen-3ya.example", "127.0.0.1")


@pytest.mark.parametrize("line", WHOLE.strip().splitlines()[1:])
def test_the_sealed_policy_covers_it(line: str) -> None:
    """Whoever changes anything of it changes what approvers approve under."""
    plain, changed = (parse_trust(text.encode()).policy for text in (GOOD, f"{GOOD}[network]\n{line}\n"))
    assert seal_policy(plain) != seal_policy(changed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "[network]\nproxy = true\n", "unknown keys: proxy"),
        (GOOD + '[network]\nfetch_in_dry_run = "yes"\n', "fetch_in_dry_run"),
        (GOOD + "[network]\nmax_fetch_bytes = 0\n", "max_fetch_bytes"),
        (GOOD + '[network]\nprivate_addresses = ["everything"]\n', "private_addresses"),
        (GOOD + '[network]\nprivate_addresses = ["10.0.0.1/8"]\n', "private_addresses"),
        (GOOD + '[network]\nprivate_addresses = "10.0.0.0/8"\n', "private_addresses"),
        (GOOD + '[network]\nca_file = "ca.pem"\n', "ca_file"),
        ("network = 1\n" + GOOD, "network"),
        *((f'domains = ["{one}"]\n' + GOOD, "domains") for one in ("*", "https://a.example", "a.example:80", "127.1")),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    """A key that is misspelt or says nothing makes the whole file one that is not taken."""
    with pytest.raises(TrustFileError, match=says):
        parse_trust(text.encode())


def test_it_is_told() -> None:
    """The operator reads it back in words and as JSON."""
    trust = parse_trust((GOOD.replace("version = 1", 'version = 1\ndomains = ["a.example"]') + WHOLE).encode())
    words = "\n".join(statements(trust))
    assert "executions alone" in words
    assert "127.0.0.0/8, ::1/128, 10.0.0.5/32" in words
    assert "/etc/our-ca.pem" in words
    assert trust_json(trust)["network"]["max_fetch_bytes"] == 1000
