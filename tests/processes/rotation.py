"""A provider that rotates refresh tokens as strictly as the standards advise, and fails on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.provider import HTML, Grant, Reply, ScriptedProvider, Seen


@dataclass(frozen=True)
class Fault:
    """How a redeem goes wrong. Times are in seconds."""

    before: float = 0
    """Passes before the tokens are issued."""
    after: float = 0
    """Passes between the issue and the answer."""
    hold: threading.Event | None = None
    """Is waited for, too, between the issue and the answer."""
    reply: Reply | None = None
    """Comes instead of tokens: nothing is issued."""
    lost: bool = False
    """The tokens are issued, and the answer never comes."""


HANGS = Fault(before=20, reply=Reply(drop=True))
FAULTS = {
    "500": Fault(reply=Reply(500, {"error": "server_error"})),
    "500 that names invalid_grant": Fault(reply=Reply(500, {"error": "invalid_grant"})),
    "503 in HTML": Fault(reply=Reply(503, HTML.body, HTML.headers)),
    "200 in HTML": Fault(reply=HTML),
    "a redirect": Fault(reply=Reply(302, b"", {"Location": "/login"})),
    "429": Fault(reply=Reply(429, {"message": "slow down"})),
    "invalid_client": Fault(reply=Reply(401, {"error": "invalid_client"})),
    "unauthorized_client": Fault(reply=Reply(400, {"error": "unauthorized_client"})),
    "dropped": Fault(reply=Reply(drop=True)),
    "beyond the deadline": Fault(before=2.8, reply=Reply(drop=True)),
}
"""Each leaves the refresh token as it was."""


@dataclass
class Family:
    """All refresh tokens that follow from one sign-in (RFC 9700 §4.14.2)."""

    tokens: list[str]
    """The last one is good, the others are used up."""
    fault: Fault | None = None
    grace: bool = False
    """The token before the last one is accepted, too: its answer may have been lost."""
    redeems: int = 0
    reuses: int = 0
    revoked: bool = False
    access: list[str] = field(default_factory=list)


class RotatingProvider(ScriptedProvider):
    """Each refresh token works once; a second use is counted and ends the family."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault | None = None
        """Of every redeem, where the family has none of its own."""
        self.families: list[Family] = []
        self.revocations: list[str] = []
        self._lock = threading.Lock()

    @property
    def redeems(self) -> int:
        """How many refresh tokens were brought."""
        return sum(family.redeems for family in self.families)

    def token_answer(self, grant: Grant) -> dict[str, Any]:
        answer = super().token_answer(grant)
        self.families.append(Family([answer["refresh_token"]], access=[answer["access_token"]]))
        return answer

    def answer(self, seen: Seen) -> Reply:
        if seen.endpoint == "token" and seen.form.get("grant_type") == "refresh_token":
            self.seen.append(seen)
            return self._refresh(seen.form["refresh_token"])
        if seen.endpoint == "revoke":
            self._revoke(seen.form["token"])
        return super().answer(seen)

    def _refresh(self, token: str) -> Reply:
        with self._lock:
            family = self.family_of(token)
            if family is None:
                return Reply(400, {"error": "invalid_grant"})
            family.redeems += 1
            fault = family.fault or self.fault or Fault()
        time.sleep(fault.before)
        if fault.reply is not None:
            return fault.reply
        with self._lock:
            reply = self._rotate(family, token)
        time.sleep(fault.after)
        if fault.hold is not None:
            fault.hold.wait(30)
        return Reply(drop=True) if fault.lost else reply

    def _rotate(self, family: Family, token: str) -> Reply:
        good = family.tokens[-2:] if family.grace else family.tokens[-1:]
        if token not in good:
            family.reuses += 1
            family.revoked = True
        if family.revoked:
            return Reply(400, {"error": "invalid_grant"})
        access, refresh = self.new_secret("access"), self.new_secret("refresh")
        family.tokens.append(refresh)
        family.access.append(access)
        return Reply(body=self._body(access, refresh), headers={"Cache-Control": "no-store"})

    def _body(self, access: str, refresh: str) -> dict[str, Any]:
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "refresh_token": refresh,
            "id_token": self.id_token(None, access),
        }

    def _revoke(self, token: str) -> None:
        with self._lock:
            self.revocations.append(token)
            if (family := self.family_of(token)) is not None:
                family.revoked = True

    def family_of(self, token: str) -> Family | None:
        """The one that a refresh token belongs to."""
        return next((family for family in self.families if token in family.tokens), None)


@contextmanager
def rotating_provider() -> Iterator[RotatingProvider]:
    """A provider for the length of a block."""
    provider = RotatingProvider()
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()
