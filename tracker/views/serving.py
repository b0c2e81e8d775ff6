"""The served dashboard: a small HTTP server on this machine alone, which reads a store and writes nothing."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tracker.errors import RequestError, StoreError, unknown_value
from tracker.views.dashboard import render_page
from tracker.views.served_store import ServedStore

logger = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
IDLE_SECONDS = 15.0
"""A connection that says or takes nothing for so long is closed."""
MOST_CONNECTIONS = 64
"""Connections at a time: a page of a browser keeps at most six."""
Answer = tuple[str, bytes]


class DashboardServer:
    """Serves one store on 127.0.0.1 until it is closed.

    Args:
        store: what it shows.
        port: 0 takes any that is free; ``address`` says which.

    Raises:
        RequestError: the port is not available.
    """

    def __init__(self, store: ServedStore, port: int = 0) -> None:
        self.store = store
        handler = type("Handler", (_Handler,), {"store": store})
        try:
            self._http = _BoundedServer((LOOPBACK, port), handler)
        except OSError as error:
            raise RequestError(
                f"view.port={port}: not available on {LOOPBACK}: {error.strerror}; choose another, or 0 "
                "for any free port"
            ) from error
        self._stop = threading.Event()

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{LOOPBACK}:{self._http.server_port}/"

    def serve(self) -> None:
        """Follow the store and answer requests, until interrupted or closed from another thread."""
        follower = threading.Thread(target=self.store.follow, args=(self._stop,), daemon=True)
        follower.start()
        try:
            self._http.serve_forever(poll_interval=0.2)
        finally:
            self._stop.set()
            self._http.server_close()

    def close(self) -> None:
        """End ``serve`` in another thread."""
        self._http.shutdown()


class _BoundedServer(ThreadingHTTPServer):
    """Answers a bounded number of connections at a time, and waits for none of them when it ends."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; one connection too many is closed at once."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection ended in, in one line; a client that went away is nothing to log."""
        error = sys.exception()
        if not isinstance(error, OSError):
            logger.warning("a request of %s failed: %r", client_address[0], error)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of a few fixed paths, to this machine's own browser alone; other methods get 501."""

    store: ServedStore
    protocol_version = "HTTP/1.1"
    server_version = "tracker"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer one request, or say why not."""
        if not self._is_addressed():
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers to its own address only")
            return
        try:
            address = urlsplit(self.path)
        except ValueError as error:  # as of ``http://[::1``
            self._refuse(HTTPStatus.BAD_REQUEST, f"not an address: {error}")
            return
        answer = ROUTES.get(address.path)
        if answer is None:
            self._refuse(HTTPStatus.NOT_FOUND, "unknown path")
            return
        try:
            kind, body = answer(self.store, dict(parse_qsl(address.query)))
        except RequestError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (StoreError, OSError) as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _is_addressed(self) -> bool:
        """A page of another site that gives this machine's address a name of its own sends that name."""
        assert isinstance(self.server, ThreadingHTTPServer)
        port = self.server.server_port
        return self.headers.get("Host", "") in (f"{LOOPBACK}:{port}", f"localhost:{port}")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the page was closed meanwhile
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: the console is the user's."""


def _json(content: Mapping[str, Any]) -> Answer:
    return "application/json", json.dumps(content, allow_nan=False).encode()


def _page(store: ServedStore, asked: Mapping[str, str]) -> Answer:
    return "text/html; charset=utf-8", render_page(store.data(), served=True).encode()


def _shares(store: ServedStore, asked: Mapping[str, str]) -> Answer:
    of = asked.get("of", "spectrum")
    return _json(store.shares(asked.get("run", ""), of, _integer(asked, "layer"), _integer(asked, "head")))


def _integer(asked: Mapping[str, str], name: str) -> int | None:
    value = asked.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise unknown_value(name, value, "an integer from 0")
    return int(value)


ROUTES: dict[str, Callable[[ServedStore, Mapping[str, str]], Answer]] = {
    "/": _page,
    "/data": lambda store, asked: _json(store.data()),
    "/progress": lambda store, asked: _json(store.progress()),
    "/map": lambda store, asked: _json(store.head_map(asked.get("run", ""), asked.get("metric", ""))),
    "/spectrum": _shares,
}
"""Every path that there is: no path is ever a file's."""
