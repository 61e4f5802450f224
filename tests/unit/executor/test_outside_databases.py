"""Running a statement on a database: a real PostgreSQL, and SQLite, through a child process."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError
from executor.domain.plan import RunSql
from executor.domain.receipt import EffectState
from executor.domain.report import SqlEvidence
from executor.outside.databases import Statements
from executor.runner.outside import Declared, Performed
from tests.far_sides import postgresql
from tests.far_sides.postgresql import Cluster
from tests.unit.executor.outside_house import TOKEN, OutsideHouse, outside_house

SCHEMA = """
DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO app;
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL UNIQUE, price numeric(10, 2), shown boolean DEFAULT true);
INSERT INTO items VALUES (1, 'bolt', 1.50), (2, 'nut', 0.25), (3, 'gear', 12.00);
CREATE TABLE orders (id serial PRIMARY KEY, item text, at timestamptz DEFAULT now());
CREATE TABLE parts (id int PRIMARY KEY, item int REFERENCES items ON DELETE CASCADE);
CREATE TABLE watched (id int PRIMARY KEY, n int); INSERT INTO watched VALUES (1, 1);
CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NEW.n * 2; RETURN NEW; END';
CREATE TRIGGER doubled BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION double();
CREATE FUNCTION checked(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0';
CREATE TABLE guarded (id int PRIMARY KEY CHECK (checked(id)));
CREATE TABLE keyless (n int); INSERT INTO keyless VALUES (1);
CREATE VIEW seen AS SELECT * FROM items;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT TRUNCATE ON keyless TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
CREATE TABLE owned (id int PRIMARY KEY, n int); ALTER TABLE owned OWNER TO app;
CREATE TABLE blind (id int PRIMARY KEY); GRANT INSERT ON blind TO app;
"""
LITE = """
CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price REAL, at TEXT DEFAULT CURRENT_TIMESTAMP);
INSERT INTO items (id, name, price, at) VALUES (1, 'bolt', 1.5, 'x'), (2, 'nut', 0.25, 'x'), (3, 'gear', 12.0, 'x');
CREATE TABLE watched (id INTEGER PRIMARY KEY, n INT);
CREATE TABLE settled (id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT REPLACE);
CREATE TABLE keyed (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE hushed (id INTEGER PRIMARY KEY, name TEXT UNIQUE ON/* */CONFLICT REPLACE);
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent INT REFERENCES parents ON DELETE CASCADE);
CREATE TABLE hiding (rowid TEXT);
CREATE TRIGGER doubled AFTER INSERT ON watched BEGIN UPDATE items SET price = 0; END;
"""


class SqlHouse:
    """A database, and what runs statements on it."""

    def __init__(self, house: OutsideHouse, *, confined: bool = True) -> None:
        self.house = house
        self.statements = Statements(
            trust=lambda: house.trust.last().trust,
            secrets=house.secrets,
            confinement=house.confinement if confined else None,
            forbidden=(house.workspace.root, house.folder / "state"),
        )

    def declare(self, action: RunSql) -> Declared:
        return self.statements.declare(action, self.house.setting(action))

    def evidence(self, action: RunSql) -> SqlEvidence:
        """What a dry run says."""
        evidence = self.declare(action).evidence
        assert isinstance(evidence, SqlEvidence)
        return evidence

    def perform(self, action: RunSql, expected: Declared | None = None) -> Performed:
        found = expected or self.declare(action)
        return self.statements.perform(action, found, self.house.setting(action, execution_id="x-1"), "x-1-s1")


def run(statement: str, *parameters: object, database: str = "shop") -> RunSql:
    """A step."""
    return RunSql(database=database, statement=statement, parameters=tuple(map(json.dumps, parameters)))


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """One server for all tests of the module."""
    with postgresql.cluster() as found:
        yield found


@pytest.fixture(params=["confined", "unconfined"])
def confined(request: pytest.FixtureRequest) -> bool:
    """Whether bubblewrap is used."""
    return bool(request.param == "confined")


@pytest.fixture
def shop(server: Cluster, tmp_path: Path) -> Iterator[SqlHouse]:
    """A house with the server's database, in its first state."""
    server.admin(*filter(str.strip, SCHEMA.split(";\n")))
    with outside_house(tmp_path, _pg_tables(server)) as house:
        yield SqlHouse(house)


