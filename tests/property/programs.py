"""Random programs that change the tree they run in, the same ones for a sandbox and for a real directory.

A program is a list of operations, each a name and two numbers. Which paths they mean is looked up in the tree as it is
by then, so that most of them work, and the same program does the same to the same tree wherever it runs.
"""

import json
from pathlib import Path

from hypothesis import strategies as st

OPERATIONS = (
    *("write", "append", "rewrite", "grow", "touch", "set_time", "set_time", "move", "move", "move_over", "copy_all"),
    *("copy", "remove", "make", "replace", "link", "mode", "attribute", "attribute", "no_attribute", "become"),
)
PROGRAMS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8
)
Program = list[tuple[str, int, int]]

SOURCE = """
import os, shutil, sys

NAMES = ["a", "b", "c", "d", "\\udcff\\n"]
CONTENTS = [b"", b"one\\n", b"two\\n", b"\\0" * 10, b"y" * 50000]
MODES = [0o644, 0o600, 0o755, 0o700]
TIMES = [123456789, 10**18 + 5, 999999999999999999, 1]
ATTRIBUTES = ["user.note", "user.overlay.opaque", "user.number"]


class Machine:
    def __init__(self, base):
        self.base = base

    def paths(self, kinds="fdl"):
        found = []
        for folder, folders, files in os.walk(self.base):
            for name in folders + files:
                path = os.path.join(folder, name)
                kind = "l" if os.path.islink(path) else "d" if os.path.isdir(path) else "f"
                if kind in kinds:
                    found.append(path)
        return sorted(found)

    def old(self, number, kinds="fdl"):
        found = self.paths(kinds)
        return found[number % len(found)] if found else None

    def new(self, number):
        folders = [self.base, *self.paths("d")]
        return os.path.join(folders[number % len(folders)], NAMES[number % len(NAMES)])

    def put(self, path, content, mode):
        with open(path, mode) as file:
            file.write(content)

    def remove_whole(self, path):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    def write(self, i, j):
        self.put(self.new(i), CONTENTS[j % len(CONTENTS)], "wb")

    def append(self, i, j):
        self.put(self.old(i, "f"), CONTENTS[j % len(CONTENTS)], "ab")

    def rewrite(self, i, j):
        path = self.old(i, "f")
        shutil.copy(path, path + ".tmp")
        os.rename(path + ".tmp", path)

    def grow(self, i, j):
        os.truncate(self.old(i, "f"), 1000 * j + 7)

    def touch(self, i, j):
        os.utime(self.old(i, "fl"), follow_symlinks=False)

    def set_time(self, i, j):
        time = TIMES[j % len(TIMES)]
        os.utime(self.old(i) if i % 9 else self.base, ns=(time, time), follow_symlinks=False)

    def move(self, i, j):
        path, target = self.old(i), self.new(j)
        if not os.path.lexists(target):
            shutil.move(path, target)

    def move_over(self, i, j):
        os.rename(self.old(i, "fl"), self.old(j, "fl"))

    def copy_all(self, i, j):
        path, target = self.old(i, "df"), self.new(j)
        if not os.path.lexists(target) and not (target + "/").startswith(path + "/"):
            shutil.copytree(path, target, symlinks=True) if os.path.isdir(path) else shutil.copy2(path, target)

    def copy(self, i, j):
        shutil.copy(self.old(i, "f"), self.new(j))

    def remove(self, i, j):
        self.remove_whole(self.old(i))

    def make(self, i, j):
        os.makedirs(os.path.join(self.new(i), NAMES[j % len(NAMES)]))

    def replace(self, i, j):
        path = self.old(i, "d")
        shutil.rmtree(path)
        os.mkdir(path)
        self.put(os.path.join(path, NAMES[j % len(NAMES)]), b"again", "wb")

    def link(self, i, j):
        os.symlink(NAMES[j % len(NAMES)], self.new(i))

    def mode(self, i, j):
        path = self.old(i, "fd")
        os.chmod(path, MODES[j % len(MODES)] | (0o700 if os.path.isdir(path) else 0))

    def attribute(self, i, j):
        os.setxattr(self.old(i, "fd"), ATTRIBUTES[j % len(ATTRIBUTES)], b"v%d" % (j % 3))

    def no_attribute(self, i, j):
        os.removexattr(self.old(i, "fd"), ATTRIBUTES[j % len(ATTRIBUTES)])

    def become(self, i, j):
        path = self.old(i)
        self.remove_whole(path)
        kind = j % 3
        os.mkdir(path) if kind == 0 else os.symlink("a", path) if kind == 1 else self.put(path, b"became", "wb")


def run(base, program):
    umask = os.umask(0o022)
    machine = Machine(base)
    for name, i, j in program:
        try:
            getattr(machine, name)(i, j)
        except (OSError, TypeError, shutil.Error):
            pass
    os.umask(umask)
"""
_MODULE: dict[str, object] = {}
exec(SOURCE, _MODULE)


def argv(program: Program) -> tuple[str, ...]:
    """Return the command that runs a program in the directory it is started in."""
    end = f"\nimport json\nrun('.', json.loads({json.dumps(json.dumps(program))}))"
    return ("python3", "-I", "-S", "-c", SOURCE + end)


def run_here(root: Path, program: Program) -> None:
    """Run a program in a real directory, in this very process."""
    run = _MODULE["run"]
    assert callable(run)
    run(str(root), program)
