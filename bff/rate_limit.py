"""How often one address may begin or finish a sign-in: counted in this process's memory, so that anonymous
callers cost Redis nothing."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bff.errors import RateLimited

REMEMBERED = 50_000
"""Addresses, at most. Who has more of them than that cannot be counted by address anyway."""
RETRY_SECONDS = 10
"""The window slides: a sixth of the limit is free again by then."""
_V6_NETWORK_BITS = 64
"""Whoever has one IPv6 address has all of its network's (RFC 6177)."""


class RateLimit:
    """A limit for each client address."""

    def __init__(self, per_minute: int) -> None:
        """`per_minute` may come each minute; 0 switches the limit off."""
        self._item = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    def check(self, client: str) -> None:
        """Count a request of that address. Raises RateLimited, with the time to wait, over the limit."""
        if self._item is None:
            return
        if len(self._storage.storage) > REMEMBERED:
            self._storage.reset()
        if not self._limiter.hit(self._item, _counted(client)):
            raise RateLimited(
                "Too many sign-ins came from this address. Please wait a moment.",
                retry_after=RETRY_SECONDS,
            )


def _counted(client: str) -> str:
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> (128 - _V6_NETWORK_BITS):x}"
    return str(getattr(address, "ipv4_mapped", None) or address)
