"""Searching the texts of pages that were kept."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.wire import WireDocuments
from executor.domain.errors import StepFailedError
from executor.domain.plan import FetchUrl, SearchBodies, Stage
from executor.domain.policy import Limits
from executor.domain.report import Excerpt, FetchEvidence, SearchEvidence, SearchMatch, StepReport
from executor.outside.bodies import Bodies, Page
from executor.outside.kept_pages import kept_pages
from executor.runner.outside import Setting
from executor.runner.retention import Retention
from executor.workspace.objects import ObjectStore
from gonogo import sealing
from gonogo.digests import digest
from tests.conformance.ledger_values import report, request, sealed
from tests.unit.executor.fetch_house import FetchHouse, fetch_house
from tests.unit.executor.hostile_server import hostile_server
from tests.unit.executor.outside_house import TOKEN


def page(url: str, text: bytes, *, workspace_id: str = "site") -> tuple[Page, bytes]:
    """A page and its text."""
    return Page(workspace_id=workspace_id, url=url, digest=digest(text)), text


PAGES = (
    page("http://ok.test/cats", b"The tabby sleeps.\nCats and dogs do not agree."),
    page("http://ok.test/dogs", b"Dogs bark at the postman, and at cats."),
    page("http://ok.test/unicode", "Ein Kätzchen schläft.".encode()),
    page("http://ok.test/theirs", b"cats of another workspace", workspace_id="shop"),
)


@pytest.fixture
def bodies(tmp_path: Path) -> Iterator[Bodies]:
    """An index with some pages."""
    index = Bodies(tmp_path / "bodies.db", lambda: ())
    for one, text in PAGES:
        index.keep(one, text)
    yield index
    index.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[FetchHouse]:
    """Gives settings."""
    (tmp_path / "house").mkdir()
    with fetch_house(tmp_path / "house") as found:
        yield found


def setting(house: FetchHouse) -> Setting:
    """That of a step that reads."""
    return house.setting(FetchUrl(url="http://ok.test/", head=False, extract_text=False, max_bytes=None))


def search(bodies: Bodies, house: FetchHouse, query: str, limit: int = 20) -> SearchEvidence:
    """Search as a step does."""
    return bodies.search(SearchBodies(query=query, limit=limit), setting(house))


def urls(found: SearchEvidence) -> set[str]:
    """Which pages were found, by the end of their address."""
    return {match.path.rpartition("/")[2] for match in found.matches}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cats", {"cats", "dogs"}),
        ("tabby", {"cats"}),
        ("cats AND postman", {"dogs"}),
        ("cats NOT postman", {"cats"}),
        ("tabby OR postman", {"cats", "dogs"}),
        ('"dogs bark"', {"dogs"}),
        ("katzch*", {"unicode"}),
        ("CATS", {"cats", "dogs"}),
        ("elephant", set()),
    ],
)
def test_words_find_pages(bodies: Bodies, house: FetchHouse, query: str, expected: set[str]) -> None:
    """Words, phrases, AND, OR, NOT and prefixes find the workspace's own pages, and nobody else's."""
    found = search(bodies, house, query)
    assert urls(found) == expected
    assert found.count == len(expected)


def test_what_a_match_tells(bodies: Bodies, house: FetchHouse) -> None:
    """A match is the page's address and the words around what was found."""
    assert search(bodies, house, "tabby") == SearchEvidence(
        count=1,
        matches=(
            SearchMatch(path="http://ok.test/cats", line=0, text="The tabby sleeps.\nCats and dogs do not agree."),
        ),
        digest=search(bodies, house, "sleeps").digest,
    )


def test_all_are_counted_and_some_are_shown(bodies: Bodies, house: FetchHouse) -> None:
    """Count and digest are of all pages, whatever the limit is."""
    one, all_of_them = search(bodies, house, "cats", 1), search(bodies, house, "cats", 1000)
    assert (len(one.matches), one.count, one.digest) == (1, 2, all_of_them.digest)
    assert len(search(bodies, house, "cats", 0).matches) == 2


@pytest.mark.parametrize(
    "query",
    [
        *("", " ", '"', "AND", "cats AND", "(", "cats)", "nosuch: cats", "cats'; DROP TABLE pages; --", "* cats", "^"),
        *("NEAR(cats", "{text} : ", "a\0b", "x" * 5000, "?1", "cats\\", ":x", "@x", "cats; SELECT 1"),
    ],
)
def test_queries_that_are_none(bodies: Bodies, house: FetchHouse, query: str) -> None:
    """What is no query fails the step, and is never a statement: everything is found as before."""
    with pytest.raises(StepFailedError) as caught:
        search(bodies, house, query)
    assert caught.value.fault.reason == "PLAN_INVALID"
    assert search(bodies, house, "cats").count == 2


def test_the_same_page_twice(bodies: Bodies, house: FetchHouse) -> None:
    """A page that is read again is found once; one whose content changed, with each content that is kept."""
    bodies.keep(*PAGES[0])
    assert search(bodies, house, "tabby").count == 1
    bodies.keep(*page("http://ok.test/cats", b"The tabby is awake now."))
    assert search(bodies, house, "tabby").count == 2


def test_forgetting(bodies: Bodies, house: FetchHouse) -> None:
    """A page whose object went is not found any more, and nothing of its text is left to be found."""
    bodies.forget([PAGES[0][0].digest, digest(b"unknown")])
    assert urls(search(bodies, house, "cats OR tabby")) == {"dogs"}
    assert PAGES[0][0].digest not in bodies.digests_before(time.time() + 60)
    assert bodies.digests_before(time.time() - 60) == ()


