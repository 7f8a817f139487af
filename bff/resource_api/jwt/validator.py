"""Access tokens, verified: the one thing the rest of an API needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bff.resource_api.jwt.claims import ClaimRules, judge
from bff.resource_api.jwt.compact import inspect
from bff.resource_api.jwt.fetching import FetchLimits, fetch_keys
from bff.resource_api.jwt.jwks import CachePolicy, KeyCache
from bff.resource_api.jwt.keys import SUPPORTED_ALGORITHMS, verify_signature
from bff.resource_api.jwt.model import AccessToken, Reason, TokenProfile, TokenRefused
from bff.resource_api.urls import URLRefused, check_url

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("bff.resource_api")

_App = TypeVar("_App", bound="Flask")


class JWTValidator:
    """Judges the access tokens of one issuer, or of several that are trusted alike.

    At least one of `client_ids` (compared with the claim `client_id`) and `audience` (which `aud`
    must contain) is needed; with both, both must hold. `clock` gives seconds since the epoch for
    the claims, `monotonic` the seconds by which keys age. `ca_file` names the authorities that sign the
    issuers' certificates, in place of the well-known ones. Thread-safe; fetches nothing before the first
    token.
    """

    def __init__(
        self,
        issuer: str | Sequence[str],
        *,
        client_ids: Collection[str] = (),
        audience: str | None = None,
        profile: TokenProfile | str = TokenProfile.COGNITO,
        algorithms: Collection[str] = ("RS256",),
        clock_skew_seconds: float = 60,
        allow_http: bool = False,
        ca_file: Path | str | None = None,
        cache_policy: CachePolicy | None = None,
        fetch_limits: FetchLimits | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `ValueError` for arguments that would let in more than was meant."""
        issuers = (issuer,) if isinstance(issuer, str) else tuple(issuer)
        self._algorithms = _checked_algorithms(algorithms)
        self._rules = _checked_rules(
            ClaimRules(TokenProfile(profile), _names(client_ids), audience, clock_skew_seconds)
        )
        if self._rules.profile is TokenProfile.RFC9068 and audience is None:
            logger.warning("profile rfc9068 without an audience: `aud` is not checked (RFC 9068, section 4)")
        self._clock = clock
        fetch = partial(
            fetch_keys,
            algorithms=self._algorithms,
            limits=fetch_limits or FetchLimits(),
            allow_http=allow_http,
            authorities=None if ca_file is None else Path(ca_file),
        )
        self._caches = {
            name: KeyCache(
                name,
                partial(fetch, name),
                cache_policy,
                monotonic,
            )
            for name in _checked_issuers(issuers, allow_http=allow_http)
        }

    def validate(self, token: str) -> AccessToken:
        """Verify a compact access token, without the word `Bearer`.

        Raises `TokenRefused`, or `KeysUnavailable` where the issuer's keys cannot be had.
        """
        inspected = inspect(token, self._algorithms)
        issuer = inspected.claims.get("iss")
        cache = self._caches.get(issuer) if isinstance(issuer, str) else None
        if cache is None or not isinstance(issuer, str):
            raise TokenRefused(Reason.ISSUER)
        key = cache.find(inspected.key_id, inspected.algorithm)
        if key is None:
            raise TokenRefused(Reason.UNKNOWN_KEY)
        verify_signature(inspected, key)
        return judge(inspected.header, inspected.claims, self._rules, issuer, self._clock())

    def ready(self) -> bool:
        """Whether keys of an issuer are at hand; fetches all issuers' if need be, waits briefly.

        One is enough: an outage of one issuer must not take the others' users out of service, too.
        """
        states = [cache.ready() for cache in self._caches.values()]
        return any(states)

    def protect(self, app: _App) -> _App:
        """Put this validator in front of `app`; call it after the last view is in place.

        Every view must say who may call it, `@requires(...)` or `@public`: one that does not is
        named by the `UndeclaredViewError` raised here, or refused if it is added later.
        """
        from bff.resource_api.guard import protect

        protect(app, self)
        return app


def _names(given: Collection[str]) -> frozenset[str]:
    if isinstance(given, str):
        raise ValueError("client_ids is a collection of names, not one string")  # noqa: TRY004
    return frozenset(given)


def _checked_algorithms(algorithms: Collection[str]) -> frozenset[str]:
    chosen = _names(algorithms)
    if not chosen or not chosen <= SUPPORTED_ALGORITHMS:
        raise ValueError(f"algorithms must be among {', '.join(sorted(SUPPORTED_ALGORITHMS))}")
    return chosen


def _checked_rules(rules: ClaimRules) -> ClaimRules:
    if not rules.client_ids and not rules.audience:
        raise ValueError("name the client_ids that are accepted, or the audience, or both")
    if "" in rules.client_ids or rules.audience == "":
        raise ValueError("a client id or audience must not be empty")
    if not 0 <= rules.clock_skew <= 300:
        raise ValueError("clock_skew_seconds must be from 0 to 300")
    return rules


def _checked_issuers(issuers: Iterable[str], *, allow_http: bool) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(issuers))
    if not checked:
        raise ValueError("name the issuer")
    for issuer in checked:
        try:
            check_url(issuer, allow_http=allow_http)
        except URLRefused as refused:
            raise ValueError(f"the issuer {refused}") from None
    return checked
