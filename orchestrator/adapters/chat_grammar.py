"""The planner that needs no model: a grammar of plain sentences, and a refusal for everything else.

A message is checked from the outside in: its size and characters, then its quotes, then words that turn or weaken
what is asked ("not", "maybe"), and only then each sentence by the grammar. Every check sees the whole message, and
the first that fails answers for all of it, so half a message can not become a plan.
"""

import logging
import re
from collections.abc import Container, Iterable, Sequence
from difflib import SequenceMatcher
from importlib.resources import files
from typing import Protocol

from lark import Lark, Token, UnexpectedToken
from lark.lexer import PatternStr

from gonogo.safe_text import safe_line
from orchestrator.adapters import chat_scanner as scan
from orchestrator.adapters.chat_scanner import Refused, Scanner, Sentence, plain, shown
from orchestrator.adapters.chat_sentences import SentenceMeanings, Steps
from orchestrator.domain.intent import (
    FORMS,
    MAX_MESSAGE_BYTES,
    MAX_OBJECTIVE,
    MAX_STEPS,
    Control,
    Feedback,
    Form,
    Intent,
    Proposal,
    Question,
    Unclear,
    UnclearReason,
)

DEFAULT_TESTS_ARGV = ("python3", "-m", "pytest", "-q", "--junitxml=build/junit.xml")
DEFAULT_TESTS_JUNIT = "build/junit.xml"

_log = logging.getLogger(__name__)

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MISSION_ID = re.compile(r"m-[0-9a-z]+")
_BARE_NAME = re.compile(r"[\w./@+=%~-]+")


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# One of these anywhere outside quotes turns the whole message into a refusal. Wide on purpose: a file that bears such
# a name can be quoted, a deleted file can not be un-deleted by saying what was meant.
_NEGATORS = _listed(
    "not never no none nothing nobody nowhere neither nor without cannot avoid avoids avoiding avoided stop stops "
    "stopping stopped refrain refraining skip skips skipping skipped except excepting excluding exclude unless instead "
    "rather prevent preventing forbid forbidden prohibit prohibited cease quit leave keep spare ignore "
    "dont doesnt didnt wont cant couldnt shouldnt wouldnt mustnt isnt arent wasnt neednt aint nope nah hardly barely "
    "scarcely but untouched unchanged unneeded unnecessary needless pointless"
)
_HEDGES = _listed(
    "if maybe perhaps possibly probably might could would should shall may can whether suppose supposing supposed "
    "assuming hypothetically imagine wonder wondering think thinking consider considering when whenever how why who "
    "where which or either someday sometime later eventually case provided"
)
# Verbs and joining words: as a name they have to be quoted, since "delete a and list" is more likely a slip.
_RESERVED = _listed(
    "create write append replace delete remove move rename make set read show list search find run cancel reject "
    "approve execute feedback in to into with by of for from and then containing because"
)
_READABLE = 12  # more expected words than this help nobody
_ARTICLES = frozenset({"a", "an", "the"})
_NOUNS = _listed("file files new empty directory folder workspace mission command")
_VERDICTS = frozenset({"good", "bad"})
_TERMINAL_NAMES = {
    "NAME": "a name",
    scan.QUOTED: "a quoted text",
    scan.FENCED: "a fenced block",
    scan.COMMAND_LINE: "a command line",
    scan.REMARK: "your words",
    "VERDICT": "'good' or 'bad'",
    "$END": "the end of the sentence",
}


class _Parser(Protocol):
    """The part of lark's interactive parser that is used."""

    def feed_token(self, token: Token) -> object: ...

    def choices(self) -> Container[str]: ...

    def accepts(self) -> Iterable[str]: ...


