"""Text that looks like a credential, by the form its provider gave it.

A plan with such a text is refused and not redacted: what approvers see must be exactly what is signed. The list holds
forms that are a provider's own and hardly ever anything else; random-looking text by itself is no reason, since digests
look random, too. It is a net for slips, not a proof that a plan holds no secret.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Final

REFERENCE: Final = "secret://"
"""How a plan names a secret instead of holding it."""

# How each form may begin, as one or more hints, and all of it. Only where a hint stands is a form tried.
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "private key": ("-----BEGIN ", r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    "age key": ("AGE-SECRET", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    "AWS key id": ("AKIA ASIA", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "AWS secret key": (
        "aws_secret AWS_SECRET awsSecret AWSSecret",
        r"(?i:aws_?secret_?(?:access_?)?key)[^0-9A-Za-z/+]{1,6}[0-9A-Za-z/+]{40}(?![0-9A-Za-z/+])",
    ),
    "GitHub token": ("ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[0-9A-Za-z]{36,}"),
    "GitHub fine-grained token": ("github_pat_", r"\bgithub_pat_[0-9A-Za-z_]{60,}"),
    "GitLab token": ("glpat-", r"\bglpat-[0-9A-Za-z_-]{20,}"),
    "Slack token": ("xox", r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}"),
    "Slack webhook": (
        "hooks.slack",
        r"hooks\.slack\.com/services/T[0-9A-Z]{6,}/B[0-9A-Z]{6,}/[0-9A-Za-z]{20,}",
    ),
    "Google API key": ("AIza", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "Google client secret": ("GOCSPX-", r"\bGOCSPX-[0-9A-Za-z_-]{28}"),
    "Anthropic key": ("sk-", r"\bsk-ant-[0-9A-Za-z_-]{20,}"),
    "OpenAI key": ("sk-", r"\bsk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z_-]{40,}"),
    "Stripe key": ("sk_live sk_test rk_live rk_test", r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{20,}"),
    "SendGrid key": ("SG.", r"\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}\b"),
    "Shopify token": ("shpat_ shpca_ shppa_ shpss_", r"\bshp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}"),
    "DigitalOcean token": ("dop_v1_ doo_v1_ dor_v1_ dot_v1_", r"\bdo[oprt]_v1_[0-9a-f]{64}"),
    "Docker token": ("dckr_", r"\bdckr_[op]at_[0-9A-Za-z_-]{27,}"),
    "Grafana token": ("glsa_", r"\bglsa_[0-9A-Za-z]{32}_[0-9a-f]{8}"),
    "Atlassian token": ("ATATT3", r"\bATATT3[0-9A-Za-z_=-]{100,}"),
    "Hugging Face token": ("hf_", r"\bhf_[0-9A-Za-z]{34,}"),
    "npm token": ("npm_", r"\bnpm_[0-9A-Za-z]{36}\b"),
    "PyPI token": ("pypi-", r"\bpypi-AgE[0-9A-Za-z_-]{50,}"),
    "Vault token": ("hvs. hvb.", r"\bhv[bs]\.[0-9A-Za-z_-]{24,}"),
    "Azure storage key": ("AccountKey=", r"\bAccountKey=[0-9A-Za-z+/]{86}=="),
    "JSON web token": ("eyJ", r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{20,}"),
    "password in a URL": (
        "://",
        (
            r"(?<=[a-z0-9])://[^\s/:@'\"<>${}]{1,64}:"
            r"(?!(?:pass|passwd|password|secret|changeme|example|user|x+)@)[^\s/:@'\"<>${}*]{4,128}@[0-9A-Za-z.-]+"
        ),
    ),
}
# Where a word begins: also behind letters of a script that writes no blanks, and, in text that stands for other text,
# behind an escape: \n, %20.
_WORD: Final = r"(?:\b|(?<=\\[nrtbfv0])|(?<=%[0-9A-Fa-f]{2}))"
_SHOWN_IN_MANUALS: Final = "EXAMPLE"


def _by_hint() -> dict[str, tuple[tuple[str, re.Pattern[str]], ...]]:
    found: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {}
    for kind, (hints, form) in _FORMS.items():
        pattern = re.compile(_WORD + form[2:] if form.startswith(r"\b") else form, re.ASCII)
        for hint in [hints] if hints.endswith(" ") else hints.split(" "):
            found[hint] = (*found.get(hint, ()), (kind, pattern))
    return found


def _one_of(words: Sequence[str]) -> str:
    """Return a form that is any of some words, of which none begins with another.

    What words begin with alike stands once, so that a text is not compared with each of them at each place: all of a
    plan's text is looked at, in both services, and this takes a third of the time.
    """
    rest: dict[str, list[str]] = {}
    for word in words:
        rest.setdefault(word[0], []).append(word[1:])
    forms = [re.escape(first) + (_one_of(ends) if ends != [""] else "") for first, ends in rest.items()]
    return forms[0] if len(forms) == 1 else f"(?:{'|'.join(forms)})"


_BY_HINT: Final = _by_hint()
_HINT: Final = re.compile(_one_of(tuple(_BY_HINT)))


def find_secret(text: str) -> str | None:
    """Return the kind of credential that a text seems to hold, or None; never the text itself."""
    for hint in _HINT.finditer(text):
        for kind, form in _BY_HINT[hint.group()]:
            found = form.match(text, hint.start())
            if found is not None and _SHOWN_IN_MANUALS not in found.group():
                return kind
    return None


def find_secret_in(value: object) -> str | None:
    """Return the kind of credential in any text or bytes of a frozen value, at any depth, or None.

    All texts are looked at as one, a line each: a name and its value, such as a variable's, belong together.
    """
    texts: list[str] = []
    _collect(value, texts)
    return find_secret("\n".join(texts))


def _collect(value: object, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, bytes):
        texts.append(value.decode("latin-1"))
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, texts)
    elif names := _names_of(type(value)):  # type: ignore[arg-type]  # every class can be hashed
        for name in names:
            _collect(getattr(value, name), texts)
    elif isinstance(value, Mapping):
        for pair in value.items():
            _collect(pair, texts)


@functools.cache
def _names_of(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields; none of anything else, which holds no text."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
