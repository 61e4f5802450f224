"""The trust file's servers of tools and databases: what is taken, and what is refused with a remedy."""

import json

import pytest

from executor.adapters.trust_file import parse_trust
from executor.adapters.trust_tables import TrustFileError
from executor.domain.far_sides import Database, Engine, FarSide, McpServer
from executor.domain.policy import Trust
from executor.entrypoints.trust_words import trust_json
from gonogo.signatures import new_signing_key
from tests.unit.executor.outside_house import HEAD

KEY = new_signing_key().public.line
PERSON = f'[[persons]]\nid = "owner"\n[[persons.keys]]\nscheme = "ed25519"\npublic_key = "{KEY}"\n'
SERVER = {"name": "notes", "workspaces": ["site"], "command": ["/opt/notes"], "tools": ["add"]}
HTTP = {"name": "notes", "workspaces": ["site"], "url": "https://notes.example.org/mcp", "tools": ["add"]}
DSN = "host=/run/postgresql dbname=shop user=app"
DATABASE = {"name": "shop", "workspaces": ["site"], "engine": "postgresql", "dsn": DSN}
LITE = {"name": "lite", "workspaces": ["other"], "engine": "sqlite", "path": "/var/lib/shop.db"}


def table(kind: str, **values: object) -> str:
    """One entry of a list of tables; JSON's values are TOML's, but for tables."""

    def written(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(name)} = {written(one)}" for name, one in value.items()) + "}"
        return json.dumps(value)

    return f"[[{kind}]]\n" + "".join(f"{name} = {written(value)}\n" for name, value in values.items())


def read(*tables: str) -> Trust:
    """A trust file with some tables."""
    return parse_trust((HEAD + PERSON + "".join(tables)).encode())


def test_servers_and_databases_are_read() -> None:
    """Whatever stands there is what live steps may use, and a part of the description."""
    env = {"TOKEN": "secret://token"}
    trust = read(
        table("mcp_servers", **SERVER, env=env, seconds=5),
        table("databases", **DATABASE, password="secret://token", max_rows=7),
        table("databases", **LITE),
    )
    assert trust.servers == (
        McpServer(
            name="notes",
            workspaces=("site",),
            tools=("add",),
            command=("/opt/notes",),
            env=(("TOKEN", "secret://token"),),
            seconds=5,
        ),
    )
    assert trust.databases == (
        Database(name="lite", workspaces=("other",), engine=Engine.SQLITE, path="/var/lib/shop.db"),
        Database(
            name="shop",
            workspaces=("site",),
            engine=Engine.POSTGRESQL,
            dsn=DSN,
            password="secret://token",
            max_rows=7,
        ),
    )
    assert trust.far_sides == (
        FarSide(kind="mcp_server", name="notes", workspaces=("site",)),
        FarSide(kind="database", name="lite", workspaces=("other",)),
        FarSide(kind="database", name="shop", workspaces=("site",)),
    )
    assert trust.workspaces == {"site", "other"}
    assert json.loads(json.dumps(trust_json(trust)))["databases"][1]["password"] == "secret://token"


def test_what_is_not_listed_may_not_be_called() -> None:
    """A server without a list of tools has none that may be called."""
    entry = {name: value for name, value in SERVER.items() if name != "tools"}
    assert read(table("mcp_servers", **entry)).servers[0].tools == ()


@pytest.mark.parametrize(
    "change",
    [
        {"tools": ["add", "drop"]},
        {"command": ["/opt/notes", "--all"]},
        {"workspaces": ["site", "other"]},
        {"env": {"MODE": "all"}},
        {"seconds": 31},
    ],
)
def test_every_change_is_another_policy(change: dict[str, object]) -> None:
    """What a server is, is a part of what an approval stands on: the limits' digest names it."""
    before, after = (read(table("mcp_servers", **{**SERVER, **one})) for one in ({}, change))
    assert before.policy.limits_digest != after.policy.limits_digest


