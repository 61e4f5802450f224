"""`python -m executor revoke`: hands in a signed revocation on the executor's own host.

It writes no ledger. The document is checked against the trust file and left in a folder of the executor's: a running
executor takes it within a tenth of a second and answers, one that does not run takes it before it serves anything.
Writing beside a running executor would need two processes to keep one audit log in step, for no gain.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from executor.adapters.revocation_spool import MAX_FILE, RevocationSpool, document_from_text
from executor.adapters.trust_file import read_trust_file
from executor.adapters.trust_tables import TrustFileError
from executor.adapters.wire import WireDocuments
from executor.domain.sealed import SealedBytes
from executor.runner.keyring import Keyring
from executor.runner.revocations import read_revocation
from executor.settings import SettingsError, spool_of, trust_file_of

WAIT_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.02


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Hand one in and tell in one JSON line what came of it.

    Raises:
        ExecutorError: it is no revocation by somebody who may approve here, or could not be handed in.
    """
    given = _parser(environment).parse_args(argv)
    root = Path(given.state).absolute()
    document = document_from_text(_read(given.file))
    _check(root, document)
    spool = RevocationSpool(spool_of(root))
    answer = _answer(spool, spool.hand_in(document), given.wait)
    if answer is None:
        answer = {"handed_in": True, "waits": "no executor has taken it yet; one that starts does, before all else"}
    out = sys.stderr if "reason" in answer else sys.stdout
    out.write(json.dumps(answer) + "\n")
    return 1 if "reason" in answer else 0


def _check(root: Path, document: SealedBytes) -> None:
    """Refuse at once what the executor would refuse.

    A trust file that is broken now keeps nobody from stopping something: a running executor goes by its last good one.
    """
    try:
        trust = read_trust_file(trust_file_of(root))
    except TrustFileError:
        if not spool_of(root).parent.is_dir():
            raise  # there is no executor here at all
        return
    read_revocation(document, Keyring(trust.policy.persons), trust.executor_id, WireDocuments())


def _answer(spool: RevocationSpool, name: str, seconds: float) -> Mapping[str, Any] | None:
    until = time.monotonic() + seconds
    while True:
        answer = spool.answer(name)
        if answer is not None or time.monotonic() >= until:
            return answer
        time.sleep(POLL_SECONDS)


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_FILE + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(f"{name} can not be read: {error.strerror}", "name the file, or - for the input") from error


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m executor revoke",
        description="Hand in a signed revocation or denial on the executor's host.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="what gonogo revoke --out wrote; - reads the standard input")
    parser.add_argument("--state", default=environment.get("GONOGO_STATE", ".gonogo"), help="state directory")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for a running executor")
    return parser
