"""Steps that reach outside: refused where nothing is there for them, done once where the trust file allows it."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.image_test.checks import Checks
from deploy.image_test.engine import Engine
from deploy.image_test.mission import ALREADY_EXECUTED, FAR, FETCH, OUT, SEND, Person

PYTHON = "/usr/bin/python3"
WEB = Path(__file__).with_name("web.py")
TOOLS = Path(__file__).resolve().parents[2] / "tests/far_sides/mcp_server.py"
ADD = {"name": "add", "description": "Add a note.", "inputSchema": {"type": "object", "properties": {"text": {}}}}
FAR_SIDES = """
[workspaces.site]
labels = []
live_access = ["network"]

[[mcp_servers]]
name = "notes"
workspaces = ["site"]
command = ["/usr/bin/python3", "/far/mcp_server.py", "/far"]
tools = ["add"]

[[databases]]
name = "shop"
workspaces = ["site"]
engine = "sqlite"
path = "/far/shop.db"
"""
NAME, PORT = "web.example", "80"
USER = 65532
TAKEN_SECONDS = 2.0
"""The executor looks at its trust file every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarSide:
    """A web server in a container of its own, on the executor's way out; a server of tools and a database beside it."""

    address: str
    notes: Path
    mounted: Path
    """What the executor's operator gives it of a database and of tools."""

    @classmethod
    def start(cls, engine: Engine, folder: Path) -> "FarSide":
        """Start it."""
        place = folder / "web"
        place.mkdir()
        shutil.copy(WEB, place)
        (place / "notes").touch()
        options = ["--user", "0:0", "--entrypoint", PYTHON, "--mount", f"type=bind,source={place},target=/web"]
        arguments = ["/web/web.py", PORT, "/web/notes"]
        address = engine.beside("web", "gonogo-executor", *arguments, network="outside", options=options)
        return cls(address=address, notes=place / "notes", mounted=_mounted(folder / "far"))

    @property
    def options(self) -> tuple[str, ...]:
        """What has an executor's container know the server's name, and see the others."""
        return ("--add-host", f"{NAME}:{self.address}", "--mount", f"type=bind,source={self.mounted},target=/far")

    @contextmanager
    def shop(self) -> Iterator[sqlite3.Connection]:
        """Look into the database."""
        with closing(sqlite3.connect(self.mounted / "shop.db")) as opened, opened:
            yield opened

    def seen(self, method: str) -> list[str]:
        """Return the requests of a kind."""
        return [line for line in self.notes.read_text(encoding="utf-8").splitlines() if line.startswith(method)]


