#!/usr/bin/env python3

"""Makes an image's root file system in a build stage: the interpreter, one service, what they link to, nothing else.

Runs with the base's own interpreter and its standard library only. Nothing of the base is taken that is not asked for:
no shell, no package manager, no pip. Shared libraries are found by the dynamic linker itself, as it would load them.
"""

import argparse
import compileall
import os
import py_compile
import re
import shutil
import site
import ssl
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

SOURCE, WHEELS, LOCK, IMAGE = Path("/source"), Path("/wheels"), Path("/requirements.lock"), Path("/image")
SEEN = Path("/opt/gonogo")
CODE = IMAGE / "opt/gonogo"
USER_ID = 65532
# Parts of the standard library that a service never needs: what installs, what draws, the tests, and what is for
# terminals and old databases only, with the libraries that it would bring.
NOT_TAKEN = (
    *("site-packages", "dist-packages", "ensurepip", "venv", "__pycache__", "config-3*"),
    *("tkinter", "_tkinter*", "turtledemo", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "_test*"),
    *("nis.*", "_dbm.*", "_gdbm.*", "readline.*", "_curses*", "ossaudiodev.*", "_crypt.*", "spwd.*"),
)
CONTRACT_SOURCES = ("*.proto", "*.pyi", "__pycache__")
LINKED = re.compile(r"(?:=>\s*|^\s*)(/\S+)\s+\(0x[0-9a-f]+\)$")
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
USERS = f"nonroot:x:{USER_ID}:{USER_ID}:nonroot:/nonexistent:/nonexistent\n"
GROUPS = f"nonroot:x:{USER_ID}:\n"


def main() -> int:
    """Make the root file system that the arguments describe."""
    parser = argparse.ArgumentParser(description="Make an image's root file system.")
    parser.add_argument("--package", help="the service")
    parser.add_argument("--program", action="append", default=[], help="a program that the service starts")
    parser.add_argument("--owned", action="append", default=[], help="a directory that volumes are mounted on")
    parser.add_argument("--authorities", action="store_true", help="take whom TLS believes, too")
    parser.add_argument("--importable-here", action="store_true", help="make nothing but the way to the code, here")
    given = parser.parse_args()
    if given.importable_here:
        make_importable(Path("/"))
        return 0
    link_merged_directories()
    take_interpreter()
    install_locked()
    take_service(given.package)
    for program in given.program:
        take(Path(shutil.which(program) or f"/no/{program}"), as_name=IMAGE / "usr/bin" / program)
    make_importable(IMAGE)
    if given.authorities:
        take_authorities()
    take_libraries()
    write_accounts(given.owned)
    return 0


def link_merged_directories() -> None:
    """Make /lib and its like links where the base has them so: the linker's own path goes through one."""
    for name in ("bin", "lib", "lib64"):
        place = Path("/", name)
        (IMAGE / "usr" / name).mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            (IMAGE / name).symlink_to(f"usr/{name}")


