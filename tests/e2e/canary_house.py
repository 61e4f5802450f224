"""An installation whose executor has two secrets, and everything that could have kept or shown one of them."""

import base64
import json
import os
import secrets
import sqlite3
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.installation import Installation, Ran

VARIABLE = "GONOGO_TEST_DEPLOY_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Two values that stand nowhere else in the world."""

    of_file: str
    """In the form that a provider gave it, so that nobody has to know it to refuse it."""
    of_environment: str
    """In no form at all: the executor alone knows it."""

    @classmethod
    def hatched(cls) -> "Canaries":
        """Make two."""
        return cls(of_file="ghp_" + secrets.token_hex(18), of_environment=f"cn/{secrets.token_urlsafe(24)}+x&y")

    def __iter__(self) -> Iterator[str]:
        return iter((self.of_file, self.of_environment))


class CanaryHouse(Installation):
    """Remembers everything that any command printed."""

    def __init__(self, state: Path, workspaces: Mapping[str, Path], canaries: Canaries) -> None:
        super().__init__(state, workspaces)
        self.canaries = canaries
        self.printed: list[tuple[str, str]] = []

    @property
    def environment(self) -> dict[str, str]:
        """With the variable that only the executor is told about."""
        return {**super().environment, VARIABLE: self.canaries.of_environment}

    def run(self, *arguments: str, text: str | None = None, timeout: float = 120) -> Ran:
        """Run a command and keep what it printed."""
        ran = super().run(*arguments, text=text, timeout=timeout)
        self.printed.append((" ".join(arguments), ran.out + ran.err))
        return ran

    def dry_run(self, plan: str) -> tuple[str, str]:
        """Propose and dry-run a plan; return the mission and the report's status."""
        mission: str = self.json("propose", "-f", "-", text=plan)["mission_id"]
        ran = self.run("dry-run", mission, "-o", "json")
        return mission, str(json.loads(ran.out)["status"])

    def approve(self, mission: str) -> None:
        """Approve a mission as its owner."""
        self.json("approve", mission, "--key", str(self.state / "keys" / "approver"), "--yes")

    def look_at(self, mission: str) -> None:
        """Have everything about a mission rendered, in both forms."""
        for command in ("show", "diff", "events", "whiteboard", "trace", "verify"):
            for form in ("json", "table"):
                self.run(command, mission, "-o", form)


@contextmanager
def canary_house(folder: Path, canaries: Canaries, *, known: bool = True) -> Iterator[CanaryHouse]:
    """Start an installation with both canaries in a file of its workspace.

    Args:
        folder: empty.
        canaries: the values.
        known: whether the executor's trust file names them as secrets.
    """
    site = folder / "site"
    site.mkdir()
    (site / "conf.ini").write_text(f"[site]\ntoken = {canaries.of_file}\nother = {canaries.of_environment}\nend = 1\n")
    source = folder / "deploy-token"
    source.touch(0o600)
    source.write_text(canaries.of_file + "\n")
    house = CanaryHouse(folder / "state", {"site": site}, canaries)
    assert house.run("init").code == 0
    if known:
        with (house.state / "trust.toml").open("a") as trust:
            trust.write(
                f'\n[[secrets]]\nname = "deploy"\nworkspaces = ["site"]\nfile = "{source}"\n'
                f'\n[[secrets]]\nname = "other"\nworkspaces = ["site"]\nenvironment = "{VARIABLE}"\n'
            )
    house.start()
    try:
        yield house
    finally:
        house.stop()


def forms_of(value: str) -> dict[str, bytes]:
    """Return a value in its encoded forms, made by the standard library alone."""
    raw = value.encode()
    forms = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": urllib.parse.quote(value).encode(),
        "url, nothing safe": urllib.parse.quote(value, safe="").encode(),
        "url query": urllib.parse.quote_plus(value).encode(),
        "JSON": json.dumps(value)[1:-1].encode(),
        "JSON with escaped slashes": value.replace("/", "\\/").encode(),
    }
    for offset in range(3):
        first, last = -(-8 * offset // 6), 8 * (offset + len(raw)) // 6
        digits = base64.b64encode(bytes(offset) + raw)[first:last]
        forms[f"base64 +{offset}"] = digits
        forms[f"base64url +{offset}"] = digits.translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def leaks(house: CanaryHouse, *folders: Path) -> list[str]:
    """Return every place, and the form, in which a canary was kept beneath some folders or printed by a command."""
    places = {**dict(kept_in(*folders)), **{f"`gonogo {name}`": text.encode() for name, text in house.printed}}
    return leaks_in(house.canaries, places)


def leaks_in(canaries: Canaries, places: Mapping[str, bytes]) -> list[str]:
    """Return the places that hold a canary, with the form."""
    return [
        f"{form} of {canary[:4]} in {place}"
        for canary in canaries
        for form, needle in forms_of(canary).items()
        for place, data in places.items()
        if needle in data
    ]


def kept_in(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield everything beneath some folders: names, link targets, bytes, unpacked bytes, cells of databases."""
    for folder in folders:
        for path in folder.rglob("*"):
            yield f"the name {path}", os.fsencode(path)
            if path.is_symlink():
                yield f"the target of {path}", os.fsencode(path.readlink())
            elif path.is_file():
                data = path.read_bytes()
                yield str(path), data
                yield f"{path}, unpacked", unpacked(data)
                if data.startswith(b"SQLite format 3"):
                    yield f"{path}, cells", cells_of(path)


def unpacked(data: bytes) -> bytes:
    """Return what a manifest holds: everything after its head is one packed stream."""
    if not data.startswith(b"gonogo manifest"):
        return b""
    start = data.index(b"\x78", len(b"gonogo manifest 2\n") + 40)
    return zlib.decompressobj().decompress(data[start:])


def cells_of(path: Path) -> bytes:
    """Return every cell of a database: a long one lies in pieces in the file."""
    found: list[bytes] = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in database.execute(f'select * from "{table}"'):
                found += [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
                found += [unpacked(cell) for cell in row if isinstance(cell, bytes)]
    return b"\0".join(found)
