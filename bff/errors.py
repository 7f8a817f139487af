"""Everything that can be said to a caller when something is wrong.

    PublicError
    ├── BadRequest             400  bad_request
    ├── RouteNotFound          404  route_not_found
    ├── SessionNotFound        404  session_not_found
    ├── MethodNotAllowed       405  method_not_allowed      Allow
    ├── CSRFRequired           403  csrf_required
    ├── ProxyNotTrusted        403  proxy_not_trusted       on the forward-auth listener
    ├── BodyTooLarge           413  body_too_large
    ├── RangeNotSatisfiable    416  range_not_satisfiable   Content-Range
    ├── HeadersTooLarge        431  headers_too_large
    ├── RateLimited            429  rate_limited            Retry-After
    │   └── TooManyStreams          the same, for streams that stay open
    ├── SignInNeeded           401                          login_url
    │   ├── NotSignedIn             not_signed_in           no session cookie came
    │   ├── SessionExpired          session_expired         one came that opens nothing any more
    │   └── ReauthenticationRequired  reauthentication_required  the sign-in is too long ago
    ├── SignInFailed           400  see its subclasses      always a page
    ├── UpstreamUnreachable    502  upstream_unreachable
    ├── UpstreamTimeout        504  upstream_timeout
    ├── Unavailable            503                          Retry-After
    │   ├── StoreUnavailable        store_unavailable
    │   └── ProviderUnavailable     provider_unavailable
    └── InternalError          500  internal_error

A caller decides on `code`, never on a text. `detail` is always a sentence of ours: nothing that came
from outside is quoted in it, and the cause, which may hold such things, stays in the log.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

PROBLEM_JSON = "application/problem+json"  # RFC 9457


class PublicError(Exception):
    """An error with a stable public `code` and HTTP `status`; `detail` is shown to the caller."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        """`detail` is for the caller, `reason` for the operator's log; neither may hold a secret."""
        super().__init__(reason or detail or self.title)
        self.detail = detail
        self.reason = reason

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Response headers that belong to this error."""
        return []

    @property
    def members(self) -> dict[str, Any]:
        """Extension members of the problem document (RFC 9457 §3.2)."""
        return {}


class BadRequest(PublicError):
    status, code, title = 400, "bad_request", "Bad request"


class RouteNotFound(PublicError):
    status, code, title = 404, "route_not_found", "Nothing is here"


class SessionNotFound(PublicError):
    status, code, title = 404, "session_not_found", "No such session"

    def __init__(self) -> None:
        super().__init__("This user has no session of that id.")


class MethodNotAllowed(PublicError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"

    def __init__(self, allow: tuple[str, ...]) -> None:
        super().__init__("This address takes other methods; see the Allow header.")
        self.allow = allow

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Allow", ", ".join(self.allow))]  # RFC 9110 §15.5.6 demands it


class CSRFRequired(PublicError):
    status, code, title = 403, "csrf_required", "Proof of origin needed"


class ProxyNotTrusted(PublicError):
    status, code, title = 403, "proxy_not_trusted", "This proxy is not trusted"


class BodyTooLarge(PublicError):
    status, code, title = 413, "body_too_large", "Body too large"


class RangeNotSatisfiable(PublicError):
    status, code, title = 416, "range_not_satisfiable", "Nothing is in this range"

    def __init__(self, content_range: str) -> None:
        """`content_range` says how long the file is, as in `bytes */1234`."""
        super().__init__("The file is shorter; see the Content-Range header.")
        self._content_range = content_range

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Content-Range", self._content_range)]  # RFC 9110 §15.5.17


class HeadersTooLarge(PublicError):
    status, code, title = 431, "headers_too_large", "Request headers too large"


class RetryLater(PublicError):
    """An error that passes: the answer says when to try again."""

    retry_after: int

    def __init__(self, detail: str = "", *, reason: str = "", retry_after: int = 2) -> None:
        """`retry_after` is in seconds."""
        super().__init__(detail, reason=reason)
        self.retry_after = retry_after

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Retry-After", str(self.retry_after))]


class RateLimited(RetryLater):
    status, code, title = 429, "rate_limited", "Too many sign-ins from this address"


class TooManyStreams(RateLimited):
    title = "Too many open streams"


class SignInNeeded(PublicError):
    status, title = 401, "Sign-in needed"
    login_url: ClassVar[str] = "/bff/login"

    @property
    def members(self) -> dict[str, Any]:
        return {"login_url": self.login_url}


class NotSignedIn(SignInNeeded):
    code = "not_signed_in"

    def __init__(self) -> None:
        super().__init__("Nobody is signed in here.")


class SessionExpired(SignInNeeded):
    code = "session_expired"

    def __init__(self) -> None:
        super().__init__("The session has ended.")


class SignInFailed(PublicError):
    """A sign-in that ended without a session. Its page offers a new one, but never starts it by itself."""

    status, code, title = 400, "sign_in_failed", "The sign-in did not work"


class StateUnknown(SignInFailed):
    """No attempt of this browser belongs to the `state` of the answer (RFC 9700 §4.7)."""

    code = "state_unknown"


class StateUsed(SignInFailed):
    """The answer has been used before: replayed, reloaded or reached by the back button."""

    code = "state_used"


class SignInCutOff(SignInFailed):
    """All sessions of this user were ended while the sign-in was under way: it must not slip through."""

    code = "sign_in_cut_off"


class ProviderRefused(SignInFailed):
    """The provider answered the authorization request with an error (RFC 6749 §4.1.2.1)."""

    code = "provider_refused"


class AccessDenied(ProviderRefused):
    """The person, or a rule at the provider, said no."""

    code = "access_denied"


class CodeRefused(SignInFailed):
    """The token endpoint refused the authorization code."""

    code = "code_refused"


class ClientRefused(SignInFailed):
    """The token endpoint refused this client: its id, its secret or its registration is wrong."""

    code = "client_refused"


class ResponseInvalid(SignInFailed):
    """The answer breaks the protocol, or came from another issuer (RFC 9207)."""

    code = "response_invalid"


class IDTokenInvalid(SignInFailed):
    """The ID token failed a check of OpenID Connect Core §3.1.3.7."""

    code = "id_token_invalid"


class LogoutTokenInvalid(BadRequest):
    """A logout token that fails a check; the log says which (Back-Channel Logout 1.0 §2.8)."""

    def __init__(self, *, reason: str) -> None:
        super().__init__("The logout token is not acceptable.", reason=reason)


class ReauthenticationRequired(SignInNeeded):
    """A route wants a more recent sign-in (RFC 9470)."""

    code = "reauthentication_required"

    def __init__(self, parameter: str) -> None:
        """`parameter` is for `/bff/login`, as in `max_age=300`."""
        super().__init__("This needs a more recent sign-in.")
        self._parameter = parameter

    @property
    def members(self) -> dict[str, Any]:
        return {"login_url": f"{self.login_url}?{self._parameter}"}


class UpstreamUnreachable(PublicError):
    status, code, title = (
        502,
        "upstream_unreachable",
        "The service behind this address is unreachable",
    )


class UpstreamTimeout(PublicError):
    status, code, title = 504, "upstream_timeout", "The service behind this address took too long"


class Unavailable(RetryLater):
    status = 503


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "Sessions are out of reach for the moment"


class SessionKeyMissing(StoreUnavailable):
    """A session is sealed under a key that is not configured here: for the operator to mend, at once."""


class ProviderUnavailable(Unavailable):
    code, title = "provider_unavailable", "The identity provider is out of reach for the moment"


class InternalError(PublicError):
    pass


def problem(error: PublicError) -> bytes:
    """The RFC 9457 document of an error, as UTF-8 JSON."""
    document = {"title": error.title, "status": error.status, "code": error.code}
    if error.detail:
        document["detail"] = error.detail
    return json.dumps(document | error.members).encode()
