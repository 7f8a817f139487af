"""What is counted, as the parts that know of it see it: they call these methods and know of no Prometheus.

Labels come from closed sets (reasons, outcomes, codes, configured routes), never from a request: a user, a
session, a path or a token in a label would be a leak, and series without end.
"""

from __future__ import annotations

from typing import Protocol

ALERTS = (
    "certificate_not_renewed",
    "endpoint_left_out",
    "exchange_failed",
    "forward_auth_failed",
    "lease_not_released",
    "metrics_not_written",
    "oldest_session_not_ended",
    "provider_unavailable",
    "refresh_failed",
    "refresh_not_saved",
    "refresh_refused",
    "replaced_session_not_ended",
    "request_failed",
    "revocation_dropped",
    "revocation_failed",
    "revocation_refused",
    "revocations_undone",
    "service_token_failed",
    "session_key_missing",
    "slide_failed",
    "stream_ended",
    "stream_not_told",
    "stream_not_watched",
    "tokens_refused",
    "tracing_unavailable",
    "userinfo_discarded",
    "userinfo_failed",
    "write_not_replicated",
)
"""Events that the program logs as warnings or errors, each counted under its name."""


class Metrics(Protocol):
    """Counts events. Methods return at once, raise nothing, and may be called from any thread."""

    def sign_in_succeeded(self) -> None:
        """Somebody has signed in; a session has begun."""

    def sign_in_failed(self, code: str) -> None:
        """A sign-in of this browser ended without a session; `code` is the error's public one."""

    def callback_refused(self, code: str) -> None:
        """An authorization response came that belongs to no sign-in under way in this browser."""

    def sessions_ended(self, reason: str, count: int = 1) -> None:
        """Sessions were ended (one that runs out ends in Redis, unseen)."""

    def refused(self, code: str) -> None:
        """A request got an error of our own."""

    def refreshed(self, outcome: str, seconds: float) -> None:
        """A refresh token was sent to the provider, which took so long to answer in that way."""

    def lease_waited(self, seconds: float) -> None:
        """A refresh had to wait so long for another process's of the same session."""

    def refresh_forced(self, route: str, outcome: str) -> None:
        """An upstream said 401 to a token that looks good, so that a new one was asked for."""


class NoMetrics:
    """Counts nothing."""

    def sign_in_succeeded(self) -> None: ...
    def sign_in_failed(self, code: str) -> None: ...
    def callback_refused(self, code: str) -> None: ...
    def sessions_ended(self, reason: str, count: int = 1) -> None: ...
    def refused(self, code: str) -> None: ...
    def refreshed(self, outcome: str, seconds: float) -> None: ...
    def lease_waited(self, seconds: float) -> None: ...
    def refresh_forced(self, route: str, outcome: str) -> None: ...
