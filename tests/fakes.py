"""What tests stand in for: the clock, the provider, and Redis with everything that lies on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import redis

from bff.audit import Audit
from bff.metrics import Metrics, NoMetrics
from bff.provider.renewal import Refreshed, RefreshResult, SameUser
from bff.request import RequestHead, TrustedProxies
from bff.sealing import Keyring
from bff.sessions.lifetime import Lifetime
from bff.sessions.reader import Asks, SessionReader
from bff.sessions.record import CORE, Codec, Meta, SessionRecord, digest, user_hash
from bff.sessions.store import SessionStore
from bff.tokens import TokenSet

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
ISSUER = "https://issuer.example"
SUBJECT = "subject-4711"
EMAIL = "alice@example.com"
PREFIX = "test:"
IDLE, ABSOLUTE = 1800.0, 28800.0


class FakeClock:
    """A clock that moves when it is told to. It starts now: Redis measures expiry by its own clock."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def head(
    *headers: tuple[str, str],
    method: str = "GET",
    path: bytes = b"/",
    query: bytes = b"",
    peer: str | None = "192.0.2.1",
) -> RequestHead:
    """A request's head; names and values are given as text and become Latin-1, as on the wire."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return RequestHead(method, path, query, raw, peer)


def audit(metrics: Metrics | None = None) -> Audit:
    """An audit log over plain http, which trusts no proxy."""
    return Audit(metrics or NoMetrics(), TrustedProxies(()), session_cookie="bff", attempt_prefix="bff-")


def token_set(
    clock: Callable[[], float], name: str = "1", *, lives: float | None = 300, **more: Any
) -> TokenSet:
    """Tokens with telling names, obtained now and living for so many seconds."""
    now = clock()
    values: dict[str, Any] = {
        "access_token": f"access-{name}",
        "refresh_token": f"refresh-{name}",
        "obtained_at": now,
        "expires_at": None if lives is None else now + lives,
    }
    return TokenSet(**(values | more))


def meta(clock: Callable[[], float]) -> Meta:
    """A session of our user that begins now."""
    now = clock()
    return Meta(created=now, auth_time=now, user=user_hash(ISSUER, SUBJECT))


@dataclass
class Backend:
    """One Redis, as both planes connect to it."""

    client: redis.Redis
    wire: Callable[[], Asks]
    replicated: bool = False


class FakeWire:
    """What the data plane asks, to the Redis in memory."""

    def __init__(self, server: fakeredis.FakeServer) -> None:
        self._client = fakeredis.FakeAsyncRedis(server=server)

    async def ask(self, *command: bytes | str | int) -> Any:
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def core(self, key: str) -> Any:
        return await self.ask(b"HMGET", key, *CORE)

    async def close(self) -> None:
        await self._client.aclose()


def fake_backend() -> Backend:
    """A Redis in memory, shared by both kinds of client."""
    server = fakeredis.FakeServer()
    return Backend(
        fakeredis.FakeStrictRedis(server=server),
        lambda: FakeWire(server),
    )


class Rig:
    """A store, and a reader for each question, on one Redis and one clock."""

    def __init__(self, backend: Backend, clock: FakeClock, keys: Sequence[bytes] = (KEY,)) -> None:
        self.backend = backend
        self.client = backend.client
        self.clock = clock
        self.codec = Codec(Keyring(keys), PREFIX)
        self.lifetime = Lifetime(IDLE, ABSOLUTE)
        self.store = SessionStore(
            backend.client, self.codec, self.lifetime, clock, replicated=backend.replicated
        )

    def with_keys(self, *keys: bytes) -> Rig:
        """The same Redis seen by a process with other keys."""
        return Rig(self.backend, self.clock, keys)

    def reader(self) -> SessionReader:
        """A data plane's reader; it belongs to the running event loop and must be closed there."""
        return SessionReader(self.backend.wire(), self.codec, self.lifetime, self.clock)

    def in_redis(self) -> list[bytes]:
        """What lies in Redis, but for the index and the notes of ends, which outlive sessions by design."""
        found = self.client.scan_iter("*")
        return [key for key in found if b"{user:" not in key and not key.endswith(b":ended")]

    def read(self, session: str) -> SessionRecord | None:
        """What the data plane sees of a session."""

        async def ask() -> SessionRecord | None:
            reader = self.reader()
            try:
                return await reader.load(session)
            finally:
                await reader.close()

        return asyncio.run(ask())

    def slide_if_due(self, record: SessionRecord) -> None:
        """The data plane's slide."""

        async def ask() -> None:
            reader = self.reader()
            try:
                if reader.slide_due(record):
                    await reader.slide(record)
            finally:
                await reader.close()

        asyncio.run(ask())

    def renew(self, record: SessionRecord, owner: str, seconds: float) -> None:
        """The data plane's way to keep a lease."""

        async def ask() -> None:
            reader = self.reader()
            try:
                await reader.renew(record.key, owner, seconds)
            finally:
                await reader.close()

        asyncio.run(ask())

    def begin(
        self, sid: str = "s" * 43, tokens: TokenSet | None = None, data: Mapping[str, Any] | None = None
    ) -> SessionRecord:
        """Begin a session under the digest of `sid`."""
        tokens = token_set(self.clock) if tokens is None else tokens
        return self.store.begin(digest(sid), meta(self.clock), tokens, data or {})


@dataclass
class FakeProvider:
    """A provider that remembers what it was asked; slow or failing on request. For many threads."""

    answer: Callable[[TokenSet, int], RefreshResult]
    """From the redeemed tokens and the number of the redeem to what comes of it."""
    delay: float = 0
    redeemed: list[str | None] = field(default_factory=list)
    revoked: list[TokenSet] = field(default_factory=list)
    discarded: list[TokenSet] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    same_user: SameUser | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.go_on.set()

    def refresh(
        self, tokens: TokenSet, same_user: SameUser, before: Callable[[], None] = lambda: None
    ) -> RefreshResult:
        """Redeem a refresh token, after the delay and once `go_on` is set."""
        before()
        with self._lock:
            self.redeemed.append(tokens.refresh_token)
            number = len(self.redeemed)
            self.same_user = same_user
        self.began.set()
        time.sleep(self.delay)
        assert self.go_on.wait(10)
        return self.answer(tokens, number)

    def revoke(self, tokens: TokenSet) -> None:
        """Note that these tokens were revoked."""
        self.revoked.append(tokens)

    def discard(self, tokens: TokenSet) -> None:
        """Note that these tokens, which nobody has held, were revoked."""
        self.discarded.append(tokens)


def renewing(clock: Callable[[], float], *, lives: float = 300) -> Callable[[TokenSet, int], RefreshResult]:
    """The answer of a provider that rotates: access-2, refresh-2, then 3, and so on."""
    return lambda _tokens, number: Refreshed(token_set(clock, str(number + 1), lives=lives))
