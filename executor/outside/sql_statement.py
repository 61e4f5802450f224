r"""Reading one SQL statement: what it is, and whether a transaction shows and holds all that it does.

Two readers must agree before a statement counts as plain. A scanner takes only plain words, quoted names, plain
strings, numbers and a few operators: no comments, escapes or quoting that readers understand differently; and of names
before a parenthesis only those of a list. sqlglot's tree must be one statement on one table, made of nodes of a list.
All else is "not simulated", with the reason; that is no judgement of the statement.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sqlglot
from sqlglot import exp

_PERCENT: Final = re.compile(r"%.?", re.DOTALL)
_CONSTANT: Final = (
    *(exp.Literal, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Null, exp.Boolean, exp.Neg, exp.Paren),
)
_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+)|(?P<string>'(?:[^'\\]|'')*')|(?P<quoted>"(?:[^"\\]|"")*")|(?P<parameter>\$[1-9][0-9]*|\?)"""
    r"""|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<sign>::|<>|<=|>=|!=|\|\||[-+*/%<>=(),.])""",
    re.ASCII,
)
CALLS: Final = frozenset(
    {
        *("abs", "avg", "ceil", "coalesce", "count", "floor", "length", "lower", "max", "min", "nullif", "round"),
        *("substr", "sum", "trim", "upper"),
    }
)
# Words that stand before a parenthesis and call nothing.
_WORDS: Final = frozenset(
    {
        *("all", "and", "between", "by", "case", "distinct", "else", "from", "having", "in", "like", "not", "on", "or"),
        *("returning", "select", "set", "then", "values", "when", "where", "char", "decimal", "numeric", "varchar"),
    }
)
_TYPES: Final = frozenset(
    {
        *("BIGINT", "BOOLEAN", "CHAR", "DATE", "DECIMAL", "DOUBLE", "FLOAT", "INT", "JSONB", "SMALLINT", "TEXT"),
        *("TIMESTAMP", "TIMESTAMPTZ", "UUID", "VARCHAR"),
    }
)
_NODES: Final[tuple[type[exp.Expr], ...]] = (
    *(exp.Add, exp.Alias, exp.And, exp.Between, exp.Boolean, exp.Case, exp.Cast, exp.Column, exp.DPipe, exp.DataType),
    *(exp.DataTypeParam, exp.Delete, exp.Distinct, exp.Div, exp.EQ, exp.From, exp.GT, exp.GTE, exp.Group, exp.Having),
    *(exp.ILike, exp.Identifier, exp.If, exp.In, exp.Insert, exp.Is, exp.LT, exp.LTE, exp.Like, exp.Limit, exp.Literal),
    *(exp.Mod, exp.Mul, exp.NEQ, exp.Neg, exp.Not, exp.Null, exp.Offset, exp.Or, exp.Order, exp.Ordered, exp.Parameter),
    *(exp.Paren, exp.Placeholder, exp.Schema, exp.Select, exp.Star, exp.Sub, exp.Table, exp.TableAlias, exp.Tuple),
    *(exp.Update, exp.Values, exp.Where),
    *(exp.Abs, exp.Avg, exp.Ceil, exp.Coalesce, exp.Count, exp.Floor, exp.Length, exp.Lower, exp.Max, exp.Min),
    *(exp.Nullif, exp.Round, exp.Substring, exp.Sum, exp.Trim, exp.Upper),
)
_ARGS: Final[dict[type[exp.Expr], frozenset[str]]] = {
    exp.Select: frozenset(
        {"expressions", "from_", "where", "group", "having", "order", "limit", "offset", "distinct", "kind"}
    ),
    exp.Insert: frozenset({"this", "expression"}),
    exp.Update: frozenset({"this", "expressions", "where"}),
    exp.Delete: frozenset({"this", "where"}),
    exp.Table: frozenset({"this", "db", "alias"}),
}
# What changes the database alone, all of it in the transaction; a COPY, for one, may start a program of the server's.
_HELD: Final = (
    *(exp.Select, exp.SetOperation, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Alter),
    *(exp.TruncateTable, exp.Transaction, exp.Commit, exp.Rollback),
)
_KINDS: Final[dict[type[exp.Expr], str]] = {
    exp.Select: "select",
    exp.Insert: "insert",
    exp.Update: "update",
    exp.Delete: "delete",
}


