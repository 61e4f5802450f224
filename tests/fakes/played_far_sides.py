"""Far sides that are played: what becomes of a request stands in its address, and what really happened is counted.

The last part of an address is a word, one letter for each time that the step is begun:

    D    it happens
    N    it does not happen, and that is certain
    F    it happens, and the far side says that it is not well
    U    it happens, and the answer is lost
    V    it does not happen, and the answer is lost
    X    it happens, and whoever asked breaks off with an error that nobody foresaw
    H    nothing comes back until somebody has it go on; then it happens. Cancelled meanwhile, it does not
    I    it happens, and nothing comes back until somebody has it go on. Cancelled meanwhile, the answer is lost

The last letter counts for all times after it.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from executor.domain.errors import ExecutorError, Fault
from executor.domain.plan import FetchUrl, HttpRequest, Live, SearchBodies
from executor.domain.receipt import EffectState
from executor.domain.report import FetchEvidence, LiveEvidence, SearchEvidence
from executor.runner.control_ports import EffectEntry
from executor.runner.outside import Declared, Performed, Setting
from executor.workspace.objects import Batch
from gonogo.digests import framed_digest
from tests.fakes.mortal_executor import Life

HOST: Final = "far.example"
LETTERS: Final = "DNFUVXHI"
LOOK_SECONDS: Final = 0.001
NOT_SIMULATED: Final = "it has an effect outside of the workspace"


def address(name: str, word: str) -> str:
    """Return an address at which a word is played."""
    return f"https://{HOST}/{name}/{word}"


class PlayedFarSides:
    """The port `executor.runner.outside.FarSides`. It outlives executors, as the world does."""

    def __init__(self) -> None:
        self.life = Life()
        self.rows: Callable[[str], Iterable[EffectEntry]] = lambda _execution: ()
        """Reads the effects of an execution from the ledger."""
        self.asked: Counter[str] = Counter()
        """How often each idempotency key was asked for."""
        self.happened: Counter[str] = Counter()
        """How often it really happened."""
        self.unclaimed: list[str] = []
        """Keys that were asked for without a row that said so before."""
        self.hanging: dict[str, str] = {}
        """Keys whose answer is waited for, and the executions that wait."""
        self._released: set[str] = set()
        self._lock = threading.Lock()

    def release(self) -> None:
        """Have everything go on that hangs now."""
        self._released |= set(self.hanging)

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        """Nobody fetches here."""
        raise NotImplementedError

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        """Nobody searches here."""
        raise NotImplementedError

    def declare(self, action: Live, setting: Setting) -> Declared:
        """Say what a request will do."""
        del setting
        request = _request(action)
        digest = framed_digest((request.method.encode(), request.url.encode()))
        evidence = LiveEvidence(target=request.url, digest=digest, not_simulated=NOT_SIMULATED)
        return Declared(evidence=evidence, not_simulated=NOT_SIMULATED, digest=digest)

    def perform(self, action: Live, expected: Declared, setting: Setting, key: str) -> Performed:
        """Play the request's letter."""
        del expected
        open_rows = [row for row in self.rows(setting.execution_id) if row.settled_at is None]
        if not any(row.claim.idempotency_key == key for row in open_rows):
            self.unclaimed.append(key)
        with self._lock:
            number = self.asked[key]
            self.asked[key] += 1
        word = _request(action).url.rpartition("/")[2]
        return self._played(word[min(number, len(word) - 1)], setting, key)

    def _played(self, letter: str, setting: Setting, key: str) -> Performed:
        if letter == "H" and not self._goes_on(setting, key):
            return _performed(EffectState.NOT_DONE, "it was not sent")
        if letter in "NV":
            self.life.act(lambda: None)
        else:
            self.life.act(lambda: self.happened.update([key]))
        if letter == "I" and not self._goes_on(setting, key):
            return _performed(EffectState.UNKNOWN, "no answer came")
        if letter == "X":
            raise ExecutorError("TOOL_FAILED", "the connection broke", "look at the far side")
        if letter in "UV":
            return _performed(EffectState.UNKNOWN, "no answer came")
        if letter == "N":
            return _performed(EffectState.NOT_DONE, "it was refused")
        if letter == "F":
            fault = Fault(reason="HTTP_STATUS", message="it answered 500", remedy="look at it", paths=())
            return Performed(state=EffectState.DONE, summary="500", fault=fault)
        return Performed(state=EffectState.DONE, summary="200")

    def _goes_on(self, setting: Setting, key: str) -> bool:
        """Wait until somebody has it go on; False where it is cancelled meanwhile."""
        self._released.discard(key)
        self.hanging[key] = setting.execution_id
        try:
            while key not in self._released:
                self.life.check()
                if setting.cancel.requested:
                    return False
                time.sleep(LOOK_SECONDS)
            return True
        finally:
            del self.hanging[key]


def _request(action: Live) -> HttpRequest:
    if not isinstance(action, HttpRequest):
        raise TypeError(action)
    return action


def _performed(state: EffectState, summary: str) -> Performed:
    fault = Fault(reason="EFFECT_FAILED", message=summary, remedy="look at the far side", paths=())
    return Performed(state=state, summary=summary, fault=fault)
