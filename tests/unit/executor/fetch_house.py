"""What reaches the hostile server: a trust file that allows it, an exchange, an index of what was kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from executor.domain.plan import Action, FetchUrl, HttpHeader, HttpRequest, NetworkAccess, Scope
from executor.domain.policy import Trust
from executor.domain.report import FetchEvidence
from executor.outside.bodies import Bodies
from executor.outside.exchange import Exchange
from executor.outside.far_sides import OutsideWorld
from executor.outside.fetching import Fetcher
from executor.outside.requests import Requests
from executor.outside.worker import Confinement
from executor.runner.outside import Setting
from executor.workspace.objects import Batch, ObjectStore
from tests.unit.executor.outside_house import OutsideHouse, outside_house

LOOPBACK = 'private_addresses = ["127.0.0.0/8"]'
DOMAINS = 'domains = ["ok.test", "*.ok.test", "127.0.0.1"]\n'


@dataclass(kw_only=True)
class FetchHouse:
    """Reaches a server on loopback by the name ok.test."""

    base: OutsideHouse
    world: OutsideWorld
    objects: ObjectStore
    bodies: Bodies
    batch: Batch

    def setting(self, action: Action, *, execution_id: str = "", pages: int = 1, **scope: object) -> Setting:
        """The setting of a plan whose scope names the same hosts."""
        found = self.base.setting(action, execution_id=execution_id)
        wide = Scope(
            paths=(),
            domains=("ok.test", "*.ok.test", "127.0.0.1"),
            network=NetworkAccess.LISTED_DOMAINS,
            max_pages=pages,
            max_duration_seconds=20,
            max_bytes=None,
        )
        return replace(found, plan=replace(found.plan, scope=replace(wide, **scope)))  # type: ignore[arg-type]  # a scope's own fields

    def fetch(
        self, url: str, *, head: bool = False, text: bool = False, most: int | None = None, **how: object
    ) -> FetchEvidence:
        """Read a page in a dry run."""
        action = FetchUrl(url=url, head=head, extract_text=text, max_bytes=most)
        return self.world.fetch(action, self.setting(action, **how), self.batch)  # type: ignore[arg-type]  # as setting takes them

    def content(self, digest: str) -> bytes:
        """What was kept."""
        return self.batch.read(digest, 0, 1 << 30)


@contextmanager
def fetch_house(
    folder: Path, *, network: str = LOOPBACK, domains: str = DOMAINS, confined: bool = False
) -> Iterator[FetchHouse]:
    """Open a house; every name has the address of loopback there."""
    with outside_house(folder, f"[network]\n{network}\n", domains=domains) as base:
        objects = ObjectStore(folder / "objects", lambda _digest: None)
        bodies = Bodies(folder / "bodies.db", lambda: ())
        confinement: Confinement | None = base.confinement if confined else None
        exchange = Exchange(confinement=confinement)

        def trust() -> Trust:
            return base.trust.last().trust

        def lookup(_host: str, _port: int) -> Sequence[str]:
            return ("127.0.0.1",)

        fetcher = Fetcher(trust=trust, exchange=exchange, bodies=bodies, lookup=lookup)
        requests = Requests(trust=trust, exchange=exchange, secret=base.secrets.for_step, lookup=lookup)
        world = OutsideWorld(fetching=fetcher, searching=bodies, handlers={HttpRequest: requests})
        try:
            yield FetchHouse(
                base=base,
                world=world,
                objects=objects,
                bodies=bodies,
                batch=objects.batch(base.secrets.redactor),
            )
        finally:
            bodies.close()


def post(
    url: str, *headers: tuple[str, str], content: bytes | None = b"{}", key: str = "", **more: object
) -> HttpRequest:
    """A request with effects."""
    found = HttpRequest(
        method="POST",
        url=url,
        headers=tuple(HttpHeader(name=name, value=value) for name, value in headers),
        content=content,
        success_codes=(),
        idempotency_header=key,
    )
    return replace(found, **more)  # type: ignore[arg-type]  # a request's own fields
