"""How long a session lives: idle and absolute limits, enforced by us as well as by Redis. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bff.sessions.record import SessionRecord


@dataclass(frozen=True)
class Lifetime:
    """The limits of every session, in seconds."""

    idle: float
    absolute: float

    @cached_property
    def slide_every(self) -> float:
        """A slide is written when this much has passed: a tenth of the idle time, a minute at most."""
        return min(self.idle / 10, 60.0)

    def absolute_end(self, record: SessionRecord) -> float:
        """When the session ends however busy it is: by its age, or when nothing can renew its token."""
        end = record.meta.created + self.absolute
        tokens_end = record.tokens.ends_at()
        return end if tokens_end is None else min(end, tokens_end)

    def longest_end(self, record: SessionRecord) -> float:
        """No session lives beyond this, whatever its tokens become."""
        return record.meta.created + self.absolute

    def ends_at(self, record: SessionRecord, last_seen: float) -> float:
        """When a session that was last seen then ends, if nobody comes before."""
        return min(last_seen + self.idle, self.absolute_end(record))

    def live(self, record: SessionRecord, now: float) -> bool:
        return (
            now < record.last_seen + self.idle
            and now < record.meta.created + self.absolute
            and ((end := record.tokens.ends_at()) is None or now < end)
        )

    def slide_due(self, record: SessionRecord, now: float) -> bool:
        return now - record.last_seen >= self.slide_every
