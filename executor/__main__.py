"""`python -m executor`: the isolated executor."""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Start, serve until told to end, and say in one JSON line on standard error why it could not start."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # both are read when grpc is first imported
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from executor.domain.errors import ExecutorError  # noqa: PLC0415 - after the environment is set
    from executor.settings import read_settings  # noqa: PLC0415 - after the environment is set

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if sys.argv[1:2] == ["trust"]:
            from executor.entrypoints import trust_commands  # noqa: PLC0415 - after the environment is set

            return trust_commands.run(sys.argv[2:], os.environ)
        if sys.argv[1:2] == ["revoke"]:
            from executor.entrypoints import host_revoke  # noqa: PLC0415 - after the environment is set

            return host_revoke.main(sys.argv[2:], os.environ)
        if sys.argv[1:2] == ["audit"]:
            from executor.entrypoints import audit_commands  # noqa: PLC0415 - after the environment is set

            return audit_commands.main(sys.argv[2:], os.environ)
        if sys.argv[1:2] == ["doctor"]:
            from executor.entrypoints import doctor_command  # noqa: PLC0415 - after the environment is set

            return doctor_command.run(sys.argv[2:], os.environ)
        settings = read_settings(sys.argv[1:], os.environ)
        if settings.die_with_parent:
            die_with_parent()
        from executor.bootstrap import build_core  # noqa: PLC0415 - after the environment is set
        from executor.entrypoints.grpc_server import serve  # noqa: PLC0415 - after the environment is set

        with contextlib.ExitStack() as closing:
            asyncio.run(serve(build_core(settings, closing), settings))
    except ExecutorError as error:
        fault = error.fault
        line = {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy}
        sys.stderr.write(json.dumps(line) + "\n")
        return 1
    return 0


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, however that ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel knew


if __name__ == "__main__":
    sys.exit(main())
