"""The production server: gunicorn as arbiter, uvicorn's worker (uvloop, httptools), and the checks on the
raw bytes of a request that uvicorn leaves out."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn_worker import UvicornWorker

from bff.answers import CommonHeaders, error_answer
from bff.dataplane import CONNECTION, ASGIApp
from bff.errors import BadRequest, HeadersTooLarge, PublicError

KEEP_ALIVE_SECONDS = 75
"""Longer than what common proxies in front keep a connection: they, not we, close it first."""
GRACEFUL_SECONDS = 30
DEFAULT_HEADER_BYTES = 65_536
HEAD_SECONDS = 30.0
"""How long a request's head may take, from the first connection on, however its bytes come."""
BODY_PAUSE_SECONDS = 60.0
"""The longest pause in a request's body, while we are ready to read it."""
UNASKED_SECONDS = 30.0
UNASKED_BYTES = 1_048_576
"""For how long, and how much, may still come of a request body after its answer: enough for the answer to
be heard first."""
_MEMORY = Path("/dev/shm")  # noqa: S108  the workers' heartbeat file must not wait for a disk

_TARGET = re.compile(rb"/[\x21-\x22\x24-\x7e]*\Z")  # origin-form, visible ASCII, no fragment

log = structlog.get_logger("bff.server")


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 connection with a limit on heads and one meaning for each target.

    Refuses with 400 or 431 and closes: absolute-form targets and fragments (hidden from applications by
    the server), a missing or doubled Host, and heads over the limit (which the parser does not have).
    Ends connections whose client owes us bytes for too long: anybody can open some and say nothing.
    """

    max_header_bytes = DEFAULT_HEADER_BYTES
    head_seconds = HEAD_SECONDS
    body_pause_seconds = BODY_PAUSE_SECONDS
    unasked_seconds = UNASKED_SECONDS
    common = CommonHeaders(secure=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lost = False
        self.on_lost: Callable[[], object] | None = None
        self._in_head = True
        self._fed = 0  # bytes given to the parser since the head began, or since the last piece of a body
        self._head_bytes = 0  # bytes of the head that the parser has reported
        self._unasked = 0  # bytes of a body whose request has been answered
        self._refusal: PublicError | None = None
        self._owed_until = math.inf  # when the client must have sent what it has begun
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._owe(self.head_seconds)
        self._check_owed()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # refused before
            return
        self._fed += len(data)
        super().data_received(data)
        if self._in_head and self._owed_until == math.inf and self._idle():
            self._owe(self.head_seconds)  # a blank line begins no message, and stops the keep-alive timer
        if self._fed > self.max_header_bytes:  # a head, a trailer or a chunk extension without end
            self._refusal = HeadersTooLarge("The request's headers are too large.")
        if self._refusal is not None:
            self._refuse(self._refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        self._in_head = True
        self._owe(self.head_seconds)
        self._fed = self._head_bytes = self._unasked = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers come the same way, and are dropped
            self._head_bytes += len(name) + len(value) + 4
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._owe(self.body_pause_seconds)
        self._refusal = self._refusal or self._judge_head()
        if self._refusal is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        if self._refusal is not None:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._unasked += len(body)
            if self._unasked > UNASKED_BYTES:  # a body without end must not be read for ever
                self.transport.close()
        else:
            self._owe(self.body_pause_seconds)

    def on_message_complete(self) -> None:
        self._owe(math.inf)
        if self._refusal is None:
            super().on_message_complete()
        self._in_head, self._fed = True, 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self._owed_until != math.inf:
            self._owe(self.unasked_seconds)

    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _owe(self, seconds: float) -> None:
        self._owed_until = self.loop.time() + seconds

    def _check_owed(self) -> None:
        """One timer for each connection, not for each request: it looks now and then whether time is up."""
        now = self.loop.time()
        if self.flow.read_paused and self._owed_until < math.inf:  # it is we who do not read
            self._owe(self.body_pause_seconds)
        if now < self._owed_until:
            self._watch = self.loop.call_at(min(self._owed_until, now + self.head_seconds), self._check_owed)
            return
        if self._fed or not self._in_head:
            log.info("request_overdue", reason="the client has not sent what it began")
        self.transport.abort()

    def send_400_response(self, _message: str) -> None:
        """What the parser refuses: smuggling attempts, mostly."""
        self._refusal = BadRequest("The request is not HTTP/1.1 as it should be.")

    def _judge_head(self) -> PublicError | None:
        if self._head_bytes > self.max_header_bytes:
            return HeadersTooLarge("The request's headers are too large.")
        if not _TARGET.match(self.url):
            return BadRequest("The request target must be a path on this server.")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return BadRequest("The request must be HTTP/1.1.")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and version != "1.0"):
            return BadRequest("The request must name one Host.")  # RFC 9112 §3.2
        return self._judge_framing()

    def _judge_framing(self) -> PublicError | None:
        """Refuse what the parser refuses only when the application has begun, or reads in another way."""
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            return BadRequest("The body must be sent as it is or in chunks.")  # RFC 9112 §6.1
        sized = any(name == b"content-length" for name, _ in self.headers)
        if self.parser.should_upgrade() and (codings or sized):
            # The parser takes such a body for another protocol: the next request could hide in it.
            return BadRequest("A request for another protocol cannot have a body here.")
        return None

    def _refuse(self, error: PublicError) -> None:
        """Answer and close; where another answer is under way on the connection, only close."""
        log.info("request_refused", code=error.code, status=error.status, reason=error.detail)
        if not self._may_answer():
            self.transport.abort()
            return
        answer = error_answer(error, None)
        lines = [STATUS_LINE[answer.status]]
        for name, value in self.common.add(answer.headers, ours=False):
            lines.append(name + b": " + value + b"\r\n")
        self.transport.write(b"".join(lines) + b"connection: close\r\n\r\n" + answer.body)
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether what is written now answers the request that is refused; if so, nobody else answers it."""
        cycle: Any = self.cycle
        if self._idle():
            return True
        if self._in_head or self.pipeline or cycle.response_started:
            return False  # the cycle is an earlier request's, or waits behind one, or has begun to answer
        cycle.disconnected = True  # the application has begun, on a body that turned out to be broken
        cycle.message_event.set()
        return True


