"""Removing what is in the executor's own directories, whatever its bits and however deep it is."""

import os
import stat

from executor.workspace.paths import ROOT, Directory, join


def remove_tree(where: Directory, name: bytes) -> None:
    """Remove a name in a directory, with all beneath it; what is not there is no error."""
    try:
        os.unlink(name, dir_fd=where.fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        _empty(where, name)
        os.rmdir(name, dir_fd=where.fd)


def _empty(where: Directory, name: bytes) -> None:
    """Remove everything in a directory, whatever its bits and however deep."""
    top = Directory(_opened_up(where, name))
    try:
        waiting, found = [ROOT], []
        while waiting:
            path = waiting.pop()
            inner = _empty_of_files(top, path)
            waiting += inner
            found += inner
        for path in reversed(found):
            parent, last = top.open_parent(path)
            try:
                os.rmdir(last, dir_fd=parent)
            finally:
                os.close(parent)
    finally:
        top.close()


def _empty_of_files(top: Directory, path: bytes) -> list[bytes]:
    """Remove what is in a directory, and return the directories in it, which stay."""
    fd = _opened_up(top, path)
    try:
        with os.scandir(fd) as scanned:
            entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in scanned]
        for name, is_directory in entries:
            if not is_directory:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    return [join(path, name) for name, is_directory in entries if is_directory]


def _opened_up(where: Directory, path: bytes) -> int:
    """Open a directory whose owner may then read, change and enter it."""
    look = where.open_look(path)
    try:
        mode = os.fstat(look).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{look}", stat.S_IRWXU)  # noqa: PTH101 - a descriptor's own name
    finally:
        os.close(look)
    return where.open_directory(path)