class GrammarPlanner:
    """A `Planner` for plain sentences; safe to share between threads, since each message has its own parser state.

    Args:
        tests_argv: what "run the tests" runs.
        tests_junit: the JUnit XML file that this writes, relative to the workspace, or None.
    """

    def __init__(
        self, *, tests_argv: Sequence[str] = DEFAULT_TESTS_ARGV, tests_junit: str | None = DEFAULT_TESTS_JUNIT
    ) -> None:
        self._lark = Lark(
            files(__package__).joinpath("chat_grammar.lark").read_text("utf-8"),
            parser="lalr",
            maybe_placeholders=False,
            transformer=SentenceMeanings(tests_argv=tuple(tests_argv), tests_junit=tests_junit),
        )
        self._keywords = {
            terminal.pattern.value: terminal.name
            for terminal in self._lark.terminals
            if isinstance(terminal.pattern, PatternStr)
        }
        self._words = {name: f"'{word}'" for word, name in self._keywords.items()} | _TERMINAL_NAMES

    def understand(self, text: str) -> Intent:
        """The intent of one message; never raises."""
        try:
            return self._understood(text)
        except Refused as refused:
            return refused.unclear
        except Exception:  # noqa: BLE001 - the port promises an answer, and the only safe one is a refusal
            _log.exception("the chat planner failed on a message of %d characters", len(text))
            message = "The planner failed on this message; nothing was proposed. Send a plan file instead."
            return Unclear(reason=UnclearReason.PLANNER_FAILED, message=message)

    def _understood(self, text: str) -> Intent:
        _check_text(text)
        scanner = _scanned(text)
        if not scanner.sentences:
            raise Refused(UnclearReason.EMPTY, "The message asks for nothing.", nearest_forms(text.split()[:12]))
        meanings = self._meanings(scanner)
        if len(meanings) == 1 and isinstance(meanings[0], Question | Control | Feedback):
            return _alone(meanings[0], scanner)
        return _proposal(text, scanner, meanings)

    def _meanings(self, scanner: Scanner) -> list[object]:
        try:
            return [self._meaning(sentence, number) for number, sentence in enumerate(scanner.sentences, start=1)]
        except Refused as refused:
            if refused.unclear.reason is UnclearReason.NOT_UNDERSTOOD:
                _refuse_weakened(scanner, refused.unclear.nearest)
            raise

    def _meaning(self, sentence: Sentence, number: int) -> object:
        tokens = _counting_tokens(sentence)
        parser: _Parser = self._lark.parse_interactive()
        for token in tokens:
            self._feed(parser, token, sentence, number)
        try:
            return parser.feed_token(Token("$END", ""))
        except UnexpectedToken:
            raise self._stopped(parser, None, sentence, number) from None

    def _feed(self, parser: _Parser, token: scan.Token, sentence: Sentence, number: int) -> None:
        kind = self._terminal(token, parser.choices())
        if kind == "NAME" and plain(token.value) in _RESERVED:
            raise self._stopped(parser, token, sentence, number)
        if kind == "NAME":
            _check_bare_name(token)
        try:
            parser.feed_token(Token(kind, token.value))
        except UnexpectedToken:
            raise self._stopped(parser, token, sentence, number) from None

    def _terminal(self, token: scan.Token, choices: Container[str]) -> str:
        """A word is a keyword where the grammar expects that keyword, and a name everywhere else."""
        if token.kind not in {scan.WORD, scan.MARK}:
            return token.kind
        word = token.value.lower().replace("\u2019", "'")
        if word in _VERDICTS and "VERDICT" in choices:
            return "VERDICT"
        keyword = self._keywords.get(word, "NAME")
        return keyword if keyword in choices or token.kind == scan.MARK or "NAME" not in choices else "NAME"

    def _stopped(self, parser: _Parser, token: scan.Token | None, sentence: Sentence, number: int) -> Refused:
        where = f"at '{shown(token.value, 40)}' (character {token.start + 1})" if token else "at its end"
        expected = sorted(self._words[name] for name in parser.accepts())
        wanted = f" Expected there: {', '.join(expected)}." if len(expected) <= _READABLE else ""
        if token and plain(token.value) in _RESERVED:
            wanted += " Put the word in quotes if it is a name."
        words = [plain(each.value[:32]) for each in sentence.tokens[:12] if each.kind == scan.WORD]
        return Refused(
            UnclearReason.NOT_UNDERSTOOD,
            f"Sentence {number} was not understood; reading stopped {where}.{wanted}",
            nearest_forms(words),
        )


def nearest_forms(words: Sequence[str]) -> tuple[str, ...]:
    """The three forms whose words come closest, the best first."""
    ranked = sorted(FORMS, key=lambda form: -_closeness(words, form))
    return tuple(str(form) for form in ranked[:3])


def _closeness(words: Sequence[str], form: Form) -> float:
    """How alike the verbs are, which counts most and less the later they stand, and the words that both have."""
    keywords = [word for word in re.findall(r"[a-z]+", form.pattern) if len(word) > 1]
    alike = (SequenceMatcher(None, word, keywords[0]).ratio() - 0.3 * at for at, word in enumerate(words[:4]))
    verb = max(alike, default=0.0)
    return 2 * verb + len(set(keywords) & set(words)) / len(keywords)


def _check_text(text: str) -> None:
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES:
        message = f"The message is longer than {MAX_MESSAGE_BYTES} bytes. Send a plan file, or several messages."
        raise Refused(UnclearReason.TOO_LONG, message)
    if forbidden := _FORBIDDEN.search(text):
        what = f"the control character {safe_line(forbidden[0])}"
        message = (
            f"The message holds {what} at character {forbidden.start() + 1}. Only line feeds and tabs may stand in it."
        )
        raise Refused(UnclearReason.CONTROL_CHARACTER, message)


def _scanned(text: str) -> Scanner:
    """The message cut into sentences; a negation is what is told, even where the quotes behind it are wrong too."""
    scanner = Scanner(text)
    try:
        scanner.run()
    finally:
        _refuse_negated([*scanner.sentences, scanner.open])
    return scanner


