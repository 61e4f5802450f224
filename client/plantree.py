"""Plan files as a tree of written scalars: YAML and JSON read alike, nothing converted, everything with its line.

YAML's own conversions are what makes it treacherous (0644 → 420, off → False, 1:30 → 90), so none takes place here.
What can hide something is refused: anchors and aliases, tags, several documents, duplicate keys, keys that are no text.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from client.errors import PlanFileError

MAX_DEPTH = 16
LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BREAKS = re.compile(r"\r(?!\n)|[\x85\u2028\u2029]")
"""What YAML takes for the end of a line and editors show within one, so that a comment could hide a field."""
_FORM = "see the plan file form in the README"
_JSON_DECODER = json.JSONDecoder()
_JSON_SPACE = re.compile(r"[ \t\n\r]*")
_JSON_WORD = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value as it is written."""

    line: int
    text: str
    quoted: bool
    null: bool = False
    """JSON's null, which is a value only where any JSON may stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list."""

    line: int
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Names and values; no name twice."""

    line: int
    items: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Listing | Mapping


def read_tree(text: str, *, nulls: bool = False) -> Node:
    """Read one YAML or JSON document.

    Args:
        text: the document.
        nulls: whether JSON's null is read; whoever asks for it must look at `Scalar.null`.

    Raises:
        PlanFileError: not such a document, or one that hides something.
    """
    if text.lstrip(" \t\r\n").startswith("{"):
        try:
            return _Json(text, nulls=nulls).document()
        except _NotJsonError:
            pass  # YAML may begin with a brace too
    return _yaml_tree(text)


def _yaml_tree(text: str) -> Node:
    hidden = _BREAKS.search(text)
    if hidden is not None:
        problem = f"a line break that can not be seen (\\u{ord(hidden[0]):04x})"
        remedy = "end lines with a line feed; write it as an escape in double quotes where a text holds it"
        raise PlanFileError(text.count("\n", 0, hidden.start()) + 1, problem, remedy)
    try:
        events = yaml.parse(text, Loader=LOADER)
        return _Yaml(events).document()
    except yaml.MarkedYAMLError as error:
        line = _marked_line(error.problem_mark)
        what = error.problem or "not valid YAML"
        raise PlanFileError(line, f"not valid YAML: {what}", "correct the line; indent with spaces") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        line = text.count("\n", 0, getattr(error, "position", 0) or 0) + 1
        remedy = "write control characters as escapes in double quotes, or as base64 in data"
        raise PlanFileError(line, "not valid YAML: a character that text may not hold", remedy) from None


class _Yaml:
    """Builds the tree from parser events, so that nothing is ever resolved or expanded."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def document(self) -> Node:
        next(self._events)  # StreamStart
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            raise PlanFileError(1, "the file is empty", "write objective, workspace and steps")
        root = self._node(next(self._events), 1)
        next(self._events)  # DocumentEnd
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            raise PlanFileError(_line(after), "a second document", "one file holds one plan: split the file")
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        _refuse_hidden(event, line)
        if depth > MAX_DEPTH:
            raise PlanFileError(line, f"nested deeper than {MAX_DEPTH} levels", _FORM)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line=line, text=event.value, quoted=bool(event.style))
        if isinstance(event, yaml.SequenceStartEvent):
            return Listing(line=line, items=tuple(self._items(depth)))
        return _mapping(line, list(self._pairs(depth)))

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> Iterator[tuple[Node, Node]]:
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            yield key, self._node(next(self._events), depth + 1)


def json_text(node: Node) -> str:
    """Write a node as JSON: numbers, true, false and null as they stand without quotes, everything else as text.

    Raises:
        PlanFileError: a value is left out.
    """
    if isinstance(node, Mapping):
        return "{" + ",".join(f"{_json_string(key)}:{json_text(value)}" for key, value in node.items) + "}"
    if isinstance(node, Listing):
        return "[" + ",".join(json_text(item) for item in node.items) + "]"
    if not node.text and not node.quoted:
        raise PlanFileError(node.line, "there is no value", 'write null, or "" for an empty text')
    return node.text if not node.quoted and _JSON_WORD.fullmatch(node.text) else _json_string(node)