def _pg_tables(server: Cluster) -> str:
    server.admin(f"ALTER ROLE app PASSWORD '{TOKEN}'")
    head = '[[databases]]\nname = "shop"\nworkspaces = ["site"]\nengine = "postgresql"\n'
    return head + f'dsn = "{server.dsn}"\npassword = "secret://token"\nstatement_timeout_seconds = 3\nmax_rows = 5\n'


@pytest.fixture
def lite(tmp_path: Path, confined: bool) -> Iterator[SqlHouse]:
    """A house with a file of SQLite's."""
    folder = tmp_path.resolve() / "lite"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "shop.db")) as made:
        made.executescript(LITE)
    head = '[[databases]]\nname = "shop"\nworkspaces = ["site"]\nengine = "sqlite"\n'
    tables = head + f'path = "{folder}/shop.db"\nstatement_timeout_seconds = 2\nmax_rows = 5\n'
    with outside_house(tmp_path, tables) as house:
        yield SqlHouse(house, confined=confined)


def lite_rows(house: SqlHouse, query: str = "SELECT id, price FROM items ORDER BY id") -> list[tuple[object, ...]]:
    """What the file holds."""
    path = house.house.trust.last().trust.databases[0].path
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


UPDATE = run("UPDATE items SET price = price * 2 WHERE price < %s AND name LIKE '%%t'", 2)


@postgresql.needed
def test_an_update_is_tried_and_then_made(server: Cluster, shop: SqlHouse) -> None:
    """A dry run shows the rows before and after and leaves them; the execution makes the very same change."""
    declared = shop.declare(UPDATE)
    evidence = declared.evidence
    assert isinstance(evidence, SqlEvidence)
    assert (evidence.simulated, evidence.row_count, evidence.table) == (True, 2, "public.items")
    assert [(json.loads(row.before)["price"], json.loads(row.after)["price"]) for row in evidence.rows] == [
        (1.50, 3.00),
        (0.25, 0.50),
    ]
    assert _prices(server) == [1.50, 0.25, 12.00]
    performed = shop.perform(UPDATE, declared)
    assert (performed.state, performed.fault) == (EffectState.DONE, None)
    assert _prices(server) == [3.00, 0.50, 12.00]


def _prices(server: Cluster) -> list[float]:
    return [float(str(row[0])) for row in server.admin("SELECT price FROM items ORDER BY id")]


@postgresql.needed
def test_rows_that_changed_since_are_not_touched(server: Cluster, shop: SqlHouse) -> None:
    """Where the rows are others than the report's, everything is rolled back."""
    declared = shop.declare(UPDATE)
    server.admin("UPDATE items SET price = 1.75 WHERE id = 1")
    performed = shop.perform(UPDATE, declared)
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.NOT_DONE, "ROWS_DIVERGED")
    assert _prices(server) == [1.75, 0.25, 12.00]


@postgresql.needed
def test_one_more_row_is_a_divergence(server: Cluster, shop: SqlHouse) -> None:
    """A row that came under the condition since is a row nobody approved of."""
    delete = run("DELETE FROM keyless WHERE n > %s", 0)
    declared = shop.declare(delete)
    server.admin("INSERT INTO keyless VALUES (7)")
    performed = shop.perform(delete, declared)
    assert performed.fault is not None
    assert performed.fault.reason == "ROWS_DIVERGED"
    assert server.admin("SELECT count(*) FROM keyless") == [(2,)]