@pytest.mark.parametrize("change", [{"dsn": DSN + "2"}, {"max_rows": 9}, {"statement_timeout_seconds": 9}])
def test_every_change_of_a_database_is_another_policy(change: dict[str, object]) -> None:
    """The same holds for databases."""
    before, after = (read(table("databases", **{**DATABASE, **one})) for one in ({}, change))
    assert before.policy.limits_digest != after.policy.limits_digest


@pytest.mark.parametrize(
    ("kind", "entry", "words"),
    [
        ("mcp_servers", {**SERVER, "url": "https://a.example"}, "neither command nor url, or both"),
        ("mcp_servers", {"name": "x", "workspaces": ["site"]}, "neither command nor url"),
        ("mcp_servers", {**SERVER, "command": ["notes"]}, "absolute path"),
        ("mcp_servers", {**SERVER, "command": []}, "is empty"),
        ("mcp_servers", {**SERVER, "command": ["/opt/notes", "secret://token"]}, "secret"),
        ("mcp_servers", {**SERVER, "env": {"LD_PRELOAD": "/x.so"}}, "LD_PRELOAD"),
        ("mcp_servers", {**SERVER, "env": {"A B": "x"}}, "no variable"),
        ("mcp_servers", {**SERVER, "headers": {"X": "y"}}, "headers are for a url"),
        ("mcp_servers", {**HTTP, "env": {"X": "y"}}, "env is for a command"),
        ("mcp_servers", {**HTTP, "headers": {"Host": "other.example"}}, "Host"),
        ("mcp_servers", {**HTTP, "headers": {"X": "a\r\nY: b"}}, "no header"),
        ("mcp_servers", {**HTTP, "url": "ftp://a.example"}, "no address"),
        ("mcp_servers", {**HTTP, "url": "https://user:pass@a.example"}, "no address"),
        ("mcp_servers", {**SERVER, "seconds": 100_000}, "more than"),
        ("mcp_servers", {**SERVER, "tool": ["add"]}, "unknown keys"),
        ("mcp_servers", {**SERVER, "workspaces": []}, "empty"),
        ("databases", {**DATABASE, "dsn": DSN + " password=x"}, "is not taken"),
        ("databases", {**DATABASE, "dsn": DSN + " options=-csearch_path=x"}, "is not taken"),
        ("databases", {**DATABASE, "dsn": DSN + " passfile=/tmp/x"}, "is not taken"),
        ("databases", {**DATABASE, "dsn": "postgresql://app:x@host/shop"}, "no list of words"),
        ("databases", {**DATABASE, "dsn": "host=a dbname=b"}, "has no user"),
        ("databases", {**DATABASE, "dsn": "host='a b' dbname=b user=c"}, "no list of words"),
        ("databases", {**DATABASE, "password": "hunter22"}, "no secret's reference"),
        ("databases", {**DATABASE, "path": "/x"}, "is PostgreSQL"),
        ("databases", {**LITE, "dsn": DSN}, "is SQLite"),
        ("databases", {**LITE, "path": "shop.db"}, "absolute path"),
        ("databases", {**LITE, "path": "/var/../shop.db"}, "absolute path"),
        ("databases", {**LITE, "engine": "mysql"}, "mysql"),
        ("databases", {**DATABASE, "max_rows": 1_000_000}, "more than"),
        ("databases", {**DATABASE, "maxrows": 1}, "unknown keys"),
    ],
)
def test_what_is_not_said_in_full_is_refused(kind: str, entry: dict[str, object], words: str) -> None:
    """Nothing is guessed: the error names what is wrong, and the remedy says what to write."""
    with pytest.raises(TrustFileError) as caught:
        read(table(kind, **entry))
    assert words in caught.value.fault.message
    assert caught.value.fault.remedy


@pytest.mark.parametrize(("kind", "entry"), [("mcp_servers", SERVER), ("databases", DATABASE)])
def test_a_name_stands_once(kind: str, entry: dict[str, object]) -> None:
    """Two entries of one name leave open which of them is meant."""
    with pytest.raises(TrustFileError):
        read(table(kind, **entry), table(kind, **entry))
