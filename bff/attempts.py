"""Sign-in attempts: each lives in a sealed, short-lived cookie of its own, outside Redis.

So parallel tabs do not overwrite each other, and anonymous visitors cost the store nothing. The cookie is
named after its `state`, which the provider brings back; what is inside is bound to that name by the seal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bff.sealing import Keyring, NotAuthentic, UnknownKey
from bff.tokens import Clock

LIFETIME_SECONDS = 900
MAX_ATTEMPTS = 12
MAX_TOTAL_BYTES = 6144
"""Of all attempt cookies of a browser together: the other servers in the path allow heads of 8 KiB."""

_LONGEST = 4096  # what browsers keep of one cookie


class Attempt(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What must be remembered between the authorization request and its answer. Its repr shows nothing."""

    state: str
    nonce: str
    code_verifier: str
    return_url: str
    started_at: float
    expires_at: float
    browser: str
    """Common to the attempts of one browser that overlap: of the sessions that they begin, one stays."""
    replaces: str | None = None
    """Digest of the session that this sign-in ends when it succeeds."""
    prompt: str | None = None
    max_age: int | None = None
    acr_values: str | None = None
    began_at: float | None = None
    """`started_at` by Redis's clock, where this machine knew that."""

    @property
    def asks_afresh(self) -> bool:
        """Whether the person was to be authenticated anew, or not long ago."""
        return self.max_age is not None or "login" in (self.prompt or "").split()

    def __repr__(self) -> str:
        return "<Attempt>"


class Attempts:
    """Reads and writes the attempt cookies of one browser."""

    def __init__(self, keyring: Keyring, clock: Clock, *, prefix: str) -> None:
        """`prefix` begins the cookies' names, `__Host-bff-` or `bff-`."""
        self._keyring = keyring
        self._clock = clock
        self._prefix = prefix

    def cookie_name(self, state: str) -> str:
        """The name of the cookie that belongs to a `state`, which may be anything."""
        digest = hashlib.sha256(state.encode("utf-8", "replace")).digest()
        return self._prefix + base64.urlsafe_b64encode(digest[:9]).decode()

    def seal(self, attempt: Attempt) -> tuple[str, str]:
        """Name and value of the attempt's cookie."""
        name = self.cookie_name(attempt.state)
        record = self._keyring.seal("attempt", msgspec.msgpack.encode(attempt), name.encode())
        return name, base64.urlsafe_b64encode(record).rstrip(b"=").decode()

    def open(self, name: str, value: str) -> Attempt | None:
        """The attempt of a cookie; None where it is not ours, altered, moved or over."""
        if len(value) > _LONGEST:
            return None
        try:
            record = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
            plain = self._keyring.open("attempt", record, name.encode("utf-8", "replace"))
            attempt = msgspec.msgpack.decode(plain, type=Attempt)
        except (binascii.Error, ValueError, UnknownKey, NotAuthentic, msgspec.DecodeError):
            return None
        return attempt if self._clock() < attempt.expires_at else None

    def find(self, cookies: Mapping[str, list[str]], state: str) -> Attempt | None:
        """This browser's attempt with that state. A cookie that comes twice counts as none."""
        name = self.cookie_name(state)
        values = cookies.get(name, [])
        attempt = self.open(name, values[0]) if len(values) == 1 else None
        return attempt if attempt is not None and attempt.state == state else None

    def pending(self, cookies: Mapping[str, list[str]]) -> list[Attempt]:
        """All attempts of this browser that are still open, the oldest first."""
        found = (self.open(name, values[0]) for name, values in self._ours(cookies) if len(values) == 1)
        return sorted((a for a in found if a is not None), key=lambda attempt: attempt.started_at)

    def surplus(self, cookies: Mapping[str, list[str]], new: Attempt) -> list[str]:
        """Names of cookies to drop so that `new` fits in: unreadable ones, then the oldest."""
        room = MAX_TOTAL_BYTES - sum(map(len, self.seal(new)))
        keep: set[str] = set()
        for attempt in reversed(self.pending(cookies)):
            name = self.cookie_name(attempt.state)
            room -= len(name) + len(cookies[name][0])
            if room < 0 or len(keep) + 2 > MAX_ATTEMPTS:
                break
            keep.add(name)
        return [name for name, _ in self._ours(cookies) if name not in keep]

    def browser(self, cookies: Mapping[str, list[str]]) -> str:
        """The name that a new attempt gets: the one that open attempts have already, or a random one."""
        known = [attempt.browser for attempt in self.pending(cookies)]
        return known[-1] if known else secrets.token_urlsafe(16)

    def overlapping(self, cookies: Mapping[str, list[str]], finished: Attempt) -> set[str]:
        """The names of all attempts that overlap with `finished`: several where they began at once."""
        return {finished.browser, *(attempt.browser for attempt in self.pending(cookies))}

    def _ours(self, cookies: Mapping[str, list[str]]) -> Iterable[tuple[str, list[str]]]:
        return [(name, values) for name, values in cookies.items() if name.startswith(self._prefix)]


def cookie_attributes(*, secure: bool, cross_site: bool = False) -> dict[str, Any]:
    """Lax, not Strict: the callback is a navigation that another site began. `cross_site` is for form_post,
    which another site posts: only None goes along with it, and browsers take None from Secure cookies alone
    (over http from localhost, too)."""
    if cross_site:
        return {"httponly": True, "secure": True, "samesite": "None", "path": "/"}
    return {"httponly": True, "secure": secure, "samesite": "Lax", "path": "/"}