@postgresql.needed
def test_a_trigger_that_came_since_is_a_divergence(server: Cluster, shop: SqlHouse) -> None:
    """What was tried and can not be tried any more is not run blindly."""
    declared = shop.declare(UPDATE)
    server.admin("CREATE TRIGGER late BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION double()")
    performed = shop.perform(UPDATE, declared)
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.NOT_DONE, "ROWS_DIVERGED")


@postgresql.needed
def test_an_insert_tells_what_is_assigned_anew(server: Cluster, shop: SqlHouse) -> None:
    """What comes from a sequence or the clock is told as such, so that the execution may get other values."""
    insert = run("INSERT INTO orders (item) VALUES (%s), ('nut')", "bolt")
    declared = shop.declare(insert)
    evidence = declared.evidence
    assert isinstance(evidence, SqlEvidence)
    first = json.loads(evidence.rows[0].after)
    assert (first["item"], evidence.rows[0].before) == ("bolt", "")
    assert first["id"].startswith("(assigned when it runs: nextval(")
    assert first["at"] == "(assigned when it runs: now())"
    assert shop.perform(insert, declared).state is EffectState.DONE
    assert server.admin("SELECT item FROM orders ORDER BY id") == [("bolt",), ("nut",)]


@postgresql.needed
@pytest.mark.parametrize(
    ("made", "statement"),
    [
        ("FUNCTION lower(int) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$", "SELECT lower(id) FROM items"),
        ("OPERATOR = (leftarg = text, rightarg = int, function = same)", "SELECT id FROM items WHERE name = 1"),
    ],
)
def test_a_users_function_under_a_known_name_is_not_tried(
    server: Cluster, shop: SqlHouse, made: str, statement: str
) -> None:
    """One that takes just these types is called before the database's own of that name, and could do anything."""
    server.admin("CREATE FUNCTION same(text, int) RETURNS boolean LANGUAGE sql AS 'SELECT true'", f"CREATE {made}")
    evidence = shop.evidence(run(statement))
    assert not evidence.simulated
    assert "may be one of users'" in evidence.not_simulated


@postgresql.needed
def test_a_delete_and_a_query_are_tried(server: Cluster, shop: SqlHouse) -> None:
    """Rows that go have no after; rows that are only found are the same before and after."""
    gone = shop.evidence(run("DELETE FROM keyless"))
    assert [(row.before, row.after) for row in gone.rows] == [('{"n": 1}', "")]
    found = shop.evidence(run("SELECT name FROM items WHERE id = %s", 2))
    assert [(row.before, row.after) for row in found.rows] == [('{"name": "nut"}', '{"name": "nut"}')]
    assert shop.perform(run("SELECT name FROM items WHERE id = %s", 2)).state is EffectState.DONE


@postgresql.needed
@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE watched SET n = 3", "triggers"),
        ("DELETE FROM items WHERE id = 1", "other tables' rows"),
        ("INSERT INTO guarded VALUES (1)", "functions or operators of users"),
        ("UPDATE keyless SET n = 2", "no primary key"),
        ("UPDATE items SET id = 9 WHERE id = 1", "a primary key"),
        ("UPDATE owned SET n = 1", "owns it"),
        ("INSERT INTO blind VALUES (1)", "may not read"),
        ("SELECT * FROM seen", "no ordinary table"),
        ("SELECT rolname FROM pg_roles", "no ordinary table"),
        ("SELECT relname FROM pg_class", "database's own"),
        ("SELECT pg_sleep(1) FROM items", "pg_sleep"),
        ("SELECT checked(id) FROM items", "checked"),
        ("WITH gone AS (DELETE FROM keyless RETURNING n) SELECT n FROM gone", "CTE"),
        ("UPDATE keyless SET n = 2 RETURNING n", "RETURNING"),
        ("UPDATE items SET price = 1 FROM keyless WHERE items.id = keyless.n", "FROM"),
        ("INSERT INTO orders (item) SELECT name FROM items", "one table alone"),
        ("INSERT INTO orders (item) SELECT 'x' FROM generate_series(1, 9)", "GenerateSeries"),
        ("INSERT INTO keyless VALUES (1),(2),(3),(4),(5),(6)", "more than 5 rows"),
        ("SELECT 1 /* a remark */ FROM items", "comments"),
        ("SELECT E'a' FROM items", "prefix"),
        ("TRUNCATE keyless", "only SELECT"),
        ("DO 'BEGIN END'", "only SELECT"),
    ],
)
def test_what_is_not_plain_is_not_simulated(shop: SqlHouse, statement: str, why: str) -> None:
    """Whatever could do more than what is seen of it is not tried, and the report says why."""
    evidence = shop.evidence(run(statement))
    if why == "CTE":
        assert not evidence.simulated
    else:
        assert why in evidence.not_simulated
    assert (evidence.simulated, evidence.rows, evidence.rows_digest) == (False, (), "")


