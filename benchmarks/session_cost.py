"""What a session costs: bytes in Redis beyond its tokens', and Redis commands for each request.

    python -m benchmarks.session_cost

Needs redis-server. The tokens are as long as Cognito's: an access token of 1,100 bytes, a refresh token of
1,800.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import redis

from bff.sealing import Keyring
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import WHO, Codec, Meta, digest, new_sid, sid_name, user_hash
from bff.sessions.store import SessionStore
from bff.tokens import TokenSet
from tests.support.browser import CSRF, Browser
from tests.support.stack import Stack, running, store

CLAIMS = [
    {"type": "sub", "value": "2f6d1a80-5c1e-4b7a-9a53-6f0c3e8d1b01"},
    {"type": "cognito:groups", "value": "readers"},
    {"type": "email", "value": "alice@example.com"},
    {"type": "email_verified", "value": True},
    {"type": "name", "value": "Alice Reader"},
    {"type": "cognito:username", "value": "2f6d1a80-5c1e-4b7a-9a53-6f0c3e8d1b01"},
    {"type": "auth_time", "value": 1795590503},
]
WHOM = {
    "claims": CLAIMS,
    "hint": "alice@example.com",
    "browser": "Firefox on Linux",
    "address": "192.0.2.7",
}


def begin(sessions: SessionStore, count: int, tokens: TokenSet, *, sid: bool) -> None:
    """So many sessions, each of another user; `sid`: each in another session of the provider."""
    now, keyring = sessions.clock(), sessions.codec.keyring
    for _ in range(count):
        user = user_hash("https://issuer.example", secrets.token_hex(8))
        named = keyring.fingerprints("provider sid", secrets.token_bytes(16))[0]
        sids = (sid_name(named),) if sid else ()
        sessions.begin(digest(new_sid()), Meta(now, now, user, sids), tokens, {WHO: WHOM})


def memory(client: redis.Redis, sessions: SessionStore, *, sid: bool, count: int = 4000) -> None:
    """Bytes of Redis memory for a session, its index entries included."""
    access, refresh = secrets.token_urlsafe(825), secrets.token_urlsafe(1350)
    now = sessions.clock()
    tokens = TokenSet(access_token=access, refresh_token=refresh, obtained_at=now, expires_at=now + 300)
    begin(sessions, 96, tokens, sid=sid)  # what a Redis costs that runs scripts at all
    before = client.info("memory")["used_memory"]
    begin(sessions, count, tokens, sid=sid)
    used = (client.info("memory")["used_memory"] - before) / count
    held, kind = len(access + refresh), "with" if sid else "without"
    print(f"memory for a session {kind} a sid: {used:.0f} bytes; its tokens {held}, beyond {used - held:.0f}")


def commands(client: redis.Redis, ask: Callable[[], object], count: int = 100) -> float:
    """Redis commands for one of these requests."""
    ask()
    before = client.info("stats")["total_commands_processed"]
    for _ in range(count):
        ask()
    asked: int = client.info("stats")["total_commands_processed"] - before - 1
    return asked / count


def requests(stack: Stack, client: redis.Redis) -> None:
    """Redis commands for requests of each kind."""
    browser: Browser = stack.sign_in(stack.browser())
    visitor = stack.browser()
    kinds: dict[str, Callable[[], object]] = {
        "proxied, signed in": lambda: browser.api("/weather"),
        "/bff/user, signed in": lambda: browser.api("/bff/user"),
        "/bff/user?slide=false, signed in": lambda: browser.api("/bff/user?slide=false"),
        "proxied, no cookie": lambda: visitor.api("/weather"),
        "the page": lambda: browser.get("/"),
        "a static file": lambda: browser.get("/static/bff.js"),
        "/bff/login": lambda: visitor.get("/bff/login", CSRF),
    }
    for kind, ask in kinds.items():
        print(f"Redis commands for {kind}: {commands(client, ask):.2f}")


def main() -> None:
    """Measure both on a Redis of their own."""
    codec = Codec(Keyring([secrets.token_bytes(32)]), "bff:")
    for sid in (False, True):
        with store() as own:
            client = own.client()
            memory(client, SessionStore(client, codec, Lifetime(1800, 28800), time.time), sid=sid)
    with store() as own:
        client = own.client()
        with running(own) as stack:
            requests(stack, client)


if __name__ == "__main__":
    main()
