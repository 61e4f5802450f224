"""`python -m executor audit`: looks at the audit log on the executor's own host, and forgets a caller's checkpoint.

`check` only reads, from one moment's state of the ledger, so that it may run beside the executor. `forget` leaves a
wish that the executor takes: it alone writes its ledger.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from executor.adapters.audit_check import check_all
from executor.adapters.audit_reader import read_audit
from executor.adapters.forget_spool import ForgetSpool
from executor.adapters.trust_file import read_trust_file
from executor.runner.audit import LogSigner
from executor.settings import SettingsError, forget_spool_of, ledger_of, signing_key_of, trust_file_of
from gonogo.notes import EXECUTOR, log_origin
from gonogo.signatures import SignatureError, load_signing_key

WAIT_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one of the commands and tell in one JSON line what came of it.

    Raises:
        ExecutorError: the log does not hold, or nothing could be done.
    """
    given = _parser(environment).parse_args(argv)
    state = Path(given.state).absolute()
    told = _check(state) if given.command == "check" else _forget(state, given.orchestrator, given.wait)
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _check(state: Path) -> Mapping[str, object]:
    origin = log_origin(EXECUTOR, read_trust_file(trust_file_of(state)).executor_id)
    try:
        signer = LogSigner(load_signing_key(signing_key_of(state).read_bytes()), origin)
    except (OSError, SignatureError) as error:
        raise SettingsError(f"the executor's key can not be read: {error}", "make it with: gonogo init") from error
    started = time.monotonic()
    with read_audit(ledger_of(state)) as ledger:
        if ledger is None:
            raise SettingsError(f"there is no audit log in {state}", "name the executor's --state")
        checked = check_all(ledger, signer)
    return {
        "holds": True,
        "origin": origin,
        "entries": checked.size,
        "root": checked.root.hex(),
        "checkpoints": checked.checkpoints,
        "seconds": round(time.monotonic() - started, 3),
    }


def _forget(state: Path, identity: str, seconds: float) -> Mapping[str, object]:
    if not forget_spool_of(state).parent.is_dir():
        raise SettingsError(f"there is no executor in {state}", "name the executor's --state")
    try:
        wish = ForgetSpool(forget_spool_of(state)).ask(identity)
    except OSError as error:
        raise SettingsError(f"the wish can not be left: {error}", "run this as the executor's user") from error
    until = time.monotonic() + seconds
    while wish.exists() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    if wish.exists():
        return {"forgotten": False, "waits": "no executor has taken it yet; one that starts does, before all else"}
    return {"forgotten": True, "orchestrator": identity}


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m executor audit", description="Look at the executor's audit log.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    state = environment.get("GONOGO_STATE", ".gonogo")
    check = commands.add_parser("check", help="check every entry, every record and every checkpoint")
    check.add_argument("--state", default=state, help="state directory")
    forget = commands.add_parser("forget", help="forget what is kept of an orchestrator's audit log")
    forget.add_argument("--orchestrator", required=True, metavar="SPIFFE-ID", help="whose")
    forget.add_argument("--state", default=state, help="state directory")
    forget.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for a running executor")
    return parser