@postgresql.needed
@pytest.mark.parametrize(
    ("grant", "why"),
    [
        ("ALTER ROLE app SUPERUSER", "superuser"),
        ("ALTER ROLE app CREATEROLE", "make roles"),
        ("ALTER ROLE app BYPASSRLS", "row security"),
        ("GRANT pg_execute_server_program TO app", "pg_execute_server_program"),
    ],
)
def test_a_powerful_role_tries_nothing(server: Cluster, shop: SqlHouse, grant: str, why: str) -> None:
    """A dry run under a role that can do more than its tables is no dry run."""
    server.admin(grant)
    try:
        evidence = shop.evidence(UPDATE)
    finally:
        server.admin("ALTER ROLE app NOSUPERUSER NOCREATEROLE NOBYPASSRLS", "REVOKE pg_execute_server_program FROM app")
    assert not evidence.simulated
    assert why in evidence.not_simulated


@postgresql.needed
def test_what_is_not_simulated_runs_once(server: Cluster, shop: SqlHouse) -> None:
    """A statement that nobody could try is run as it stands, once, when it was approved."""
    truncate = run("TRUNCATE keyless")
    declared = shop.declare(truncate)
    assert server.admin("SELECT count(*) FROM keyless") == [(1,)]
    assert shop.perform(truncate, declared).state is EffectState.DONE
    assert server.admin("SELECT count(*) FROM keyless") == [(0,)]


@postgresql.needed
def test_a_query_that_is_not_simulated_answers(shop: SqlHouse) -> None:
    """Of a query the first rows are the step's answer."""
    performed = shop.perform(run("SELECT i.name FROM items i JOIN keyless k ON k.n = i.id"))
    assert performed.answer is not None
    assert (performed.state, performed.answer.head) == (EffectState.DONE, "(bolt)")


@postgresql.needed
@pytest.mark.parametrize("statement", ["DELETE FROM keyless; DELETE FROM items", "SELECT 1; COMMIT", ""])
def test_two_statements_are_none(server: Cluster, shop: SqlHouse, statement: str) -> None:
    """A step is one statement."""
    with pytest.raises(ExecutorError) as caught:
        shop.declare(run(statement))
    assert caught.value.fault.reason == "PLAN_INVALID"
    assert server.admin("SELECT count(*) FROM keyless") == [(1,)]


@postgresql.needed
def test_statements_that_only_the_server_can_read_are_still_one(server: Cluster, shop: SqlHouse) -> None:
    """Where the parser gives up, the server itself refuses a second statement, and nothing lasts."""
    hidden = run("DELETE FROM keyless WHERE CURRENT OF nowhere; DROP TABLE items")
    declared = shop.declare(hidden)
    performed = shop.perform(hidden, declared)
    assert performed.state is not EffectState.DONE
    assert len(_prices(server)) == 3