class StatementError(Exception):
    """It is not one statement, or its placeholders are not well formed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, with placeholders as its database takes them."""

    text: str
    kind: str
    """"select", "insert", "update", "delete", or "other"."""
    reason: str = ""
    """Why it is not to be tried; empty where it may be."""
    bounded: bool = False
    """A transaction holds all that it does: it calls nothing that is not on the list."""
    schema: str | None = None
    table: str = ""
    reference: str = ""
    """What the statement itself calls the table, quoted."""
    source: str = ""
    """The table with its alias, quoted."""
    columns: tuple[str, ...] = ()
    """Those that an insert names; empty means all."""
    assigned: tuple[str, ...] = ()
    """Those that an update sets."""
    dotted: tuple[str, ...] = ()
    """Those that stand behind a table's name and a dot, where PostgreSQL finds a function of the row, too."""
    row_count: int = 0
    """How many rows an insert has."""
    where: str = ""
    """Its condition, with placeholders of its own."""
    where_parameters: tuple[int, ...] = ()
    """Which of the statement's parameters those are, from 0."""


def read_statement(text: str, dialect: str, parameters: int) -> Statement:
    """Read a statement.

    Args:
        text: as the plan has it.
        dialect: "postgres" or "sqlite".
        parameters: how many it is given.

    Raises:
        StatementError: it can not even be sent.
    """
    text = _numbered(text, parameters) if dialect == "postgres" else text
    trees = _trees(text, dialect)
    if trees is None:
        return Statement(text=text, kind="other", reason="it is in a form that only the database itself can read")
    if len(trees) != 1:
        raise StatementError(f"there are {len(trees)} statements where one is expected")
    tree = trees[0]
    kind = _KINDS.get(type(tree), "other")
    bare = text.strip().removesuffix(";").rstrip()
    reason = _not_plain(bare, tree, kind)
    if reason:
        bounded = _is_bounded(tree) and not any(_called(list(_tokens(bare)), kind))
        return Statement(text=text, kind=kind, reason=reason, bounded=bounded)
    return _plain(bare, kind, tree, dialect)


def is_constant(expression: str) -> bool:
    """Tell whether a default is the same each time: nothing but literals."""
    try:
        tree = sqlglot.parse_one(expression, read="postgres")
    except sqlglot.errors.SqlglotError:
        return False
    return all(isinstance(node, _CONSTANT) for node in tree.walk())


def _numbered(text: str, parameters: int) -> str:
    """Put the server's own placeholders in the place of `%s`; without parameters a % is itself."""
    if not parameters:
        return text
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count
        if found[0] == "%%":
            return "%"
        if found[0] != "%s":
            raise StatementError("a % that is no placeholder must be written as %%")
        count += 1
        return f"${count}"

    numbered = _PERCENT.sub(number, text)
    if count != parameters:
        raise StatementError(f"it has {count} placeholders and is given {parameters} parameters")
    return numbered


def _trees(text: str, dialect: str) -> list[exp.Expr] | None:
    try:
        found = sqlglot.parse(text, read=dialect)
        return [tree for tree in found if tree is not None and not isinstance(tree, exp.Semicolon)]
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None


def _not_plain(text: str, tree: exp.Expr, kind: str) -> str:
    """Return why a statement is not one that may be tried."""
    if kind == "other":
        return "only SELECT, INSERT, UPDATE and DELETE are tried"
    return _not_scanned(text, kind) or _not_listed(tree) or _not_one_table(tree) or _not_its_form(tree)


