"""Statements that mean more than they look like, on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.outside_risk import changes_something
from executor.domain.receipt import EffectState
from tests.far_sides import postgresql
from tests.far_sides.postgresql import Cluster
from tests.unit.executor.outside_house import TOKEN, outside_house
from tests.unit.executor.test_outside_databases import SqlHouse, run

pytestmark = postgresql.needed

SCHEMA = """
DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO app;
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, n int); INSERT INTO items VALUES (1, 'bolt', 0);
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
CREATE SEQUENCE outside;
CREATE FUNCTION sends(items) RETURNS bigint LANGUAGE sql AS 'SELECT nextval(''outside'')';
CREATE FUNCTION sends() RETURNS int LANGUAGE sql AS 'SELECT nextval(''outside'')::int';
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """One server for all tests of the module."""
    with postgresql.cluster() as found:
        yield found


@pytest.fixture
def shop(server: Cluster, tmp_path: Path) -> Iterator[SqlHouse]:
    """A house with a database in which a function does what no rollback takes back."""
    server.admin(*filter(str.strip, SCHEMA.split(";\n")))
    server.admin(f"ALTER ROLE app PASSWORD '{TOKEN}'")
    head = '[[databases]]\nname = "shop"\nworkspaces = ["site"]\nengine = "postgresql"\n'
    tables = head + f'dsn = "{server.dsn}"\npassword = "secret://token"\nstatement_timeout_seconds = 3\nmax_rows = 5\n'
    with outside_house(tmp_path, tables) as house:
        yield SqlHouse(house)


def sent(server: Cluster) -> bool:
    """Whether the function has run."""
    return bool(server.admin("SELECT is_called FROM outside")[0][0])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT items.sends FROM items",
        "SELECT i.sends FROM items AS i",
        "SELECT id FROM items i WHERE i.sends > 0",
        'SELECT "items"."sends" FROM public.items',
        "SELECT public.items.sends FROM public.items",
        "UPDATE items SET n = items.sends WHERE id = 1",
        "DELETE FROM items WHERE items.sends = 0",
    ],
)
def test_a_call_that_is_written_like_a_column_is_not_tried(server: Cluster, shop: SqlHouse, statement: str) -> None:
    """A function of a row can be named behind a dot; a dry run calls none."""
    evidence = shop.evidence(run(statement))
    assert (evidence.simulated, sent(server)) == (False, False)
    assert "sends" in evidence.not_simulated


def test_columns_behind_a_dot_are_tried(shop: SqlHouse) -> None:
    """The table's own columns, whoever names the table, and in whatever spelling."""
    for column in ("items.id", "items.NAME", 'public.items."n"', "items.*"):
        assert shop.evidence(run(f"SELECT {column} FROM public.items")).simulated


def test_a_query_that_nobody_could_try_may_change_something(shop: SqlHouse) -> None:
    """Only of a query whose rows were seen it is sure that nothing remains."""
    tried, calling = shop.evidence(run("SELECT id FROM items")), shop.evidence(run("SELECT sends()"))
    assert (tried.statement_kind, tried.simulated, changes_something(tried)) == ("select", True, False)
    assert (calling.statement_kind, calling.simulated, changes_something(calling)) == ("select", False, True)


def test_a_commit_that_is_refused_takes_back_only_what_a_transaction_holds(server: Cluster, shop: SqlHouse) -> None:
    """A function may have done what no transaction takes back, so that nobody knows."""
    performed = shop.perform(run("INSERT INTO children VALUES (1, sends())"))
    assert performed.state is EffectState.UNKNOWN
    assert sent(server)
    plain = shop.perform(run("INSERT INTO children (id, parent) VALUES (2, 7) ON CONFLICT DO NOTHING"))
    assert plain.state is EffectState.NOT_DONE


def test_a_program_of_the_server_is_held_by_no_transaction(server: Cluster, shop: SqlHouse, tmp_path: Path) -> None:
    """A statement that starts a program and then fails has started it."""
    tmp_path.chmod(0o777)
    server.admin("GRANT pg_execute_server_program TO app")
    try:
        performed = shop.perform(run(f"COPY items TO PROGRAM 'cat >{server.folder}/sent; exit 1'"))
    finally:
        server.admin("REVOKE pg_execute_server_program FROM app")
    assert performed.state is EffectState.UNKNOWN
    assert server.folder.joinpath("sent").exists()


@pytest.mark.parametrize("statement", ["DROP TABLE nothing", "TRUNCATE nothing", "COMMIT"])
def test_what_a_transaction_holds_and_refuses_is_not_done(shop: SqlHouse, statement: str) -> None:
    """What the database's own words only change in its tables is gone where it is refused."""
    assert shop.perform(run(statement)).state is EffectState.NOT_DONE
