"""What went over the wire to the provider's token endpoint, and how to read it. Free of I/O.

It is kept apart from the nodes and from the provider: neither is asked what it believes to have done.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SAVE_SECONDS = 5.0
"""After an answer has reached a process, for how long its death can still be why the answer was not saved."""
FLUSH_SECONDS = 3.0
"""With `appendfsync everysec`, Redis may hold back the writes of two seconds while its disk is busy."""


@dataclass
class Redeem:
    """One refresh token that was sent to the provider. Times are in seconds, of one clock."""

    token: str
    """The digest of the refresh token."""
    session: int
    process: int
    """The id of the process that sent it; 0 where that was not to be found out."""
    began: float
    status: int | None = None
    error: str = ""
    delivered: float | None = None
    """When the answer was given to a connection that was still open."""

    @property
    def refused(self) -> bool:
        """Whether the provider said that the grant is over."""
        return self.status == 400 and self.error == "invalid_grant"


@dataclass(frozen=True)
class Death:
    """A process that was killed, or stood still until a moment."""

    process: int
    what: str
    began: float
    ended: float
    """The same moment for a process that was killed."""
    store: bool = False
    """Whether it was the Redis of all, killed."""


@dataclass(frozen=True)
class Repeat:
    """A refresh token that was sent again. `cause`: why the first outcome was unknown; None: it was known."""

    redeem: Redeem
    earlier: Redeem
    cause: str | None


@dataclass
class Ledger:
    """All redeems, in the order of their beginning."""

    redeems: list[Redeem] = field(default_factory=list)
    sign_ins: int = 0
    _sessions: dict[str, int] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)

    def signed_in(self, answer: Mapping[str, Any], began: float) -> None:
        """A code was exchanged: a session begins, and has the next number."""
        if isinstance(token := answer.get("refresh_token"), str):
            self.sign_ins += 1
            self._learn(token, self.sign_ins, began)

    def begin(self, token: str, process: int, now: float) -> Redeem:
        """A refresh token has arrived."""
        name = digest(token)
        redeem = Redeem(name, self._sessions.get(name, 0), process, now)
        self.redeems.append(redeem)
        return redeem

    def answered(self, redeem: Redeem, status: int, answer: Mapping[str, Any]) -> None:
        """The provider has answered it."""
        redeem.status, redeem.error = status, str(answer.get("error", ""))
        if status == 200 and isinstance(token := answer.get("refresh_token"), str):
            self._learn(token, redeem.session, redeem.began)

    def _learn(self, token: str, session: int, began: float) -> None:
        self._sessions[digest(token)] = session
        self._begun[digest(token)] = began

    @property
    def expiries(self) -> int:
        """How many token sets came to their end: each has one refresh token, which was sent at least once."""
        return len({redeem.token for redeem in self.redeems})

    def repeats(self, deaths: Iterable[Death]) -> list[Repeat]:
        """Every refresh token that was sent again."""
        known, seen, found = list(deaths), dict[str, Redeem](), []
        for redeem in self.redeems:
            earlier = seen.get(redeem.token)
            if earlier is not None:
                found.append(Repeat(redeem, earlier, why_unknown(earlier, redeem.began, known)))
            seen[redeem.token] = redeem
        return found

    def why_lost(self, session: int, deaths: Iterable[Death]) -> str | None:
        """Why a session ended; None where nothing that happened explains it."""
        known = list(deaths)
        by_token = defaultdict[str, list[Redeem]](list)
        for redeem in self.redeems:
            if redeem.session == session:
                by_token[redeem.token].append(redeem)
        for sent in by_token.values():
            refused = [redeem for redeem in sent if redeem.refused]
            if refused and sent[0] is not refused[-1]:
                causes = [why_unknown(each, refused[-1].began, known) for each in sent if not each.refused]
                return next((cause for cause in causes if cause is not None), None)
        return None

    def unheard(self, after: float, before: float) -> bool:
        """Whether the answer to a redeem of that time has reached nobody."""
        return any(after <= redeem.began < before and redeem.delivered is None for redeem in self.redeems)

    def early(self, lifetime: float, tolerance: float) -> list[Redeem]:
        """Those sent before half of their access token's life, in seconds, was over."""
        first = {redeem.token: redeem for redeem in reversed(self.redeems)}
        return [
            redeem
            for token, redeem in first.items()
            if token in self._begun and redeem.began < self._begun[token] + lifetime / 2 - tolerance
        ]


def why_unknown(redeem: Redeem, until: float, deaths: Iterable[Death]) -> str | None:
    """Why nobody could know, at `until`, what had come of a redeem; None where somebody did know."""
    heard = redeem.delivered
    for death in deaths:
        if death.process == redeem.process and _hit(death, redeem, until, SAVE_SECONDS):
            return f"{death.what} in the middle of it"
        if death.store and _hit(death, redeem, until, FLUSH_SECONDS):
            return f"{death.what} before the new tokens were on its disk"
    if redeem.status is None:
        return "the provider gave no answer"
    if heard is None:
        return "the answer was lost on its way"
    if redeem.status >= 500:
        return f"the provider answered {redeem.status}"
    return None


def _hit(death: Death, redeem: Redeem, until: float, margin: float) -> bool:
    """Whether it fell between the beginning of the redeem and the time by which its outcome is saved."""
    last = until if redeem.delivered is None else min(until, redeem.delivered + margin)
    return death.ended >= redeem.began and death.began <= last


def digest(token: str) -> str:
    """A name for a token that opens nothing."""
    return hashlib.sha256(token.encode()).hexdigest()