@postgresql.needed
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (run("UPDATE items SET name = 'nut' WHERE id = 1"), "EFFECT_FAILED"),
        (run("UPDATE items SET price = 'x' WHERE id = 1"), "EFFECT_FAILED"),
        (run("DELETE FROM nowhere"), "EFFECT_FAILED"),
        (run("SELECT 100 % 3 FROM items WHERE id = %s", 1), "PLAN_INVALID"),
        (run("DELETE FROM items WHERE id = %s AND id = %s", 1), "PLAN_INVALID"),
        (run("DELETE FROM items WHERE name = %s", ["a"]), "PLAN_INVALID"),
        (run("DELETE FROM items WHERE name = %s", "secret://token"), "PLAN_INVALID"),
        (run("DELETE FROM items", database="other"), "FAR_SIDE_UNKNOWN"),
    ],
)
def test_what_can_not_be_is_found_by_the_dry_run(shop: SqlHouse, action: RunSql, reason: str) -> None:
    """A statement that fails, or is not well formed, fails before anybody is asked."""
    with pytest.raises(ExecutorError) as caught:
        shop.declare(action)
    assert caught.value.fault.reason == reason


@postgresql.needed
@pytest.mark.long
def test_a_locked_row_ends_in_time(server: Cluster, shop: SqlHouse) -> None:
    """A statement that waits for somebody else is given up; nothing happened."""
    declared = shop.declare(UPDATE)
    began = time.monotonic()
    holding = threading.Thread(
        target=server.admin, args=("BEGIN", "UPDATE items SET price = 9 WHERE id = 1", "SELECT pg_sleep(6)", "ROLLBACK")
    )
    holding.start()
    time.sleep(0.5)
    with pytest.raises(ExecutorError) as caught:
        shop.perform(UPDATE, declared)
    assert caught.value.fault.reason == "EFFECT_FAILED"
    assert time.monotonic() - began < 6
    holding.join()
    assert _prices(server) == [1.50, 0.25, 12.00]


@postgresql.needed
def test_a_password_is_shown_to_nobody(server: Cluster, shop: SqlHouse) -> None:
    """The password goes to the child alone, and what the database holds of it is redacted before it is digested."""
    declared = shop.declare(run("INSERT INTO orders (item) VALUES (%s)", "x" + TOKEN))
    assert TOKEN not in repr(declared)
    server.admin("ALTER ROLE app PASSWORD 'another-password'")
    with pytest.raises(ExecutorError) as caught:
        shop.declare(UPDATE)
    assert caught.value.fault.reason == "FETCH_FAILED"
    assert TOKEN not in repr(caught.value.fault)


@postgresql.needed
def test_a_server_that_dies_in_the_commit_leaves_an_unknown_effect(tmp_path: Path) -> None:
    """A commit that the server has made, and of which it could not tell any more, is unknown and not repeated."""
    with postgresql.cluster() as server:
        server.admin(*filter(str.strip, SCHEMA.split(";\n")))
        with outside_house(tmp_path, _pg_tables(server)) as house:
            shop = SqlHouse(house)
            declared = shop.declare(UPDATE)
            # A commit is on the disk before it waits for a copy elsewhere, which never comes.
            server.admin("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
            time.sleep(0.5)
            killing = threading.Timer(3.0, server.kill)
            killing.start()
            performed = shop.perform(UPDATE, declared)
            killing.join()
        assert performed.fault is not None
        assert (performed.state, performed.fault.reason) == (EffectState.UNKNOWN, "EFFECT_UNKNOWN")
        Path(server.data, "postgresql.auto.conf").write_text("")
        server.start()
        assert _prices(server) == [3.00, 0.50, 12.00]


LITE_UPDATE = run("UPDATE items SET price = price * 2 WHERE price < ? AND name LIKE '%t'", 2)


def test_sqlite_is_tried_and_then_changed(lite: SqlHouse) -> None:
    """The same holds for a file of SQLite's."""
    declared = lite.declare(LITE_UPDATE)
    evidence = declared.evidence
    assert isinstance(evidence, SqlEvidence)
    assert (evidence.simulated, evidence.row_count, evidence.engine) == (True, 2, "sqlite")
    assert lite_rows(lite) == [(1, 1.5), (2, 0.25), (3, 12.0)]
    assert lite.perform(LITE_UPDATE, declared).state is EffectState.DONE
    assert lite_rows(lite) == [(1, 3.0), (2, 0.5), (3, 12.0)]


def test_sqlite_diverges(lite: SqlHouse) -> None:
    """Rows that somebody changed meanwhile are left as they are."""
    declared = lite.declare(LITE_UPDATE)
    path = lite.house.trust.last().trust.databases[0].path
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE items SET price = 1.75 WHERE id = 1")
    performed = lite.perform(LITE_UPDATE, declared)
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.NOT_DONE, "ROWS_DIVERGED")
    assert lite_rows(lite) == [(1, 1.75), (2, 0.25), (3, 12.0)]


