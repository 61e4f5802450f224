"""A far side on a socket of this machine that counts what it was asked for, by idempotency key, and sometimes hangs."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "Idempotency-Key"


class CountingServer:
    """What happened: each request that arrived whole is counted before it is answered."""

    def __init__(self) -> None:
        self.happened: Counter[str] = Counter()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            """Takes requests; the path says for how many milliseconds nothing comes back."""

            def do_POST(self) -> None:
                """Count a request, and answer it after a while."""
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                with server._lock:
                    server.happened[self.headers[KEY] or ""] += 1
                time.sleep(int(self.path.rpartition("/")[2]) / 1000)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            """Whoever was killed while it waited for an answer is no news."""

            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def address(self, milliseconds: int) -> str:
        """Return where a request is answered after so long."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/answered-after/{milliseconds}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def counting_server() -> Iterator[CountingServer]:
    """Run one."""
    server = CountingServer()
    try:
        yield server
    finally:
        server.close()
