"""How often one address may begin or finish a sign-in: counted in this process's memory, so that anonymous
callers cost Redis nothing.

A sliding window of two counts for each address: this minute's, and of the minute before the share that lies
in the last sixty seconds. Whole minutes are forgotten at once: nothing goes through the addresses one by one,
however many somebody has.
"""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_address

from bff.errors import RateLimited
from bff.tokens import Clock

MINUTE = 60.0
REMEMBERED = 50_000
"""Addresses in a minute, at most. Who has more of them than that cannot be counted by address anyway."""
_V6_NETWORK_BITS = 64
"""Whoever has one IPv6 address has all of its network's (RFC 6177)."""


class RateLimit:
    """A limit for each client address. For one thread, the event loop's."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        """`per_minute` may come each minute; 0 switches the limit off. `clock` gives seconds."""
        self._per_minute = per_minute
        self._clock = clock
        self._minute = 0.0
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def check(self, client: str) -> None:
        """Count a request of that address. Raises RateLimited, with the time to wait, over the limit."""
        if not self._per_minute:
            return
        passed = self._turn()
        address = _counted(client)
        counted, before = self._now.get(address, 0), self._before.get(address, 0)
        if before * (1 - passed / MINUTE) + counted > self._per_minute - 1:
            raise RateLimited(
                "Too many sign-ins came from this address. Please wait a moment.",
                retry_after=math.floor(self._free_at(counted, before) - passed) + 1,
            )
        if not counted and len(self._now) >= REMEMBERED:
            self._now = {}
        self._now[address] = counted + 1

    def _free_at(self, counted: int, before: int) -> float:
        """The second of this minute, or beyond it of the next one, at which one more may come."""
        free = self._per_minute - 1 - counted
        if free >= 0:
            return MINUTE * (1 - free / before)
        return MINUTE + MINUTE * (1 - (self._per_minute - 1) / counted)

    def _turn(self) -> float:
        """Begin another minute where it is time to; the seconds of it that have passed."""
        minute, passed = divmod(self._clock(), MINUTE)
        if minute != self._minute:
            self._before = self._now if minute == self._minute + 1 else {}
            self._now, self._minute = {}, minute
        return passed


def _counted(client: str) -> str:
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> (128 - _V6_NETWORK_BITS):x}"
    return str(getattr(address, "ipv4_mapped", None) or address)
