"""A server, and a scope and a trust file that open a network to it."""

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest

from executor.domain.plan import NetworkAccess, Scope
from executor.domain.policy import Limits, Network, Trust
from gonogo.policy import Policy

HOSTS: Final = {"listed.test": "127.0.0.1", "inner.test": "10.0.0.7", "unlisted.test": "127.0.0.1"}


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(f"{self.command} {self.path} {self.headers['Host']}\n".encode())

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[int]:
    """A server on the machine's own loopback; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found.server_address[1]
        found.shutdown()
        thread.join()


def a_scope(domains: tuple[str, ...] = (), *, seconds: int = 30) -> Scope:
    return Scope(
        paths=(),
        domains=domains,
        network=NetworkAccess.LISTED_DOMAINS if domains else NetworkAccess.NONE,
        max_pages=1,
        max_duration_seconds=seconds,
        max_bytes=None,
        min_ladder_level=None,
    )


def a_trust(*, domains: tuple[str, ...] = (), private: tuple[str, ...] = ()) -> Trust:
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    policy = Policy(
        executor_id="executor-test",
        trust_version=1,
        expires_at=expires_at,
        approvals_required=1,
        self_approval=True,
        max_approval_seconds=3600,
        persons=(),
    )
    return Trust(
        executor_id="executor-test",
        version=1,
        expires_at=expires_at,
        orchestrators=(),
        limits=Limits(),
        policy=policy,
        domains=domains,
        network=Network(private_addresses=private),
    )
