"""Which token a request may take upstream: the session's, the client's own, or none. The same rules for a
proxied request and for forward-auth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog

from bff.errors import (
    NotSignedIn,
    ProviderUnavailable,
    ReauthenticationRequired,
    SessionExpired,
    StoreUnavailable,
)
from bff.metrics import Metrics
from bff.refresh import Refresher
from bff.rejections import Rejections
from bff.request import RequestHead
from bff.routes import Route
from bff.service_tokens import ServiceTokens
from bff.sessions.reader import SessionReader
from bff.sessions.record import SessionRecord, digest, well_formed
from bff.tokens import Clock, LoginRequired, TryLater, Usable

log = structlog.get_logger("bff.access")


class Grant(msgspec.Struct, frozen=True):
    """What a request may take along. Its repr shows no token."""

    token: str | None
    record: SessionRecord | None = None
    """The session, where the route asks for one."""
    client: bool = False
    """Whether the token is the client's own."""

    def __repr__(self) -> str:
        return f"<Grant {'of the client' if self.client else 'of a session'}>"


class Access:
    """Sessions and tokens, as routes ask for them."""

    def __init__(
        self,
        *,
        cookie: str,
        reader: SessionReader,
        refresher: Refresher,
        service_tokens: ServiceTokens,
        step_up: Callable[[int], str],
        rejections: Rejections,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`cookie` is the session cookie's name. `step_up` gives the parameter of `/bff/login` that brings
        about a sign-in not older than so many seconds."""
        self._cookie = cookie
        self._reader = reader
        self._refresher = refresher
        self._service_tokens = service_tokens
        self._step_up = step_up
        self._rejections = rejections
        self._clock = clock
        self._metrics = metrics

    async def grant(self, head: RequestHead, route: Route) -> Grant:
        """What the request may take along on that route. Raises SignInNeeded, StoreUnavailable or
        ProviderUnavailable."""
        client = route.token == "client"
        record = None
        if route.token == "user_or_client" and head.cookie(self._cookie) is None:
            client = True
        elif not route.anonymous:
            record = _alive(await self._reader.load(self._named(head)))
            # A page that opens its streams again and again would never be idle.
            if route.stream is None and self._reader.slide_due(record):
                await self._slide(record)
            self._check_age(record, route)
            if not client and route.token != "none":
                ready = self._refresher.ready(record)
                return Grant(await self._user_token(record) if ready is None else ready.access_token, record)
        if not client:
            return Grant(None, record)
        return Grant(await self._service_tokens.token(route.scope, route.resource), record, client=True)

    async def renew(self, grant: Grant, route: Route) -> Grant | None:
        """Another token than that of `grant`, which the upstream refuses; None where another would not help
        or is not to be had. Raises SessionExpired where the provider has ended the session meanwhile."""
        if grant.token is None or not self._rejections.worth_renewing(route.upstream, _holder(grant, route)):
            return None
        try:
            renewed = await self._renewed(grant, grant.token, route)
        except SessionExpired:
            self._metrics.refresh_forced(route.path, "session_ended")
            raise
        self._metrics.refresh_forced(route.path, "not_renewed" if renewed is None else "renewed")
        return renewed

    async def _renewed(self, grant: Grant, refused: str, route: Route) -> Grant | None:
        if grant.record is None or grant.client:
            with suppress(ProviderUnavailable):
                token = await self._service_tokens.renew(route.scope, route.resource, refused)
                return None if token is None else Grant(token, grant.record, client=True)
            return None
        outcome = await self._refresher.renew(grant.record)
        if isinstance(outcome, LoginRequired):
            raise SessionExpired
        return Grant(outcome.tokens.access_token, grant.record) if isinstance(outcome, Usable) else None

    def renewed(self, grant: Grant, route: Route, *, accepted: bool) -> None:
        """What became of a request with a renewed token."""
        if accepted:
            self._rejections.helped(route.upstream)
        elif self._rejections.in_vain(route.upstream, _holder(grant, route)):
            log.error("tokens_refused", route=route.path, reason="the upstream refuses renewed tokens, too")

    def _check_age(self, record: SessionRecord, route: Route) -> None:
        if route.max_age is not None and self._clock() - record.meta.auth_time > route.max_age:
            raise ReauthenticationRequired(self._step_up(int(route.max_age)))

    async def _user_token(self, record: SessionRecord) -> str:
        """A usable token of the session."""
        outcome = await self._refresher.usable(record)
        if isinstance(outcome, LoginRequired):
            raise SessionExpired
        if isinstance(outcome, TryLater):
            raise ProviderUnavailable(
                "Your sign-in could not be renewed just now; you are still signed in. Please try again.",
                retry_after=outcome.retry_after,
            )
        return outcome.tokens.access_token

    def owner(self, head: RequestHead) -> str | None:
        """Whose session the request's cookie may be: its public name, which nobody has looked up."""
        value = head.cookie(self._cookie)
        return digest(value) if value is not None and well_formed(value) else None

    async def session(self, head: RequestHead) -> SessionRecord:
        """The live session of a request, which is not extended. Raises SignInNeeded or StoreUnavailable."""
        return _alive(await self._reader.load(self._named(head)))

    def _named(self, head: RequestHead) -> str:
        """The public name of the session that the request's cookie is for."""
        value = head.cookie(self._cookie)
        if value is None:
            raise NotSignedIn
        if not well_formed(value):
            raise SessionExpired
        return digest(value)

    async def _slide(self, record: SessionRecord) -> None:
        try:
            await self._reader.slide(record)
        except StoreUnavailable as error:  # a Redis that is full or read-only can still be read
            log.warning("slide_failed", reason=error.reason)


def _alive(record: SessionRecord | None) -> SessionRecord:
    if record is None:
        raise SessionExpired
    return record


def _holder(grant: Grant, route: Route) -> str:
    """Whose token it is."""
    if grant.record is None or grant.client:
        return f"client {route.scope} {route.resource}"
    return grant.record.key
