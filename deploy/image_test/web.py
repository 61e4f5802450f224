"""A far side, in a container of its own: `web.py PORT FILE` serves a page, takes posts, and notes each request."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = (
    b"<html><body><article><p>The figures of this year are better than those of the last.</p></article></body></html>"
)


class Noting(BaseHTTPRequestHandler):
    """Answers, and notes the method, the path and the idempotency key."""

    notes: Path

    def do_GET(self) -> None:
        """Give the page."""
        self._answer(200, PAGE)

    def do_POST(self) -> None:
        """Take a post."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(201, b"taken")

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(f"{self.command} {self.path} {self.headers.get('Idempotency-Key', '')}".rstrip() + "\n")
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Noting.notes = Path(sys.argv[2])
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Noting).serve_forever()  # noqa: S104 - a container's own