def _mounted(place: Path) -> Path:
    place.mkdir()
    shutil.copy(TOOLS, place)
    (place / "tools.json").write_text(json.dumps([ADD]), encoding="ascii")
    with closing(sqlite3.connect(place / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE banner (id INTEGER PRIMARY KEY, text TEXT)")
        shop.execute("INSERT INTO banner VALUES (7, '')")
    for path in (place, *place.iterdir()):
        os.chown(path, USER, USER)
    return place


def check_none(engine: Engine, person: Person, checks: Checks) -> None:
    """Where the packages are not there such a step is blocked, and says what to do."""
    tried = person.dry_run(person.proposed(FETCH))
    told = json.dumps(tried.said) + tried.remark
    holds = tried.said.get("status") == "blocked" and "UNSUPPORTED" in told and "gonogo-executor-live" in told
    checks.say("without the extra such a step is blocked, with a remedy", holds=holds, detail=told)
    found = doctor(engine)
    holds = not found["live_steps"]["ok"] and "gonogo-executor-live" in found["live_steps"]["remedy"]
    checks.say("and the doctor says so", holds=holds, detail=found["live_steps"]["detail"])


def check_doctor(engine: Engine, person: Person, checks: Checks, *, level: str, live: bool) -> None:
    """The doctor inside of the container and the person's outside tell the same, and what is so."""
    found = doctor(engine)
    holds = found["ladder"]["detail"].startswith(level) and found["live_steps"]["ok"] == live
    holds = holds and found["sqlite"]["ok"] and found["sqlite"]["detail"].endswith("pysqlite3")
    told = f"{found['ladder']['detail']}; {found['live_steps']['detail']}; {found['sqlite']['detail']}"
    checks.say(f"the doctor in the container tells of {level}", holds=holds, detail=told)
    rows = person.gonogo("doctor").said["findings"]
    outside = {
        one["name"].removeprefix("executor "): one["detail"] for one in rows if one["name"].startswith("executor")
    }
    same = all(outside.get(name) == found[name]["detail"] for name in ("sqlite", "live_steps"))
    same = same and outside["ladder"].startswith(level)
    checks.say("the person's doctor tells the same", holds=same, detail=outside.get("ladder", ""))


def doctor(engine: Engine) -> Mapping[str, Any]:
    """Return what `python -m executor doctor` finds inside of the container."""
    done = engine.execute("executor", PYTHON, "-m", "executor", "doctor", "-o", "json")
    return {one["name"]: one for one in json.loads(done.stdout)["findings"]}


def allow(engine: Engine, far_side: FarSide, trust: Path, checks: Checks) -> None:
    """Change the trust file as docs/deploy.md says: beside it, checked in the container, renamed over it."""
    text = trust.read_text(encoding="utf-8").replace("version = 1\n", "version = 2\n", 1)
    text = text.replace("\n[policy]\n", f'\ndomains = ["{NAME}"]\n\n[policy]\n', 1)
    text += f'\n[network]\ncommands_in_dry_run = true\nprivate_addresses = ["{far_side.address}/32"]\n'
    text += FAR_SIDES
    new = trust.with_name("next.toml")
    new.write_text(text, encoding="utf-8")
    os.chown(new, USER, USER)
    new.chmod(0o600)
    done = engine.execute("executor", PYTHON, "-m", "executor", "trust", "check", f"/var/lib/gonogo/{new.name}")
    new.replace(trust)
    checks.say("a new trust file is checked in the container", holds=done.returncode == 0, detail=done.stderr)
    time.sleep(TAKEN_SECONDS)


def check_not_listed(person: Person, far_side: FarSide, checks: Checks) -> None:
    """A way out is no leave: what the trust file does not list is not reached."""
    tried = person.dry_run(person.proposed(FETCH))
    told = json.dumps(tried.said) + tried.remark
    holds = tried.said.get("status") == "blocked" and "NETWORK_REFUSED" in told and not far_side.seen("GET")
    checks.say("a host that the trust file does not list is not reached", holds=holds, detail=told)


def check_sent(person: Person, far_side: FarSide, checks: Checks) -> None:
    """Read a page in the dry run, send a request after the approval, and once."""
    mission = person.proposed(SEND)
    sent = len(far_side.seen("POST"))
    tried = person.dry_run(mission)
    read = len(far_side.seen("GET"))
    holds = tried.said.get("status") == "success" and read > 0 and len(far_side.seen("POST")) == sent
    checks.say("the dry run reads the page and sends nothing", holds=holds, detail=tried.remark or "read")
    approved, done, again = (
        person.approved(mission),
        person.gonogo("execute", mission),
        person.gonogo("execute", mission),
    )
    posts = far_side.seen("POST")[sent:]
    holds = (approved.code, done.code, again.code) == (0, 0, ALREADY_EXECUTED) and len(far_side.seen("GET")) == read
    holds = holds and len(posts) == 1 and posts[0].endswith("-s3")
    detail = approved.remark + done.remark or "; ".join(posts)
    checks.say("its execution sends the request, once, with its key", holds=holds, detail=detail)


def check_far(person: Person, far_side: FarSide, checks: Checks) -> None:
    """Call a tool of a server that the executor starts, and change a database."""
    with far_side.shop() as shop:
        shop.execute("UPDATE banner SET text = 'Coming soon'")
    mission = person.proposed(FAR)
    tried = person.dry_run(mission)
    calls = far_side.mounted / "calls.jsonl"
    before = len(calls.read_text().splitlines()) if calls.exists() else 0
    approved, done = person.approved(mission), person.gonogo("execute", mission)
    with far_side.shop() as shop:
        shown = shop.execute("SELECT text FROM banner").fetchall()
    called = calls.read_text().splitlines() if calls.exists() else []
    holds = (approved.code, done.code, shown, len(called)) == (0, 0, [("It is here",)], before + 1)
    detail = tried.remark + approved.remark + done.remark or called[-1]
    checks.say("a tool is called and a database changed, once", holds=holds, detail=detail)


def check_programs(person: Person, far_side: FarSide, site: Path, checks: Checks) -> None:
    """Commands and programs in the sandbox reach what is listed, by the executor's own way out."""
    mission = person.proposed(OUT)
    tried = person.dry_run(mission)
    sent = far_side.seen("POST /program")
    approved, done = person.approved(mission), person.gonogo("execute", mission)
    holds = (approved.code, done.code, sent) == (0, 0, []) and (site / "page.html").exists()
    holds = holds and len(far_side.seen("GET /command")) == len(far_side.seen("POST /program")) == 1
    detail = tried.remark + approved.remark + done.remark or "; ".join(far_side.seen(""))
    checks.say("a command and a program reach the listed host from the sandbox", holds=holds, detail=detail)
