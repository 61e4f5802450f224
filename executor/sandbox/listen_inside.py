"""Listens on the loopback of another network namespace, and hands the listening socket over.

A program of its own, because only a process with a single thread may enter a user namespace, which has to be done first
where the executor is no root. It is started by its path, without the site's packages, and imports nothing of the
executor's. Its standard input is a socket: it sends one descriptor through that, or nothing, and ends.

    listen_inside.py PID PORT
"""

import ctypes
import fcntl
import os
import socket
import sys
from pathlib import Path

_OWNER_OF = 0xB701  # NS_GET_USERNS
_USER, _NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET
_ALSO_WHILE_DOWN = 15  # IP_FREEBIND: the loopback may be brought up a moment later
_WAITING = 128


def _enter(namespace: int, kind: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, kind) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Enter the process's network namespace, and listen there; never in the own one."""
    pid, port = int(sys.argv[1]), int(sys.argv[2])
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if os.path.samestat(os.fstat(network), Path("/proc/self/ns/net").stat()):
        sys.exit("that is no namespace of its own")
    owner = fcntl.ioctl(network, _OWNER_OF)
    # Root owns the namespaces that it makes, but can not enter the one that it is in.
    if not os.path.samestat(os.fstat(owner), Path("/proc/self/ns/user").stat()):
        _enter(owner, _USER)
    _enter(network, _NETWORK)
    with socket.socket() as listener, socket.socket(fileno=0) as executor:
        listener.setsockopt(socket.IPPROTO_IP, _ALSO_WHILE_DOWN, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a former executor's connections may linger
        listener.bind(("127.0.0.1", port))
        listener.listen(_WAITING)
        socket.send_fds(executor, [b"l"], [listener.fileno()])


if __name__ == "__main__":
    main()
