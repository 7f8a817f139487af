"""How many sessions there are: counted by SCAN, by one process of all machines, once a minute at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bff.sessions.errors import store_errors
from bff.sessions.store import SessionStore

if TYPE_CHECKING:
    import redis

COUNT_SECONDS = 60
"""For so long a number is good enough for everybody."""
COUNTING_SECONDS = 300
"""The longest that counting may take; after that, whoever began is taken for dead."""


class Census:
    """For one thread. Methods may raise StoreUnavailable."""

    def __init__(self, client: redis.Redis, store: SessionStore) -> None:
        self._client = client
        self._store = store
        self._key = f"{store.codec.prefix}census"

    def number(self) -> int | None:
        """The number of sessions, a minute old at most; None while somebody else is counting them."""
        with store_errors():
            if self._client.set(self._key, b"", nx=True, ex=COUNTING_SECONDS):
                return self._count()
            known = cast("bytes | None", self._client.get(self._key))
        return int(known) if known else None

    def _count(self) -> int:
        try:
            number = sum(1 for _ in self._store.names())
        except BaseException:
            self._client.delete(self._key)
            raise
        self._client.set(self._key, number, ex=COUNT_SECONDS)
        return number
