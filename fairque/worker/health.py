"""/healthz and /readyz for containers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Check = Callable[[], bool]


class HealthServer:
    """Answers 200 or 503 on `port` (0: any free one, see `port`), on all addresses, from a daemon thread."""

    def __init__(self, port: int, is_healthy: Check, is_ready: Check) -> None:
        checks = {"/healthz": is_healthy, "/readyz": is_ready}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                check = checks.get(self.path.partition("?")[0])
                if check is None:
                    self.send_error(404, "there are /healthz and /readyz")
                    return
                good = check()
                body = json.dumps({"ok": good}).encode()
                self.send_response(200 if good else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
                """Probes are no news."""

        self._wanted = port
        self._handler = Handler
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the start."""
        return int(self._server.server_address[1]) if self._server else 0

    def start(self) -> None:
        """Listen. Raises OSError: the port is taken."""
        self._server = ThreadingHTTPServer(("", self._wanted), self._handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="fairque-health", daemon=True
        ).start()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
