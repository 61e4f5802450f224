"""`python -m executor trust …`: what the operator of this host does with the trust file.

None of it needs the executor to run, and none of it goes through one. A running executor sees a changed file within a
second.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

from executor.adapters import trust_edit
from executor.adapters.ledger_trust import read_trust_seen
from executor.adapters.sqlite_driver import sqlite3
from executor.adapters.trust_file import parse_trust, read_trust_bytes
from executor.adapters.trust_replace import rewrite
from executor.adapters.trust_tables import TrustFileError
from executor.adapters.trust_watch import check_not_older
from executor.domain.errors import StoreError
from executor.domain.plan_rules import is_identifier
from executor.domain.policy import Trust
from executor.entrypoints.trust_words import statements, trust_json, warnings
from gonogo.digests import digest
from gonogo.policy import Key, KeyUse, PersonKind
from gonogo.policy_document import seal_policy
from gonogo.signatures import SCHEMES, SSHSIG, SignatureError, fits, load_public_key

ANNOUNCED: Final = "A running executor goes by it within a second; reports made before have to be made again."

Changed = tuple[str, ...]


def run(argv: Sequence[str], environment: Mapping[str, str], out: TextIO = sys.stdout) -> int:
    """Run one of the commands.

    Raises:
        TrustFileError: the trust file, the old one or what it would become, can not be used.
        StoreError: the ledger can not be read.
    """
    given = _parser(environment).parse_args(argv)
    path = Path(given.file) if given.file else Path(given.state) / "trust.toml"
    command: Callable[[argparse.Namespace, Path], tuple[Mapping[str, Any], str]] = given.command
    data, text = command(given, path)
    out.write((json.dumps(data) if given.output == "json" else text) + "\n")
    return 0


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", default=environment.get("GONOGO_STATE", ".gonogo"), help="state directory")
    common.add_argument("--file", default="", help="the trust file, where it is not the state directory's")
    common.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the answer")
    parser = argparse.ArgumentParser(prog="python -m executor trust", description="The trust file.")
    commands = parser.add_subparsers(required=True)
    entry = partial(commands.add_parser, parents=[common], allow_abbrev=False)
    entry("show", help="say who may do what").set_defaults(command=_show)
    entry("policy", help="print the policy as it would be sealed").set_defaults(command=_policy)
    check = entry("check", help="say whether a file would be taken, and what it changes")
    check.add_argument("new", help="the file")
    check.set_defaults(command=_check)
    _add_options(entry("add", help="add a key, and a person or agent where it is new"))
    revoke = entry("revoke", help="take out a key, or a person with all their keys")
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("--key", default="", help="fingerprint, as ssh-keygen -l prints it")
    which.add_argument("--person", default="", help="id")
    revoke.set_defaults(command=_revoke)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--person", required=True, help="id of the person or agent")
    parser.add_argument("--key", required=True, help="file with the public key")
    parser.add_argument("--scheme", choices=SCHEMES, default=SSHSIG, help="how it signs")
    parser.add_argument("--kind", choices=[one.value for one in PersonKind], default=PersonKind.PERSON.value)
    parser.add_argument("--sponsor", default="", help="the person who answers for an agent")
    parser.add_argument("--use", choices=[one.value for one in KeyUse], help="agents' keys always propose")
    parser.add_argument("--group", action="append", default=[], help="a group to join; repeat for more")
    parser.set_defaults(command=_add)


def _show(given: argparse.Namespace, path: Path) -> tuple[Mapping[str, Any], str]:
    data = read_trust_bytes(path)
    trust = parse_trust(data)
    found: dict[str, Any] = {
        **trust_json(trust),
        "digest": digest(data),
        "policy_digest": digest(seal_policy(trust.policy)),
        "warnings": warnings(trust, _now()),
        "refused": _refused(trust, data, given),
    }
    lines = [*statements(trust), *_marked("warning", found["warnings"])]
    if found["refused"]:
        lines.append(f"refused: {found['refused']}")
    return found, "\n".join(lines)


def _policy(_given: argparse.Namespace, path: Path) -> tuple[Mapping[str, Any], str]:
    body = seal_policy(parse_trust(read_trust_bytes(path)).policy).decode()
    return json.loads(body), body


def _check(given: argparse.Namespace, path: Path) -> tuple[Mapping[str, Any], str]:
    data = read_trust_bytes(Path(given.new))
    new = parse_trust(data)
    check_not_older(new, digest(data), _seen(given))
    old = _installed(path)
    if old is not None and old.executor_id != new.executor_id:
        raise TrustFileError(
            f"it is for executor {new.executor_id!r}, and this is {old.executor_id!r}", "keep the executor's id"
        )
    found: dict[str, Any] = {
        "taken": True,
        "version": new.version,
        "changes": _changes(old, new),
        "warnings": warnings(new, _now()),
    }
    lines = ["It would be taken.", *(found["changes"] or ["It says what the present one says."])]
    return found, "\n".join([*lines, *_marked("warning", found["warnings"])])


def _add(given: argparse.Namespace, path: Path) -> tuple[Mapping[str, Any], str]:
    if given.kind == PersonKind.AGENT.value and not given.sponsor:
        raise TrustFileError("an agent needs somebody who answers for it", "name the person with --sponsor ID")
    if given.kind != PersonKind.AGENT.value and given.sponsor:
        raise TrustFileError("only an agent has a sponsor", "give --kind agent, or leave --sponsor out")
    addition = trust_edit.Addition(
        person_id=_person_id(given.person),
        key=_key(given),
        kind=PersonKind(given.kind),
        sponsor=given.sponsor,
        groups=tuple(given.group),
    )
    return _edited(given, path, lambda text: trust_edit.add(text, addition))


def _revoke(given: argparse.Namespace, path: Path) -> tuple[Mapping[str, Any], str]:
    if given.key:
        return _edited(given, path, lambda text: trust_edit.revoke_key(text, given.key))
    return _edited(given, path, lambda text: trust_edit.revoke_person(text, given.person))


def _edited(
    given: argparse.Namespace, path: Path, edit: Callable[[str], tuple[str, Trust]]
) -> tuple[Mapping[str, Any], str]:
    found: dict[str, Any] = {}

    def apply(data: bytes) -> bytes:
        old, seen = parse_trust(data), _seen(given)
        check_not_older(old, digest(data), seen)
        text, new = edit(data.decode())
        check_not_older(new, digest(text.encode()), seen)
        found.update(version=new.version, changes=_changes(old, new), warnings=warnings(new, _now()))
        return text.encode()

    rewrite(path, apply)
    return found, "\n".join([*found["changes"], *_marked("warning", found["warnings"]), ANNOUNCED])


def _key(given: argparse.Namespace) -> Key:
    try:
        public = load_public_key(Path(given.key).read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError, SignatureError) as error:
        remedy = "give the .pub file of an OpenSSH Ed25519 key"
        raise TrustFileError(f"{given.key} is no public key: {error}", remedy) from None
    if not fits(given.scheme, public):
        raise TrustFileError(
            f"a key of type {public.key_type} does not sign under {given.scheme}", "leave --scheme out"
        )
    agent = given.kind == PersonKind.AGENT.value
    use = KeyUse(given.use) if given.use else (KeyUse.PROPOSE if agent else KeyUse.APPROVE)
    return Key(key_id=public.key_id, scheme=given.scheme, public_key=public.line, use=use, hardware=public.hardware)


def _person_id(text: str) -> str:
    if not is_identifier(text):
        raise TrustFileError(f"{text!r} is no id", "use printable ASCII without blanks")
    return text


def _changes(old: Trust | None, new: Trust) -> Changed:
    """Return the lines that go and those that come."""
    before, after = (statements(old) if old else ()), statements(new)
    gone = [f"- {line}" for line in before if line not in after]
    return (*gone, *(f"+ {line}" for line in after if line not in before))


def _installed(path: Path) -> Trust | None:
    """Return what the file in place says; None where there is none that says anything."""
    try:
        return parse_trust(read_trust_bytes(path))
    except TrustFileError:
        return None


def _refused(trust: Trust, data: bytes, given: argparse.Namespace) -> str:
    """Say why the executor would refuse the file; empty where it would not."""
    try:
        check_not_older(trust, digest(data), _seen(given))
    except TrustFileError as error:
        return f"{error.fault.message}; {error.fault.remedy}"
    return ""


def _seen(given: argparse.Namespace) -> tuple[int, str] | None:
    ledger = Path(given.state) / "executor" / "ledger.db"
    try:
        return read_trust_seen(ledger)
    except sqlite3.Error as error:
        raise StoreError(
            "INTERNAL", f"the ledger {ledger} can not be read: {error}", "do this as the user that the executor runs as"
        ) from error


def _marked(word: str, lines: Sequence[str]) -> list[str]:
    return [f"{word}: {line}" for line in lines]


def _now() -> datetime:
    return datetime.now(UTC)