def take_interpreter() -> None:
    """Copy the interpreter and its standard library to where they are in the base."""
    interpreter = Path(sys.executable).resolve()
    take(interpreter)
    link = IMAGE / "usr/bin/python3"
    if not link.exists():
        link.symlink_to(interpreter)
    ignored = shutil.ignore_patterns(*NOT_TAKEN)
    for library in {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")}:
        shutil.copytree(library, inside(library), symlinks=True, ignore=ignored, dirs_exist_ok=True)
        compile_all(inside(library), shown=library)


def install_locked() -> None:
    """Install what the lock file names, from the wheels at hand; each wheel's digest is checked by pip."""
    pip = next(WHEELS.glob("pip-*.whl"))
    arguments = ["--no-index", "--find-links", str(WHEELS), "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    arguments += ["--no-compile", "--root-user-action", "ignore", "--target", str(CODE), "--requirement", str(LOCK)]
    command = [sys.executable, f"{pip}/pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)
    for left in (*CODE.glob("pip"), *CODE.glob("pip-*.dist-info"), *CODE.glob("bin")):
        shutil.rmtree(left)


def take_service(package: str) -> None:
    """Copy the service's package and the contract, compiled: the root file system is read-only when they run.

    Their version is asked for by the name that the project is installed under.
    """
    for name in (package, "gonogo"):
        shutil.copytree(SOURCE / name, CODE / name, ignore=shutil.ignore_patterns(*CONTRACT_SOURCES))
    compile_all(CODE, shown=SEEN)
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = CODE / f"{project['name']}-{project['version']}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(METADATA.format(**project), encoding="utf-8")


def make_importable(root: Path) -> None:
    """Have the interpreter find the code unasked: the executor starts children that believe no variable."""
    place = root / Path(site.getsitepackages()[0]).relative_to("/")
    place.mkdir(parents=True, exist_ok=True)
    (place / "gonogo.pth").write_text(f"{SEEN}\n", encoding="ascii")


def take_authorities() -> None:
    """Copy the authorities that the base believes, as one file, to where the TLS library looks unasked."""
    place = inside(Path(ssl.get_default_verify_paths().openssl_cafile))
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", place)


def take_libraries() -> None:
    """Copy what the programs and the extension modules link to, and what that links to."""
    for file in list(walk(IMAGE)):
        if file.is_symlink() or not is_elf(file):
            continue
        for library in linked_by(file):
            if not inside(library).exists():
                take(library)
    write_linker_cache()


def write_linker_cache() -> None:
    """Have the linker find in the image what it finds in the base; not every library lies where it looks unasked."""
    shutil.copytree("/etc/ld.so.conf.d", IMAGE / "etc/ld.so.conf.d")
    shutil.copy("/etc/ld.so.conf", IMAGE / "etc/ld.so.conf")
    subprocess.run([shutil.which("ldconfig") or "/sbin/ldconfig", "-r", str(IMAGE)], check=True)


def linked_by(file: Path) -> Iterator[Path]:
    """Return the libraries that the dynamic linker loads for a file.

    Raises:
        SystemExit: one is not in this base.
    """
    said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
    if "not found" in said:
        sys.exit(f"{file} needs what this base does not have:\n{said}")
    for line in said.splitlines():
        match = LINKED.search(line)
        if match:
            library = Path(match[1])
            if not library.is_relative_to(IMAGE):
                yield library


def take(path: Path, *, as_name: Path | None = None) -> None:
    """Copy a file to the same place in the image; a link's name stays, as a link to where the file really is."""
    real = path.resolve(strict=True)
    target = inside(real)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(real, target)
        target.chmod(0o755)
    name = as_name or inside(path)
    name.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(name):
        name.symlink_to(real)


def inside(path: Path) -> Path:
    """Return a path's place in the image."""
    return IMAGE / path.relative_to("/")


def compile_all(place: Path, *, shown: Path) -> None:
    """Write the byte code, valid whatever the files' times are."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(place, quiet=2, stripdir=str(place), prependdir=str(shown), invalidation_mode=mode)


def walk(top: Path) -> Iterator[Path]:
    """Return every file below a directory."""
    for folder, _, names in os.walk(top):
        yield from (Path(folder, name) for name in names)


def is_elf(file: Path) -> bool:
    """Whether a file is for the dynamic linker."""
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def write_accounts(owned: list[str]) -> None:
    """Name the user, and make the directories that are mounted on or written to."""
    (IMAGE / "etc/passwd").write_text(USERS, encoding="ascii")
    (IMAGE / "etc/group").write_text(GROUPS, encoding="ascii")
    for name in owned:
        (IMAGE / name).mkdir(parents=True, mode=0o700)
        os.chown(IMAGE / name, USER_ID, USER_ID)
    for name in ("proc", "sys", "dev"):
        (IMAGE / name).mkdir()
    (IMAGE / "tmp").mkdir()
    (IMAGE / "tmp").chmod(0o1777)


if __name__ == "__main__":
    sys.exit(main())
