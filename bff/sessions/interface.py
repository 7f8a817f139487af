"""Flask-Session's Redis interface, made safe.

What the stock interface does and this one does not: rewrite the whole session at every request (lost
updates, tokens rolled back, sessions that come back after sign-out), fall back to pickle, key Redis by
the cookie's value, adopt an id that a cookie brought, and delete a `__Host-` cookie without Secure, which
browsers ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from flask import Flask, Request, Response
from flask_session.redis.redis import RedisSession, RedisSessionInterface

from bff.errors import NotSignedIn, SessionExpired, StoreUnavailable
from bff.request import Admitted
from bff.sessions.ending import Reason
from bff.sessions.record import Meta, SessionRecord, digest, new_sid, well_formed
from bff.sessions.store import SessionStore
from bff.tokens import TokenSet

COOKIE = "bff"


def host_cookie(name: str, *, secure: bool) -> str:
    """`__Host-` binds a cookie to this very host (RFC 6265bis §4.1.3.2); over http there is no such thing."""
    return "__Host-" + name if secure else name


class BFFSession(RedisSession):
    """The Flask session, with the record behind it.

    `sid` is what the cookie brought (None where nothing came or it cannot be one); `trouble` is why the
    record could not be read, raised when somebody asks for it and not before.
    """

    sid: str | None

    def __init__(
        self,
        sid: str | None = None,
        *,
        came: bool = False,
        record: SessionRecord | None = None,
        trouble: StoreUnavailable | None = None,
    ) -> None:
        super().__init__(dict(record.data) if record else None, sid=sid)
        self.came = came
        self._record = record
        self._trouble = trouble
        self._loaded = dict(record.data) if record else {}
        self.issue = False
        self.drop = False

    @property
    def digest(self) -> str | None:
        """The session's name in Redis."""
        return None if self.sid is None else digest(self.sid)

    @property
    def record(self) -> SessionRecord | None:
        """The live session, or None. Raises StoreUnavailable where that is not known."""
        if self._trouble is not None:
            raise self._trouble
        return self._record

    def signed_in(self) -> SessionRecord:
        """The live session, or NotSignedIn, SessionExpired or StoreUnavailable."""
        record = self.record
        if record is None:
            raise SessionExpired if self.came else NotSignedIn
        return record

    def changes(self) -> dict[str, Any]:
        """Keys set since the session was read, and None for those removed."""
        removed = {name: None for name in self._loaded if name not in self}
        return removed | {k: v for k, v in self.items() if k not in self._loaded or self._loaded[k] != v}

    def become(self, sid: str, record: SessionRecord) -> None:
        """Turn into the session that has just begun."""
        dict.clear(self)  # initialising a dict again keeps what was in it
        self.__init__(sid, came=True, record=record)  # type: ignore[misc]
        self.issue = True

    def vanish(self) -> None:
        """Turn into nobody's session, and have the browser drop the cookie."""
        came = self.came
        dict.clear(self)
        self.__init__(None)  # type: ignore[misc]
        self.drop = came  # a request without the cookie (a foreign page's, say) must not delete it


class SafeRedisSessionInterface(RedisSessionInterface):
    """Opens, begins, saves and ends sessions for Flask, all through the SessionStore."""

    session_class = BFFSession

    def __init__(
        self, app: Flask, client: redis.Redis, store: SessionStore, *, secure: bool, samesite: str
    ) -> None:
        # Not the stock initialiser: it would put a Redis on this machine in the place of a cluster's client.
        super(RedisSessionInterface, self).__init__(app, key_prefix="", permanent=False)
        self.client = client
        self.serializer = (
            None  # its decoder falls back to pickle: whoever could write to Redis could run code
        )
        self.store = store
        self.cookie = host_cookie(COOKIE, secure=secure)
        self._attributes: dict[str, Any] = {
            "httponly": True,
            "secure": secure,
            "samesite": samesite,
            "path": "/",
        }

    def open_session(self, _app: Flask, request: Request) -> BFFSession:
        """The session of a request, read only for the addresses that use one."""
        admitted: Admitted = request.environ[Admitted.KEY]
        value = admitted.head.cookie(self.cookie)
        if value is None or not well_formed(value):
            return BFFSession(came=value is not None)
        if not admitted.reads_session:
            return BFFSession(value, came=True)
        try:
            return BFFSession(value, came=True, record=self.store.load(digest(value)))
        except StoreUnavailable as error:
            return BFFSession(value, came=True, trouble=error)

    def begin(
        self, session: BFFSession, meta: Meta, tokens: TokenSet, data: Mapping[str, Any]
    ) -> SessionRecord:
        """Begin a session under an id that nobody has seen: whatever the browser brought is not adopted. It
        is pending until the store settles it."""
        sid = new_sid()
        record = self.store.begin(digest(sid), meta, tokens, data, pending=True)
        session.become(sid, record)
        return record

    def end(self, session: BFFSession) -> SessionRecord | None:
        """End the session and drop its cookie; what it held, for revocation."""
        name = session.digest
        record = self.store.end(name, Reason.SIGNED_OUT) if name is not None else None
        session.vanish()
        return record

    def save_session(self, _app: Flask, session: BFFSession, response: Response) -> None:
        """Write what the request changed, and set or drop the cookie if it began or ended a session."""
        response.vary.add("Cookie")
        if session.drop:
            response.delete_cookie(self.cookie, **self._attributes)
        elif session.issue and session.sid is not None:
            response.set_cookie(self.cookie, session.sid, **self._attributes)
        elif session.modified and (record := session.record) is not None:
            self.store.save_data(record, session.changes())

    def regenerate(self, _session: BFFSession) -> None:
        """Refused: a new id comes with `begin`, together with the tokens that belong to it."""
        raise RuntimeError("use begin() and end()")
