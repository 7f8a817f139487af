"""A script that runs on whichever Redis holds its keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    import redis

Words = Sequence[str | int | bytes]


class Script:
    """A script, named by its hash once a server knows it. All of its keys lie in one slot of a Cluster."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: redis.Redis, keys: Sequence[str], args: Words = ()) -> Any:
        """Its answer. Raises RedisError.

        A server that does not know it is sent its text. redis-py would load it into all servers first, which
        fails while one of them is down, although ours is not.
        """
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)