def test_sqlite_inserts_and_deletes(lite: SqlHouse) -> None:
    """An insert tells what the clock will say; a delete tells the rows that go."""
    insert = run("INSERT INTO items (name, price) VALUES (?, 3)", "cog")
    added = lite.evidence(insert)
    assert json.loads(added.rows[0].after)["at"] == "(assigned when it runs: CURRENT_TIMESTAMP)"
    assert lite.perform(insert).state is EffectState.DONE
    gone = lite.evidence(run("DELETE FROM items WHERE name = ?", "cog"))
    assert (gone.row_count, gone.rows[0].after) == (1, "")


@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH DATABASE '/tmp/other.db' AS other",
        "PRAGMA journal_mode = OFF",
        "SELECT load_extension('x.so')",
        "COMMIT",
        "VACUUM INTO '/tmp/copy.db'",
    ],
)
def test_sqlite_does_nothing_but_tables(lite: SqlHouse, statement: str) -> None:
    """A statement that reaches for another file, a setting or code is refused by the connection itself."""
    performed = lite.perform(run(statement))
    assert performed.state is not EffectState.DONE
    assert performed.fault is not None


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("INSERT INTO watched VALUES (1, 1)", "watched has triggers"),
        ("INSERT INTO settled VALUES (1, 'x')", "settles conflicts by itself"),
        ("INSERT INTO keyed VALUES ('x')", "no numbered rows"),
        ("INSERT INTO hushed VALUES (1, 'x')", "settles conflicts by itself"),
        ("DELETE FROM parents", "other tables' rows"),
        ("DELETE FROM hiding", "hides its rows' numbers"),
        ("INSERT OR REPLACE INTO items (id, name) VALUES (1, 'x')", "ALTERNATIVE"),
        ("SELECT random() FROM items", "random"),
    ],
)
def test_what_sqlite_could_hide_is_not_tried(lite: SqlHouse, statement: str, why: str) -> None:
    """Triggers, conflicts that settle themselves and cascades change what is not seen."""
    evidence = lite.evidence(run(statement))
    assert why in evidence.not_simulated
    assert not evidence.simulated


def test_sqlite_waits_no_longer_than_it_may(lite: SqlHouse) -> None:
    """A file that somebody else holds is given up in time."""
    path = lite.house.trust.last().trust.databases[0].path
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(ExecutorError) as caught:
            lite.declare(LITE_UPDATE)
    assert caught.value.fault.reason == "FETCH_FAILED"
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("place", ["site", "state"])
def test_a_file_in_the_workspace_is_no_database(lite: SqlHouse, place: str) -> None:
    """A live step changes nothing in a workspace, and nothing of the executor's own."""
    force = lite.house.trust.current()
    path = lite.house.folder.resolve() / place / "shop.db"
    sqlite3.connect(path).close()
    moved = replace(force.trust.databases[0], path=str(path))
    lite.house.trust.replace(replace(force, trust=replace(force.trust, databases=(moved,))))
    with pytest.raises(ExecutorError) as caught:
        lite.declare(LITE_UPDATE)
    assert caught.value.fault.reason == "FAR_SIDE_UNKNOWN"
