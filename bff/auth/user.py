"""Who is signed in, and what they may see and end of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import structlog
from flask import Response, jsonify, request

from bff.audit import Audit
from bff.auth.asked import this_session
from bff.claims import claim
from bff.errors import SessionNotFound, StoreUnavailable
from bff.provider.revocation import Revoker
from bff.sessions.directory import Directory, Listed
from bff.sessions.record import is_digest, logout_sid, rfc3339
from bff.sessions.store import SessionStore
from bff.tokens import Clock

log = structlog.get_logger("bff.audit")


@dataclass(frozen=True)
class User:
    """`/bff/user` and `/bff/sessions`."""

    store: SessionStore
    directory: Directory
    revoker: Revoker
    clock: Clock
    audit: Audit

    def user(self) -> Response:
        """Who is signed in, as claims, with the sign-out link and the seconds left."""
        current = this_session()
        record = current.signed_in()
        ends_at = self.store.lifetime.ends_at(record, record.last_seen)
        if request.args.get("slide") != "false":
            try:
                ends_at = self.store.slide(record)
            except StoreUnavailable as error:  # a Redis that is full or read-only can still be read
                log.warning("slide_failed", reason=error.reason)
        claims = list(record.who["claims"])
        claims.append(claim("bff:logout_url", f"/bff/logout?sid={logout_sid(cast('str', current.sid))}"))
        claims.append(claim("bff:session_expires_in", max(0, int(ends_at - self.clock()))))
        if "session_state" in record.who:
            claims.append(claim("bff:session_state", record.who["session_state"]))
        return jsonify(claims)

    def own_sessions(self) -> Response:
        """All sessions of who is signed in, the newest first."""
        current = this_session()
        user = current.signed_in().meta.user
        listed = reversed(self.directory.of(user))
        return jsonify([_listed(each, current=each.id == current.digest) for each in listed])

    def end_one(self, name: str) -> Response:
        """End one of them; another user's is as unknown as any other."""
        current = this_session()
        mine = current.signed_in().meta
        user, this = mine.user, name == current.digest
        ended = False
        for each in self.directory.end(name, user=user) if is_digest(name) else ():
            self.audit.session_revoked(each, "revoked")
            ended, old = True, each.record
            if old is not None and (this or not old.meta.shares_provider_session(mine)):
                self.revoker.soon(old.tokens)
        if not ended:
            raise SessionNotFound
        if this:
            current.vanish()
        return _no_content()

    def end_others(self) -> Response:
        """End all but this one, and every sign-in of theirs that is under way elsewhere."""
        current = this_session()
        mine = current.signed_in().meta
        for each in self.directory.end_others(mine.user, cast("str", current.digest)):
            self.audit.session_revoked(each, "revoked")
            old = each.record
            if old is not None and not old.meta.shares_provider_session(mine):
                self.revoker.later(old.tokens)
        return _no_content()


def _listed(each: Listed, *, current: bool) -> dict[str, Any]:
    record = each.record
    return {
        "id": each.id,
        "current": current,
        "created": rfc3339(record.meta.created),
        "last_seen": rfc3339(record.last_seen),
        "browser": record.who.get("browser", ""),
        "address": record.who.get("address", ""),
    }


def _no_content() -> Response:
    return Response(status=204)
