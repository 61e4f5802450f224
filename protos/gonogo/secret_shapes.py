"""Text that looks like a credential, by the form its provider gave it.

A plan with such a text is refused and not redacted: what approvers see must be exactly what is signed. The list holds
forms that are a provider's own and hardly ever anything else; random-looking text by itself is no reason, since digests
look random, too. It is a net for slips, not a proof that a plan holds no secret.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Final

REFERENCE: Final = "secret://"
"""How a plan names a secret instead of holding it."""

_FORMS: Final[Mapping[str, str]] = {
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "age key": r"AGE-SECRET-KEY-1[0-9A-Z]{50,}",
    "AWS key id": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{36,}",
    "GitHub fine-grained token": r"\bgithub_pat_[0-9A-Za-z_]{60,}",
    "GitLab token": r"\bglpat-[0-9A-Za-z_-]{20,}",
    "Slack token": r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}",
    "Slack webhook": r"hooks\.slack\.com/services/T[0-9A-Z]{6,}/B[0-9A-Z]{6,}/[0-9A-Za-z]{20,}",
    "Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "Anthropic key": r"\bsk-ant-[0-9A-Za-z_-]{20,}",
    "OpenAI key": r"\bsk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z_-]{40,}",
    "Stripe key": r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{20,}",
    "SendGrid key": r"\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}\b",
    "Hugging Face token": r"\bhf_[0-9A-Za-z]{34,}",
    "npm token": r"\bnpm_[0-9A-Za-z]{36}\b",
    "PyPI token": r"\bpypi-AgE[0-9A-Za-z_-]{50,}",
    "Vault token": r"\bhv[bs]\.[0-9A-Za-z_-]{24,}",
    "Azure storage key": r"\bAccountKey=[0-9A-Za-z+/]{86}==",
    "JSON web token": r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{20,}",
    "password in a URL": r"\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@'\"<>${}]{1,64}:"
    r"(?!(?:pass|passwd|password|secret|changeme|example|user|x+)@)[^\s/:@'\"<>${}*]{4,128}@[0-9A-Za-z.-]+",
}
_NAMES: Final = tuple(_FORMS)
_ANY: Final = re.compile("|".join(f"({form})" for form in _FORMS.values()))
# What nearly every form needs somewhere: most texts are done after one quick look.
_HINT: Final = re.compile(
    r"PRIVATE KEY|AGE-SECRET|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|hooks\.slack|AIza|sk-"
    r"|[rs]k_(?:live|test)|SG\.|hf_|npm_|pypi-|hv[bs]\.|AccountKey=|eyJ|://"
)
_SHOWN_IN_MANUALS: Final = "EXAMPLE"


def find_secret(text: str) -> str | None:
    """Return the kind of credential that a text seems to hold, or None; never the text itself."""
    if _HINT.search(text) is None:
        return None
    for found in _ANY.finditer(text):
        if _SHOWN_IN_MANUALS not in found.group():
            return _NAMES[(found.lastindex or 1) - 1]
    return None


def find_secret_in(value: object) -> str | None:
    """Return the kind of credential in any text or bytes of a frozen value, at any depth, or None."""
    return next((kind for kind in map(find_secret, _texts(value)) if kind is not None), None)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
