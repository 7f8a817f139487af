"""The audit log: what concerns the security of people's sessions, one line of `bff.audit` for each event.

A line has the event, the request's id and the client's address where there is one, a hash of the user and the
beginning of the session's public name; never a secret. What is audited is counted, too.
"""

from __future__ import annotations

import structlog

from bff.errors import (
    CSRFRequired,
    PublicError,
    RateLimited,
    ResponseInvalid,
    SessionKeyMissing,
    SignInFailed,
    SignInNeeded,
    StateUnknown,
    StateUsed,
    Unavailable,
)
from bff.logs import under_way
from bff.metrics import Metrics
from bff.request import RequestHead, TrustedProxies
from bff.sessions.directory import Ended
from bff.sessions.record import SessionRecord, well_formed

SHOWN = 16
"""So many characters of a hash tell users and sessions apart in a log."""
_LONGEST_ORIGIN = 100
_SIGN_IN = frozenset({"/bff/login", "/bff/callback"})
_NOT_OURS = (StateUnknown, StateUsed, ResponseInvalid)

log = structlog.get_logger("bff.audit")
sessions_log = structlog.get_logger("bff.sessions")


class Audit:
    """Writes the audit log; may be used from any thread."""

    def __init__(
        self, metrics: Metrics, proxies: TrustedProxies, *, session_cookie: str, attempt_prefix: str
    ) -> None:
        """The two names tell our cookies: the session's, and how those of sign-ins begin."""
        self._metrics = metrics
        self._proxies = proxies
        self._session_cookie = session_cookie
        self._attempt_prefix = attempt_prefix

    def signed_in(self, record: SessionRecord) -> None:
        """Somebody has signed in."""
        self._metrics.sign_in_succeeded()
        log.info("signed_in", **_names(record), address=self._address())

    def signed_out(self, record: SessionRecord) -> None:
        """They have signed out."""
        self._metrics.sessions_ended("signed_out")
        log.info("signed_out", **_names(record), address=self._address())

    def session_revoked(self, ended: Ended, by: str) -> None:
        """A session was ended from elsewhere: "revoked" by its user, by the "cap", by the "provider", or
        "replaced" by a new sign-in of the same browser."""
        self._metrics.sessions_ended(by)
        user = None if ended.record is None else ended.record.meta.user[:SHOWN]
        log.info("session_revoked", by=by, user=user, session=ended.id[:SHOWN], address=self._address())

    def refresh_refused(self, record: SessionRecord) -> None:
        """The provider does not take the session's refresh token any more, so the session has ended: the
        grant is over, or a token was used twice, which may be a theft (RFC 9700 §4.14.2)."""
        self._metrics.sessions_ended("refresh_refused")
        log.warning("session_ended", reason="invalid_grant", **_names(record), address=self._address())

    def refused(self, error: PublicError, where: str | None, head: RequestHead) -> None:
        """A request got an error of ours. `where` is the route or the address of ours."""
        self._metrics.refused(error.code)
        if isinstance(error, SessionKeyMissing):
            sessions_log.error("session_key_missing", reason=error.reason)
        if where in _SIGN_IN and isinstance(error, SignInFailed | Unavailable):
            if isinstance(error, _NOT_OURS):
                self._metrics.callback_refused(error.code)
            else:
                self._metrics.sign_in_failed(error.code)
        if isinstance(error, CSRFRequired):
            origin = (head.single(b"origin") or b"").decode("latin-1")[:_LONGEST_ORIGIN] or None
            self._refused("csrf_refused", where, head, origin=origin)
        elif isinstance(error, RateLimited):
            self._refused("rate_limited", where, head)
        elif isinstance(error, SignInNeeded | StateUnknown):
            reason = self._cookie_trouble(head)
            if reason is not None:
                self._refused("cookie_refused", where, head, reason=reason)

    def _refused(self, event: str, where: str | None, head: RequestHead, **fields: str | None) -> None:
        address = self._proxies.client_address(head)
        log.warning(event, method=head.method, path=where, **fields, address=address)

    def _cookie_trouble(self, head: RequestHead) -> str | None:
        """What is wrong with a cookie of ours, if it may have been planted: a sibling domain can set a second
        one of the same name (cookie tossing), or one with a value of its own."""
        for name, values in head.cookies().items():
            if name == self._session_cookie or name.startswith(self._attempt_prefix):
                if len(values) > 1:
                    return "it came twice"
                if name == self._session_cookie and not well_formed(values[0]):
                    return "its value is none of ours"
        return None

    def _address(self) -> str | None:
        head = under_way.get()
        return self._proxies.client_address(head) if isinstance(head, RequestHead) else None


def _names(record: SessionRecord) -> dict[str, str]:
    return {"user": record.meta.user[:SHOWN], "session": record.name[:SHOWN]}
