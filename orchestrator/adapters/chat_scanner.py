r"""Cuts a chat message into sentences of words, quoted texts and raw tails, in one pass over the text.

What stands inside quotes or a fenced block is content and is never read as words. Everything else is: that is what
lets the planner find a "not" wherever it stands. A command line after "run:" is taken whole and must be free of
shell syntax, because nothing here ever goes through a shell.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple

from gonogo.safe_text import excerpt, is_hidden, safe_line
from orchestrator.domain.intent import MAX_SENTENCES, Unclear, UnclearReason

WORD, MARK = "WORD", "MARK"
QUOTED, FENCED, COMMAND_LINE, REMARK = "QUOTED", "FENCED", "COMMAND_LINE", "REMARK"


class Token(NamedTuple):
    """`kind` is WORD, MARK (a comma or colon), or one of the grammar's declared terminals."""

    kind: str
    value: str
    start: int


@dataclass(slots=True, kw_only=True)
class Sentence:
    """`end` is where the sentence stops in the message."""

    tokens: list[Token] = field(default_factory=list)
    end: int = 0


class Refused(Exception):  # noqa: N818 - not an error: a message that is not understood is an answer
    """Carries the answer out of the middle of a scan or a parse."""

    def __init__(self, reason: UnclearReason, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.unclear = Unclear(reason=reason, message=message, nearest=nearest)


def shown(text: str, limit: int = 60) -> str:
    """A part of the message, fit to be shown: bounded, on one line, every character visible."""
    return excerpt(safe_line(text[: limit + 1]), limit) if len(text) <= limit else safe_line(text[:limit]) + "\u2026"


def hides(text: str) -> bool:
    """Whether somebody shown `text` would miss a part of it; line breaks and tabs are seen."""
    return not text.isascii() and any(is_hidden(character) for character in text if character not in "\n\t")


def plain(word: str) -> str:
    """`word` as the word lists hold it: lower case, straight apostrophes, no emphasis around it."""
    straight = word.lower().translate(_APOSTROPHES)
    if not straight.isascii():
        straight = unicodedata.normalize("NFKC", straight)
    return straight.strip("()[]{}<>*_~-.\u2013\u2014\"'")


_APOSTROPHES = {ord(character): "'" for character in "\u2019\u02bc\u00b4`\u2032"}

_BULLET = r"(?:(?:[-*\u2022]|\d{1,3}[.)])[ \t]+)?"
_LEADING_BULLET = re.compile(r"\s*" + _BULLET)
_FENCE = re.compile(r"(?P<ticks>`{3,})[\w+.#-]*[ \t]*\n")
_PIECE = re.compile(
    rf"(?P<line>\n\s*{_BULLET})|(?P<space>[^\S\n]+)|(?P<fence>{_FENCE.pattern})|(?P<quote>['\"\u201c\u2018`])|(?P<chunk>\S+)"
)
_MARKS = re.compile(r"[,;:.!?]*")
_GLUED_QUOTE = re.compile(r"[\"\u201c\u201d`]|(?<![^\W\d_])['\u2018\u2019]|['\u2018\u2019](?![^\W\d_])")

_CLOSING = {"'": "'", '"': '"', "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}
_QUOTED_BODY = {
    opening: re.compile(rf"[^\\{closing}]*+(?:\\.[^\\{closing}]*+)*+(?={closing})", re.DOTALL)
    for opening, closing in _CLOSING.items()
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"} | {mark: mark for pair in _CLOSING.items() for mark in pair}

NOISE = frozenset({"please", "kindly", "now", "also", "and", "next", "first", "finally", "afterwards", "lastly"})
_REASONED = frozenset({"cancel", "reject", "pause", "stop"})
_REMARK_HEADS = _REASONED | {"feedback", "that"}
_WORKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scanner:
    """One message's scan; `sentences` and `open` hold what was read so far when `run` is refused half way."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sentences: list[Sentence] = []
        self.open = Sentence()
        self.workspace: str | None = None
        self.asked = False
        self._at = 0
        self._owed = False  # a "then" still waits for its sentence

    def run(self) -> None:
        """Read the whole message.

        Raises:
            Refused: quotes, a command line or hidden characters that can not be read in one way only.
        """
        bullet = _LEADING_BULLET.match(self.text)
        self._at = bullet.end() if bullet else 0
        while piece := _PIECE.match(self.text, self._at):
            self._take(piece)
        self._break(len(self.text))
        if self._owed:
            raise Refused(UnclearReason.NOT_UNDERSTOOD, "No sentence follows the last 'then'. Add it, or leave it out.")

    def _take(self, piece: re.Match[str]) -> None:
        start, self._at = piece.start(), piece.end()
        match piece.lastgroup:
            case "line":
                # A fenced block on the next line belongs to the sentence that introduced it.
                if not (self.open.tokens and _FENCE.match(self.text, self._at)):
                    self._break(start)
            case "fence" | "ticks":
                self._fenced(start, piece["ticks"])
            case "quote":
                self._quoted(start, piece["quote"])
            case "chunk":
                self._chunk(start, piece["chunk"])
            case _:
                pass  # blanks

    def _add(self, kind: str, value: str, start: int) -> None:
        self.open.tokens.append(Token(kind, value, start))
        self._owed = False

    def _fenced(self, start: int, ticks: str) -> None:
        closing = re.compile(rf"^[ \t]*{ticks}`*[ \t]*$", re.MULTILINE).search(self.text, self._at)
        if not closing:
            raise _quoting(start, f"The block that {ticks[:3]} opens is never closed. Close it on a line of its own.")
        self._add(FENCED, self.text[self._at : closing.start()], start)
        self._at = closing.end()

    def _quoted(self, start: int, opening: str) -> None:
        body = _QUOTED_BODY[opening].match(self.text, self._at)
        if not body:
            raise _quoting(start, f"The quote that {opening} opens is never closed. Close it.")
        self._add(QUOTED, _ESCAPE.sub(_unescaped, body[0]), start)
        self._at = body.end() + 1
        marks = _MARKS.match(self.text, self._at)
        self._at = marks.end() if marks else self._at
        if self._at < len(self.text) and not self.text[self._at].isspace():
            why = f"Text follows the quote that {opening} opens without a blank."
            raise _quoting(start, f"{why} Inside quotes write a quote mark as \\{_CLOSING[opening]}.")
        self._marks(marks[0] if marks else "")

    def _chunk(self, start: int, chunk: str) -> None:
        word, marks = _without_marks(chunk)
        if hides(word):
            raise Refused(
                UnclearReason.HIDDEN_CHARACTER,
                f"'{shown(word)}' at character {start + 1} holds a character that can not be seen. Write it without.",
            )
        if plain(word) == "then":
            self._then(start)
            return
        if word:
            self._add(WORD, word, start)
        if _GLUED_QUOTE.search(word):
            raise _quoting(start, f"There is a quote mark inside '{shown(word)}'. Put a blank before the quote.")
        if plain(word) == "because" and _REASONED.issuperset(self._head() or ("",)):
            self._remark()
            return
        self._marks(marks)

    def _marks(self, marks: str) -> None:
        for mark in marks:
            if mark == ",":
                self._add(MARK, mark, self._at)
            elif mark == ":":
                self._colon()
            else:
                self.asked = self.asked or mark == "?"
                self._break(self._at)

    def _colon(self) -> None:
        head = self._head()
        if head == ("in",) and not self.sentences and (name := self._workspace_named()):
            if self.workspace not in {None, name}:
                message = f"The message names two workspaces, {self.workspace} and {name}. Send one message for each."
                raise Refused(UnclearReason.MIXED, message)
            self.workspace, self.open = name, Sentence()
        elif head == ("run",):
            self._add(MARK, ":", self._at)
            self._command()
        else:
            self._add(MARK, ":", self._at)
            if head and head[0] in _REMARK_HEADS:
                self._remark()

    def _head(self) -> tuple[str, ...]:
        """The first word that counts; only a few tokens are looked at, so that many colons stay cheap."""
        words = (plain(token.value) for token in self.open.tokens[:6] if token.kind == WORD)
        return tuple(word for word in words if word not in NOISE)[:1]

    def _workspace_named(self) -> str | None:
        """The workspace of an "in NAME" that opens the message; "in docs/a.md:" and "in a.md:" name a file instead."""
        words = [plain(token.value) if token.kind == WORD else "" for token in self.open.tokens[:6]]
        match [word for word in words if word not in NOISE]:
            case ["in", _]:
                name = self.open.tokens[-1].value
                return name if _WORKSPACE.fullmatch(name) and "." not in name else None
            case ["in", "workspace", _] | ["in", "the", "workspace", _]:
                name = self.open.tokens[-1].value
                return name if _WORKSPACE.fullmatch(name) else None
            case _:
                return None

    def _then(self, start: int) -> None:
        tokens = self.open.tokens
        while tokens and (tokens[-1].kind == MARK or (tokens[-1].kind == WORD and plain(tokens[-1].value) == "and")):
            tokens.pop()
        self._break(start)
        self._owed = True

    def _break(self, end: int) -> None:
        tokens = self.open.tokens
        while tokens and tokens[-1].kind == MARK and tokens[-1].value == ",":
            tokens.pop()
        if not tokens:
            return
        if len(self.sentences) == MAX_SENTENCES:
            raise Refused(
                UnclearReason.TOO_MANY_STEPS,
                f"The message has more than {MAX_SENTENCES} sentences. Send a plan file, or several messages.",
            )
        self.open.end = end
        self.sentences.append(self.open)
        self.open = Sentence()

    def _remark(self) -> None:
        remark = self.text[self._at :].strip()
        if remark:
            self._add(REMARK, remark, self._at)
        self._at = len(self.text)

    def _command(self) -> None:
        start, self._at = self._at, command_end(self.text, self._at)
        line = self.text[start : self._at].strip()
        if hides(line):
            message = f"The command line '{shown(line)}' holds a character that can not be seen. Write it without."
            raise Refused(UnclearReason.HIDDEN_CHARACTER, message)
        if line:
            self._add(COMMAND_LINE, line, start)


def _without_marks(chunk: str) -> tuple[str, str]:
    """A word and the punctuation behind it; the dots of `.`, `..` and `docs/.` belong to the word."""
    word = chunk.rstrip(",;:.!?")
    marks = chunk[len(word) :]
    if not word or word.endswith("/"):
        dots = len(marks) - len(marks.lstrip("."))
        return word + marks[:dots], marks[dots:]
    return word, marks


def _unescaped(escape: re.Match[str]) -> str:
    try:
        return _ESCAPES[escape[1]]
    except KeyError:
        why = f"'{shown(escape[0])}' inside quotes has no meaning here."
        raise Refused(
            UnclearReason.QUOTING,
            rf"{why} Use \n, \t, \\ or a quote mark after the backslash; write \\ for a backslash.",
        ) from None


def _quoting(at: int, message: str) -> Refused:
    return Refused(UnclearReason.QUOTING, f"{message} (character {at + 1})")


_COMMAND_PIECE = re.compile(
    r"(?P<blank>[ \t]+)|(?P<quoted>'[^']*'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\")|(?P<quoted_one>\\[^\n])"
    r"|(?P<operator>[|&;<>()`$*?]|[\u201c\u201d\u2018\u2019])|(?P<bare>[^\s'\"\\|&;<>()`$*?\u201c\u201d\u2018\u2019,]+|,)",
    re.DOTALL,
)
_COMMAND_END = re.compile(r"[ \t]*(?:[,;][ \t]*\n?[ \t]*(?:and[ \t]+)?then(?![^\s:,])|\n|\Z)", re.IGNORECASE)
_SHELL_HEADS = frozenset({"if", "for", "while", "until", "case", "function", "{", "[[", "!", "exec", "cd"})
# Words that would turn a sentence's meaning and are hardly ever arguments. Quoted, they are arguments.
_TURNING = frozenset(
    {"not", "never", "no", "nothing", "none", "neither", "nor", "without", "cannot", "but", "unless", "except"}
)
_CONDITIONAL = frozenset({"if", "maybe", "perhaps", "whether"})


def command_end(text: str, start: int) -> int:
    """Where the command line that begins at `start` ends: before ", then", at a line's end, or at the message's.

    Raises:
        Refused: it needs a shell, or its end is a matter of opinion.
    """
    at, bare = start, []
    while not _COMMAND_END.match(text, at):
        piece = _COMMAND_PIECE.match(text, at)
        if not piece:
            raise _quoting(
                at,
                f"The command line can not be split at '{shown(text[at : at + 20])}'. Close its quotes, on one line.",
            )
        if piece.lastgroup == "operator":
            raise _shell(f"'{piece[0]}' (character {at + 1})")
        if piece[0].startswith("'") and text[at - 1].isalpha():
            # "run: make and don't lint, it doesn't work": to a shell the two apostrophes are a pair of quotes.
            raise _apostrophe(text, at)
        bare.append(piece[0] if piece.lastgroup in {"bare", "blank"} else "''")
        at = piece.end()
    _check_bare_words("".join(bare).split())
    return at


def _apostrophe(text: str, at: int) -> Refused:
    word = shown(text[at - 1 : at + 2])
    if word.lower() == "n't":
        return _in_command(UnclearReason.NEGATED, word, "turns the sentence into its opposite")
    return _quoting(at, f"In '{word}' of the command line an apostrophe follows a letter. Quote the whole argument.")


def _check_bare_words(words: list[str]) -> None:
    if words and (words[0] in _SHELL_HEADS or re.match(r"\w+=", words[0])):
        raise _shell(f"'{shown(words[0])}'")
    for word in words:
        turned = plain(word.rstrip(",.;:!"))
        if word.startswith(("~", "#")):
            raise _shell(f"'{shown(word)}'")
        alone = word.lower().rstrip(",.;:!") == turned  # "-not" is an option
        if alone and (turned in _TURNING or turned.endswith("n't")):
            raise _in_command(UnclearReason.NEGATED, word, "turns the sentence into its opposite")
        if alone and turned in _CONDITIONAL:
            raise _in_command(UnclearReason.HEDGED, word, "makes the sentence conditional")
        if turned == "then" or word.endswith(","):
            raise _in_command(UnclearReason.COMMAND_AMBIGUOUS, word, "may or may not end the command")


def _in_command(reason: UnclearReason, word: str, why: str) -> Refused:
    remedy = "Put it in quotes if it is an argument; write ', then' or a new line to begin the next sentence."
    return Refused(reason, f"'{shown(word)}' in the command line {why}. {remedy}")


def _shell(what: str) -> Refused:
    remedy = (
        "Put it in quotes where it is an ordinary argument, use one 'run:' for each program, "
        "or put the line into a script and run that."
    )
    return Refused(UnclearReason.SHELL_SYNTAX, f"{what} is shell syntax; commands run without a shell. {remedy}")