class Worker(UvicornWorker):
    """One process of the server."""

    CONFIG_KWARGS = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,  # X-Forwarded-* is judged by us, from configured peers only
        "server_header": False,
        "date_header": False,  # an upstream's Date passes; ours is added where there is none
        "access_log": False,
        "timeout_graceful_shutdown": GRACEFUL_SECONDS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
            logger.setLevel(logging.WARNING)

    async def callback_notify(self) -> None:
        """Now and then: end with the arbiter, or a restarted one would find the address in use."""
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)
        await super().callback_notify()


class _PlainLogger(Logger):
    """Gunicorn's messages go where all others go."""

    def setup(self, _cfg: Any) -> None:
        self.error_log.handlers, self.error_log.propagate = [], True
        self.access_log.handlers, self.access_log.propagate = [], True
        self.error_log.setLevel(logging.WARNING)


class _Application(BaseApplication):
    def __init__(self, factory: Callable[[], ASGIApp], options: dict[str, Any]) -> None:
        self._factory = factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        return self._factory()


def serve(
    factory: Callable[[], ASGIApp],
    *,
    name: str,
    bind: str,
    workers: int,
    max_header_bytes: int = DEFAULT_HEADER_BYTES,
    secure: bool = False,
) -> None:
    """Serve until a signal comes. `factory` is called in each worker process, after the fork.

    Raises OSError, before anything is started, where the address cannot be listened on.
    """
    _probe(bind)
    Protocol.max_header_bytes = max_header_bytes
    Protocol.common = CommonHeaders(secure=secure)
    log.info("starting", server=name, address=bind, workers=workers)
    options = {
        "bind": [bind],
        "workers": workers,
        "worker_class": Worker,
        "logger_class": _PlainLogger,
        "keepalive": KEEP_ALIVE_SECONDS,
        "graceful_timeout": GRACEFUL_SECONDS + 5,
        "proc_name": name,
        "control_socket_disable": True,
        "worker_tmp_dir": str(_MEMORY) if _MEMORY.is_dir() else None,
    }
    _Application(factory, options).run()


def _probe(bind: str) -> None:
    """Gunicorn would try an address in use for seconds and then fail with a stack trace."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))