def _json_string(value: Scalar) -> str:
    return json.dumps(value.text, ensure_ascii=False)


def _line(event: yaml.Event) -> int:
    return _marked_line(event.start_mark)


def _marked_line(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 1


def _refuse_hidden(event: Any, line: int) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise PlanFileError(line, f"an alias (*{event.anchor})", "write the value out; a plan hides nothing")
    if getattr(event, "anchor", None) is not None:
        raise PlanFileError(line, f"an anchor (&{event.anchor})", "write the value out; a plan hides nothing")
    if getattr(event, "tag", None) is not None:
        raise PlanFileError(line, f"a tag ({event.tag})", "leave the tag out; the field decides the type")


def _mapping(line: int, pairs: list[tuple[Node, Node]]) -> Mapping:
    items: list[tuple[Scalar, Node]] = []
    seen: dict[str, int] = {}
    for key, value in pairs:
        if not isinstance(key, Scalar):
            raise PlanFileError(key.line, "a field's name that is no text", _FORM)
        if key.text in seen:
            problem = f"{key.text!r} is there twice, first on line {seen[key.text]}"
            raise PlanFileError(key.line, problem, "leave one of the two out")
        seen[key.text] = key.line
        items.append((key, value))
    return Mapping(line=line, items=tuple(items))


class _NotJsonError(Exception):
    """The text is not JSON."""


class _Json:
    """Reads JSON with line numbers, which the standard library's reader does not give."""

    def __init__(self, text: str, *, nulls: bool) -> None:
        self._text = text
        self._nulls = nulls
        self._at = 0
        self._line = 1
        self._counted = 0

    def document(self) -> Node:
        self._skip()
        root = self._value(1)
        self._skip()
        if self._at != len(self._text):
            raise _NotJsonError
        return root

    def _value(self, depth: int) -> Node:
        line = self._here()
        if depth > MAX_DEPTH:
            raise PlanFileError(line, f"nested deeper than {MAX_DEPTH} levels", _FORM)
        if self._take("{"):
            return _mapping(line, list(self._pairs(depth)))
        if self._take("["):
            return Listing(line=line, items=tuple(self._items(depth)))
        if self._take('"'):
            return Scalar(line=line, text=self._string(), quoted=True)
        return self._word(line)

    def _word(self, line: int) -> Scalar:
        match = _JSON_WORD.match(self._text, self._at)
        if match is None:
            raise _NotJsonError
        null = match.group() == "null"
        if null and not self._nulls:
            raise PlanFileError(line, "null is no value", "leave the field out")
        self._at = match.end()
        return Scalar(line=line, text=match.group(), quoted=False, null=null)

    def _string(self) -> str:
        """Read the string whose opening quote was just taken."""
        try:
            text, self._at = _JSON_DECODER.raw_decode(self._text, self._at - 1)
        except json.JSONDecodeError:
            raise _NotJsonError from None
        return str(text)

    def _items(self, depth: int) -> Iterator[Node]:
        self._skip()
        if self._take("]"):
            return
        while True:
            self._skip()
            yield self._value(depth + 1)
            self._skip()
            if self._take("]"):
                return
            self._need(",")

    def _pairs(self, depth: int) -> Iterator[tuple[Node, Node]]:
        self._skip()
        if self._take("}"):
            return
        while True:
            self._skip()
            line = self._here()
            self._need('"')
            key = Scalar(line=line, text=self._string(), quoted=True)
            self._skip()
            self._need(":")
            self._skip()
            yield key, self._value(depth + 1)
            self._skip()
            if self._take("}"):
                return
            self._need(",")

    def _take(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _need(self, character: str) -> None:
        if not self._take(character):
            raise _NotJsonError

    def _skip(self) -> None:
        match = _JSON_SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
