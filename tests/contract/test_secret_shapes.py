"""Texts that look like credentials are found by their form; words, digests and paths are not."""

import secrets
import string
from dataclasses import dataclass

import pytest

from gonogo.digests import digest
from gonogo.secret_shapes import find_secret, find_secret_in

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