def _words(sentences: Iterable[Sentence]) -> Iterable[tuple[str, scan.Token]]:
    return ((plain(token.value), token) for each in sentences for token in each.tokens if token.kind == scan.WORD)


def _refuse_negated(sentences: Iterable[Sentence]) -> None:
    words = list(_words(sentences))
    for word, token in words[1:] if _stops_a_mission(words) else words:
        if word in _NEGATORS or word.endswith("n't"):
            raise Refused(
                UnclearReason.NEGATED,
                f"'{shown(token.value, 40)}' (character {token.start + 1}) says what not to do, so nothing is planned. "
                "Say only what is to be done; put the word in quotes if it is a name.",
            )


def _stops_a_mission(words: Sequence[tuple[str, scan.Token]]) -> bool:
    """Whether a message begins with "stop" and a mission's id: then the word is the wish, and turns nothing."""
    named = next((token.value for word, token in words[1:3] if word != "mission"), "")
    return bool(words) and words[0][0] == "stop" and _MISSION_ID.fullmatch(named) is not None


def _refuse_weakened(scanner: Scanner, nearest: tuple[str, ...] = ()) -> None:
    if scanner.asked:
        message = "A question is never taken as a request. Say what is to be done, without a question mark."
        raise Refused(UnclearReason.QUESTION, message, nearest)
    for word, token in _words(scanner.sentences):
        if word in _HEDGES:
            raise Refused(
                UnclearReason.HEDGED,
                f"'{shown(token.value, 40)}' (character {token.start + 1}) leaves open whether it is to be done, so "
                "nothing was planned. Say what is to be done; put the word in quotes if it is a name.",
                nearest,
            )


def _counting_tokens(sentence: Sentence) -> list[scan.Token]:
    """The sentence without articles and, at its edges, without courtesies."""
    tokens = sentence.tokens
    first, last = 0, len(tokens)
    while first < last and _is_edge(tokens[first]):
        first += 1
    while last > first and _is_edge(tokens[last - 1]):
        last -= 1
    following = [*tokens[first + 1 : last], None]
    kept = zip(tokens[first:last], following, strict=False)
    return [token for token, after in kept if not _is_article(token, after)]


def _is_edge(token: scan.Token) -> bool:
    return (
        token.value == "," if token.kind == scan.MARK else token.kind == scan.WORD and plain(token.value) in scan.NOISE
    )


def _is_article(token: scan.Token, after: scan.Token | None) -> bool:
    """Whether the word is an article; "move a to b" names a file "a", and so may "delete a b", which is refused."""
    if token.kind != scan.WORD or plain(token.value) not in _ARTICLES or after is None or after.kind == scan.MARK:
        return False
    word = plain(after.value) if after.kind == scan.WORD else ""
    return word in _NOUNS or (plain(token.value) == "the" and word not in _RESERVED and word != "executable")


def _check_bare_name(token: scan.Token) -> None:
    if not _BARE_NAME.fullmatch(token.value):
        raise Refused(
            UnclearReason.QUOTING,
            f"The name '{shown(token.value, 40)}' (character {token.start + 1}) holds more than letters, digits and "
            "/ . - _. Put it in quotes; patterns such as *.txt are not expanded, so name each file.",
        )


def _alone(meaning: Question | Control | Feedback, scanner: Scanner) -> Intent:
    if scanner.workspace is not None:
        message = "'in WORKSPACE:' goes before steps only. Send the sentence without it."
        raise Refused(UnclearReason.MIXED, message)
    if scanner.asked and not isinstance(meaning, Question | Feedback):
        _refuse_weakened(scanner)
    return meaning


def _proposal(text: str, scanner: Scanner, meanings: Iterable[object]) -> Proposal:
    _refuse_weakened(scanner)
    steps: Steps = ()
    for meaning in meanings:
        if not isinstance(meaning, tuple):
            message = "The message mixes steps with a question, a control word or feedback. Send them one by one."
            raise Refused(UnclearReason.MIXED, message)
        steps += meaning
        if len(steps) > MAX_STEPS:
            message = f"The message asks for more than {MAX_STEPS} steps. Split it into several missions."
            raise Refused(UnclearReason.TOO_MANY_STEPS, message)
    return Proposal(workspace=scanner.workspace, objective=_objective(text, scanner.sentences), steps=steps)


def _objective(text: str, sentences: Sequence[Sentence]) -> str:
    """The message on one line; where that is too long, as many whole sentences as fit."""
    whole = _folded(text)
    if len(whole) <= MAX_OBJECTIVE:
        return whole
    best = ""
    for sentence in sentences:
        candidate = _folded(text[: sentence.end]).rstrip(",; ")
        if len(candidate) > MAX_OBJECTIVE:
            break
        best = candidate
    return best or whole[: MAX_OBJECTIVE - 1].rsplit(" ", 1)[0] + "…"


def _folded(text: str) -> str:
    return safe_line(" ".join(text.split()))