def test_secrets_are_not_told(bodies: Bodies, house: FetchHouse) -> None:
    """A text that was kept before a secret was known is told without it."""
    bodies.keep(*page("http://ok.test/leak", f"the token is {TOKEN} indeed".encode()))
    (match,) = search(bodies, house, "token").matches
    assert TOKEN not in match.text
    assert "indeed" in match.text


@pytest.mark.parametrize("damage", [b"", b"this is no database at all, and long enough to be read as one" * 100])
def test_a_lost_index_is_filled_again(tmp_path: Path, house: FetchHouse, damage: bytes) -> None:
    """An index that is missing or damaged is made anew from what is kept, before the next search."""
    path = tmp_path / "lost.db"
    path.write_bytes(damage)
    asked = 0

    def kept() -> Iterable[tuple[Page, bytes]]:
        nonlocal asked
        asked += 1
        return PAGES

    index = Bodies(path, kept)
    index.keep(*PAGES[0])
    assert urls(search(index, house, "cats")) == {"cats", "dogs"}
    assert urls(search(index, house, "tabby")) == {"cats"}
    index.close()
    again = Bodies(path, kept)
    assert search(again, house, "cats").count == 2
    assert asked == 1
    again.close()


def test_damage_behind_the_beginning(tmp_path: Path, house: FetchHouse) -> None:
    """An index whose damage only a search comes upon is filled again then, and the search answered."""
    path = tmp_path / "damaged.db"
    index = Bodies(path, lambda: PAGES)
    assert search(index, house, "cats").count == 2
    index.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    index = Bodies(path, lambda: PAGES)
    assert search(index, house, "cats").count == 2
    index.close()


def test_many_at_once(bodies: Bodies, house: FetchHouse) -> None:
    """Threads keep and search side by side."""

    def work(number: int) -> None:
        for turn in range(20):
            bodies.keep(*page(f"http://ok.test/{number}-{turn}", f"common word {number} {turn}".encode()))
            search(bodies, house, "common")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert search(bodies, house, "common").count == 80


def test_fetched_pages_are_found(house: FetchHouse) -> None:
    """A text body is found as it is, a page by its extracted text where the step asks for that, others not."""
    with hostile_server() as server:
        base = f"http://ok.test:{server.port}"
        house.fetch(f"{base}/text")
        house.fetch(f"{base}/page")
        assert search(house.bodies, house, "dogs").count == 1
        assert search(house.bodies, house, "tabby").count == 0
        house.fetch(f"{base}/page", text=True)
        house.fetch(f"{base}/binary", text=True)
        assert [match.path for match in search(house.bodies, house, "tabby").matches] == [f"{base}/page"]


def test_filled_from_reports(tmp_path: Path) -> None:
    """The ledger's reports say which pages were kept for whom; what is gone by now is left out."""
    texts = {digest(text): text for text in ("Käse".encode("latin-1"), b"extracted words")}
    body, text = texts
    evidence = FetchEvidence(
        url="http://ok.test/a",
        fetched=True,
        status_code=200,
        content_type="text/plain; charset=latin-1",
        digest=body,
        size=4,
        preview=Excerpt(head="x", tail="", total_bytes=1, digest=body, truncated=False),
    )
    found = (
        evidence,
        replace(evidence, text_digest=text),
        replace(evidence, digest=digest(b"gone")),
        replace(evidence, preview=None),
        FetchEvidence(url="http://ok.test/b", fetched=False),
    )
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        for number, one in enumerate((report(), report(steps=tuple(map(_step, range(len(found)), found))))):
            document = sealed(sealing.REPORT, WireDocuments().seal_report(one))
            asked = request(f"q-{number}", document.digest)
            ledger.issue_report(one, document, request=asked, small_objects=texts)
        got = list(kept_pages(ledger, WireDocuments(), ObjectStore(tmp_path / "objects", ledger.small_object)))
    page_of = Page(workspace_id="site", url=evidence.url, digest=body)
    assert got == [(page_of, "Käse".encode()), (replace(page_of, digest=text), texts[text])]


def test_retention_takes_texts_along(tmp_path: Path, bodies: Bodies, house: FetchHouse) -> None:
    """What is let go of is not found any more, nor what a dry run kept that came to nothing."""
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        evidence = FetchEvidence(url=PAGES[0][0].url, fetched=True, digest=PAGES[0][0].digest, size=1)
        one = report(steps=(_step(0, evidence),), completed_at=datetime.now(UTC))
        document = sealed(sealing.REPORT, WireDocuments().seal_report(one))
        texts = {PAGES[0][0].digest: PAGES[0][1]}
        ledger.issue_report(one, document, request=request("q-1", document.digest), small_objects=texts)

        def sweep(later: timedelta, young: timedelta) -> set[str]:
            Retention(
                records=ledger,
                objects=ObjectStore(tmp_path / "objects", ledger.small_object),
                workspaces={},
                limits=Limits,
                now=lambda: datetime.now(UTC) + later,
                young=young,
                texts=bodies,
            ).sweep()
            return urls(search(bodies, house, "cats"))

        assert sweep(timedelta(), timedelta(hours=1)) == {"cats", "dogs"}
        assert sweep(timedelta(), timedelta(seconds=-1)) == {"cats"}
        assert sweep(timedelta(days=8), timedelta(hours=1)) == set()


def _step(number: int, evidence: FetchEvidence) -> StepReport:
    return StepReport(
        step_id=f"s{number}",
        kind="fetch_url",
        stage=Stage.RETRIEVE,
        success=True,
        changes=(),
        evidence=evidence,
        duration_ms=1,
    )