def _not_scanned(text: str, kind: str) -> str:
    tokens = list(_tokens(text))
    if not tokens or tokens[-1][0] == "strange":
        return "it has comments, escapes, operators or characters that are not plain"
    for (former, _, end), (name, _, start) in itertools.pairwise(tokens):
        if name == "string" and former in {"word", "quoted"} and end == start:
            return "it has a string with a prefix"
    if any(name == "word" and word.lower() == "default" for name, word, _ in tokens):
        return "it sets a default in so many words; leave the column out instead"
    called = list(_called(tokens, kind))
    return f"it calls {called[0]}, which is not on the list of functions that change nothing" if called else ""


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and, for words their end, for all others their beginning; something strange ends it."""
    at = len(text) if "--" in text or "/*" in text else 0
    if at:
        yield ("strange", text, 0)
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            yield ("strange", text[at], at)
            return
        kind = str(found.lastgroup)
        if kind != "blank":
            yield (kind, found[0], found.end() if kind in {"word", "quoted"} else at)
        at = found.end()


def _called(tokens: Sequence[tuple[str, str, int]], kind: str) -> Iterator[str]:
    """Yield the names that are called; before an insert's values the table's name stands before its columns."""
    values = kind != "insert"
    for (name, text, _), (_, following, _) in itertools.pairwise(tokens):
        values = values or (name == "word" and text.lower() == "values")
        known = name == "word" and text.lower() in CALLS | _WORDS
        if following == "(" and name in {"word", "quoted"} and not known and values:
            yield text


def _not_listed(tree: exp.Expr) -> str:
    for node in tree.walk():
        if type(node) not in _NODES:
            return f"it has a part, {type(node).__name__}, that is not on the list of those that change nothing else"
        if isinstance(node, exp.DataType) and node.this.name not in _TYPES:
            return f"it names the type {node.sql()}, which is not on the list"
        extra = {name for name, value in node.args.items() if value} - _ARGS.get(type(node), frozenset(node.args))
        if extra:
            return f"it has {', '.join(sorted(name.strip('_').upper() for name in extra))}"
    return ""


def _not_one_table(tree: exp.Expr) -> str:
    tables = list(tree.find_all(exp.Table))
    selects = list(tree.find_all(exp.Select))
    if len(tables) != 1 or len(selects) != isinstance(tree, exp.Select):
        return "it is not about one table alone"
    return ""


def _not_its_form(tree: exp.Expr) -> str:
    if isinstance(tree, exp.Insert) and not isinstance(tree.expression, exp.Values):
        return "it inserts what is not written in it"
    if isinstance(tree, exp.Update) and not all(
        isinstance(one, exp.EQ) and isinstance(one.this, exp.Column) for one in tree.expressions
    ):
        return "it sets more than single columns"
    return ""


def _is_bounded(tree: exp.Expr) -> bool:
    """Tell whether a transaction holds it: no command that is not understood, no function that is not listed."""
    held = (exp.Command, exp.Anonymous, exp.Dot)
    return isinstance(tree, _HELD) and not any(
        isinstance(node, held) or (isinstance(node, exp.Func) and type(node) not in _NODES) for node in tree.walk()
    )


def _plain(text: str, kind: str, tree: exp.Expr, dialect: str) -> Statement:
    table = tree.find(exp.Table)
    if table is None:
        return Statement(text=text, kind=kind, reason="it names no table", bounded=True)
    alias = table.args.get("alias")
    named = table.this if alias is None else alias.this
    where = tree.args.get("where") if kind in {"update", "delete"} else None
    condition, places = ("", ()) if where is None else _condition(where, tree, dialect)
    schema = tree.find(exp.Schema)
    inserted = tree.expression.expressions if kind == "insert" else ()
    set_columns = [one.this.this for one in tree.expressions] if kind == "update" else ()
    return Statement(
        text=text,
        kind=kind,
        bounded=True,
        schema=_name(table.args["db"], dialect) if table.args.get("db") else None,
        table=_name(table.this, dialect),
        reference=named.sql(dialect),
        source=table.sql(dialect),
        columns=() if schema is None else tuple(_name(one, dialect) for one in schema.expressions),
        assigned=tuple(_name(one, dialect) for one in set_columns),
        dotted=tuple(
            _name(column.this, dialect)
            for column in tree.find_all(exp.Column)
            if column.table and not isinstance(column.this, exp.Star)
        ),
        row_count=len(inserted),
        where=condition,
        where_parameters=places,
    )


def _name(identifier: exp.Expr, dialect: str) -> str:
    """Return a name as the database keeps it: PostgreSQL folds what is not quoted, SQLite compares without case."""
    quoted = identifier.args.get("quoted") and dialect == "postgres"
    return str(identifier.name if quoted else identifier.name.lower())


def _condition(where: exp.Expr, tree: exp.Expr, dialect: str) -> tuple[str, tuple[int, ...]]:
    """Return a condition as a statement's own, its placeholders counted from its first, and which ones those were."""
    if dialect != "postgres":
        inside = len(list(where.find_all(exp.Placeholder)))
        every = len(list(tree.find_all(exp.Placeholder)))
        return where.sql(dialect), tuple(range(every - inside, every))
    copied = where.copy()
    places: list[int] = []
    for parameter in list(copied.find_all(exp.Parameter)):
        place = int(parameter.name) - 1
        if place not in places:
            places.append(place)
        parameter.set("this", exp.Literal.number(places.index(place) + 1))
    return copied.sql(dialect), tuple(places)
