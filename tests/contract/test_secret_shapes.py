"""Texts that look like credentials are found by their form; words, digests and paths are not."""

import re
import secrets
import string
from dataclasses import dataclass

import pytest

from gonogo.digests import digest
from gonogo.secret_shapes import _BY_HINT, _FORMS, _HINT, find_secret, find_secret_in

ALPHABET = string.ascii_letters + string.digits


def letters(count: int) -> str:
    """Return random letters and digits, so that no credential-like text stands in this file itself."""
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


CREDENTIALS = {
    "AWS key id": lambda: "AKIA" + letters(16).upper(),
    "GitHub token": lambda: "ghp_" + letters(36),
    "GitHub fine-grained token": lambda: f"github_pat_{letters(22)}_{letters(59)}",
    "GitLab token": lambda: "glpat-" + letters(20),
    "Slack token": lambda: "xoxb-" + letters(12) + "-" + letters(24),
    "Google API key": lambda: "AIza" + letters(35),
    "Anthropic key": lambda: "sk-" + "ant-api03-" + letters(80),
    "OpenAI key": lambda: "sk-" + "proj-" + letters(60),
    "Stripe key": lambda: "sk_" + "live_" + letters(24),
    "npm token": lambda: "npm_" + letters(36),
    "Vault token": lambda: "hvs." + letters(30),
    "private key": lambda: "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    "password in a URL": lambda: f"postgres://app:{letters(12)}@db.internal:5432/app",
    "age key": lambda: "AGE-" + "SECRET-KEY-1" + letters(58).upper(),
    "AWS secret key": lambda: "aws_secret_access_key = " + letters(40),
    "Slack webhook": lambda: f"hooks.slack.com/services/T{letters(8).upper()}/B{letters(8).upper()}/{letters(24)}",
    "Google client secret": lambda: "GOCSPX-" + letters(28),
    "SendGrid key": lambda: f"SG.{letters(22)}.{letters(43)}",
    "Shopify token": lambda: "shpat_" + secrets.token_hex(16),
    "DigitalOcean token": lambda: "dop_v1_" + secrets.token_hex(32),
    "Docker token": lambda: "dckr_pat_" + letters(27),
    "Grafana token": lambda: f"glsa_{letters(32)}_{secrets.token_hex(4)}",
    "Atlassian token": lambda: "ATATT3" + letters(180) + "=",
    "Hugging Face token": lambda: "hf_" + letters(34),
    "PyPI token": lambda: "pypi-AgE" + letters(150),
    "Azure storage key": lambda: f"AccountKey={letters(86)}==",
    "JSON web token": lambda: f"eyJ{letters(20)}.eyJ{letters(40)}.{letters(43)}",
}
HARMLESS = (
    "replace 'colour' with 'color' in docs/guide.md",
    digest(b"anything"),
    "https://example.org/a/very/long/path?query=value#fragment",
    "postgres://user:password@localhost/db",
    "postgres://$USER:${PASSWORD}@localhost/db",
    "AKIAIOSFODNN7" + "EXAMPLE",
    "task-based scheduling with risk-assessment",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk2 alice@host",
    "git@github.com:owner/name.git",
    "a2b4c6d8" * 16,
    "aws_secret_access_key = ${AWS_SECRET_ACCESS_KEY}",
    "aws_secret_access_key = " + "0" * 64,
    "the whole task-" + "word-" * 20,
    "-----BEGIN CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
)


@dataclass(frozen=True)
class Holder:
    """Something with texts at some depth."""

    name: str
    parts: tuple[object, ...]


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_credential_is_found_anywhere_in_a_text(kind: str) -> None:
    """A credential is found at the start, inside a line and at the end."""
    credential = CREDENTIALS[kind]()
    for text in (credential, f'token = "{credential}"\n', f"curl -H 'X: {credential}'", f"\n\n{credential}"):
        assert find_secret(text) == kind


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_credential_is_found_in_text_that_stands_for_other_text(kind: str) -> None:
    """Behind an escape, as in a script or in a quoted query, or behind a script without blanks, it begins, too."""
    credential = CREDENTIALS[kind]()
    for text in (f"printf 'user=x\\n{credential}\\n'", f"user%3Dx%26token%3D{credential}", f"令牌{credential}令牌"):
        assert find_secret(text) == kind


def test_every_form_has_its_hint_and_its_test() -> None:
    """A form that nothing leads to would never be found."""
    assert CREDENTIALS.keys() == _FORMS.keys()


def test_a_form_is_tried_wherever_one_of_its_hints_stands() -> None:
    """Hints that begin alike are looked for together, and found at the same places as each by itself."""
    each = re.compile("|".join(map(re.escape, _BY_HINT)))
    starts = {hint[:end] for hint in _BY_HINT for end in range(len(hint) + 1)}
    text = "\n".join(start + hint for start in sorted(starts) for hint in _BY_HINT)
    found = [(one.start(), one.group()) for one in _HINT.finditer(text)]
    assert found == [(one.start(), one.group()) for one in each.finditer(text)]
    assert {hint for _, hint in found} == set(_BY_HINT)


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_is_no_credential(text: str) -> None:
    """Digests, URLs, public keys, placeholders and manuals' examples raise no alarm."""
    assert find_secret(text) is None


def test_a_credential_is_found_in_bytes_keys_and_nested_values() -> None:
    """Nothing in a value is too deep to be looked at."""
    credential = CREDENTIALS["GitHub token"]()
    for inner in (credential.encode(), {"TOKEN": credential}, {credential: ""}, Holder("x", (credential,))):
        assert find_secret_in(Holder("plan", ("a", ("b", inner)))) == "GitHub token"
    assert find_secret_in(Holder("plan", ("a", ("b", {"c": b"d"})))) is None


def test_a_variable_and_its_value_belong_together() -> None:
    """A value that has no form of its own is known by its name."""
    assert find_secret_in({"env": {"AWS_SECRET_ACCESS_KEY": letters(40)}}) == "AWS secret key"
    assert find_secret_in({"env": {"OTHER_KEY": letters(40)}}) is None
