"""The sign-in: the authorization request, and what becomes of its response."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import msgspec
import structlog
from flask import Response, after_this_request, make_response, redirect, render_template

from bff.attempts import LIFETIME_SECONDS, Attempt, Attempts
from bff.audit import Audit
from bff.auth.asked import (
    LONGEST_PARAMETER,
    authorization_response,
    parameter,
    single,
    this_request,
    this_session,
)
from bff.claims import public
from bff.errors import (
    PublicError,
    ResponseInvalid,
    SignInCutOff,
    SignInFailed,
    StateUnknown,
    StateUsed,
    StoreUnavailable,
    Unavailable,
)
from bff.guard import safe_return_url
from bff.pages import page_headers
from bff.provider.client import Provider
from bff.provider.revocation import Revoker
from bff.provider.sign_in import SignedIn, refusal
from bff.sealing import Keyring
from bff.sessions.browsers import readable
from bff.sessions.directory import Directory
from bff.sessions.index import without_sid
from bff.sessions.interface import SafeRedisSessionInterface
from bff.sessions.record import WHO, Meta, SessionRecord, sid_name, user_hash
from bff.tokens import Clock, TokenSet

PASS_THROUGH = ("prompt", "login_hint", "ui_locales", "lang", "max_age", "acr_values")
SILENT = frozenset(
    {"login_required", "interaction_required", "consent_required", "account_selection_required"}
)
"""Answers to `prompt=none` that only say: nobody is signed in there (OpenID Connect Core §3.1.2.6)."""


log = structlog.get_logger("bff.audit")


@dataclass(frozen=True)
class SignIn:
    """`/bff/login` and `/bff/callback`."""

    provider: Provider
    sessions: SafeRedisSessionInterface
    directory: Directory
    attempts: Attempts
    attempt_cookie: dict[str, Any]
    """Attributes of the cookies of attempts."""
    keyring: Keyring
    clock: Clock
    issuer: str
    strict: bool
    sessions_per_user: int
    """More than that end the oldest; 0 means no cap."""
    revoker: Revoker
    audit: Audit

    def login(self) -> Response:
        """The authorization request: 302 to the provider, the attempt in a cookie of its own."""
        return_url = safe_return_url(single("returnUrl") or "/")
        parameters = {name: value for name in PASS_THROUGH if (value := parameter(name)) is not None}
        cookies = this_request().head.cookies()
        with _audited():
            url, attempt = self.provider.begin(
                return_url,
                parameters,
                browser=self.attempts.browser(cookies),
                replaces=this_session().digest,
            )
        began_at = self.sessions.store.index.redis_clock.at(attempt.started_at)
        attempt = msgspec.structs.replace(attempt, began_at=began_at)
        response = make_response(redirect(url, 302))
        response.headers["Referrer-Policy"] = "no-referrer"
        for name in self.attempts.surplus(cookies, attempt):
            self._drop_cookie(response, name)
        self._keep_attempt(response, attempt)
        return response

    def callback(self) -> Response:
        """The authorization response: session, cookie, and on to where the person wanted to go."""
        with _audited():
            return self._finish(authorization_response())

    def _finish(self, answer: dict[str, str]) -> Response:
        state = answer.get("state")
        if state is None:
            raise refusal(answer["error"]) if "error" in answer else ResponseInvalid(reason="no state came")
        cookies = this_request().head.cookies()
        attempt = self.attempts.find(cookies, state)
        if attempt is None:
            raise StateUnknown(reason="no attempt of this browser has this state")
        try:
            code = self._code_of(answer, attempt)
        except Unavailable:
            raise  # nothing has been used: the same address works again in a moment
        except PublicError:
            self._drop_later(attempt)
            raise
        self._drop_later(attempt)
        return self._onward(attempt) if code is None else self._sign_in(code, attempt, answer, cookies)

    def _code_of(self, answer: dict[str, str], attempt: Attempt) -> str | None:
        """The code, claimed for this one redeem; None where `prompt=none` found nobody signed in."""
        self.provider.check_issuer(answer)
        if attempt.prompt == "none" and answer.get("error") in SILENT:
            return None
        code = self.provider.check_response(answer)
        self.provider.require_keys()  # before the claim: a code that is redeemed without them is lost
        self._claim(attempt)
        return code

    def _sign_in(
        self, code: str, attempt: Attempt, answer: dict[str, str], cookies: dict[str, list[str]]
    ) -> Response:
        signed_in = self.provider.redeem(code, attempt, partial(self._discard, attempt))
        record = self._begin(signed_in, attempt, answer.get("session_state"))
        self._refuse_if_cut_off(record, attempt)
        self._end_replaced(record, attempt, cookies)
        self._enforce_cap(record)
        self.audit.signed_in(record)
        return self._onward(attempt)

    def _claim(self, attempt: Attempt) -> None:
        """One redeem for each attempt, over all processes. Before that nothing is written: error answers,
        which anybody can bring about, cost Redis nothing."""
        left = max(1, int(attempt.expires_at - self.clock()) + 60)  # outlives the attempt
        if not self.sessions.store.claim_once(f"state {_sha256(attempt.state)}", left):
            raise StateUsed(reason="the state has been used before")

    def _discard(self, attempt: Attempt, tokens: TokenSet) -> None:
        """Revoke what a sign-in brought that nobody will ever hold. Not where it was to replace a session:
        providers count both as one grant, and end both."""
        if attempt.replaces is None:
            self.revoker.discard(tokens)

    def _begin(self, signed_in: SignedIn, attempt: Attempt, session_state: str | None) -> SessionRecord:
        """`session_state` is what OpenID Connect Session Management 1.0 §2 adds to the response."""
        identity, tokens = signed_in.identity, signed_in.tokens
        sid = identity.claims.get("sid")
        named = f"{self.issuer} {sid}".encode() if isinstance(sid, str) else None
        now = self.clock()
        meta = Meta(
            created=now,
            auth_time=identity.authenticated_at(now, asked=attempt.asks_afresh),
            user=user_hash(self.issuer, identity.subject),
            provider_sids=(sid_name(self.keyring.fingerprints("provider sid", named)[0]),) if named else (),
        )
        claims = identity.claims
        who = {"claims": public(claims), "hint": self._hint(claims), **self._where()}
        if session_state is not None and len(session_state) <= LONGEST_PARAMETER:
            who["session_state"] = session_state
        try:
            return self.sessions.begin(this_session(), meta, tokens, {WHO: who})
        except StoreUnavailable:
            self._discard(attempt, tokens)
            raise

    def _hint(self, claims: dict[str, Any]) -> str | None:
        """What names the person to the provider at the sign-out, as its profile has it."""
        found = (claims.get(name) for name in self.provider.profile.hint_claims)
        return next((value for value in found if isinstance(value, str) and 0 < len(value) <= 255), None)

    def _refuse_if_cut_off(self, record: SessionRecord, attempt: Attempt) -> None:
        """A sign-in that had begun before all sessions of its user were ended ends with them; others are
        settled."""
        current, store, user = this_session(), self.sessions.store, record.meta.user
        names = [user, *(record.meta.provider_sids or (without_sid(user),))]
        try:
            cut_off = store.index.is_cut_off(names, began_at=attempt.began_at, started_at=attempt.started_at)
            if not cut_off and store.settle(record):
                return
            self.sessions.end(current)
        except StoreUnavailable:  # whether it counts is not known: nobody gets its cookie
            current.vanish()
            self._discard(attempt, record.tokens)
            raise
        self._discard(attempt, record.tokens)
        raise SignInCutOff(reason="the user's sessions were ended while this sign-in was under way")

    def _enforce_cap(self, record: SessionRecord) -> None:
        if not self.sessions_per_user:
            return
        try:
            for each in self.directory.enforce(record.meta.user, self.sessions_per_user):
                self.audit.session_revoked(each, "cap")
                old = each.record
                if old is not None and not old.meta.shares_provider_session(record.meta):
                    self.revoker.discard(old.tokens)
        except StoreUnavailable as error:
            log.warning("oldest_session_not_ended", reason=error.reason)

    def _where(self) -> dict[str, str]:
        """What tells a person later which session this is."""
        admitted = this_request()
        agent = admitted.head.single(b"user-agent") or b""
        return {"browser": readable(agent.decode("latin-1")), "address": admitted.client}

    def _end_replaced(self, record: SessionRecord, attempt: Attempt, cookies: dict[str, list[str]]) -> None:
        """End the sessions that this sign-in takes the place of, so that none lives on unseen.

        Those of the same user end here alone: to many providers they and the new one are one session, or
        one grant, and whoever revokes the old tokens ends the new ones with them.
        """
        store, name = self.sessions.store, cast("str", this_session().digest)
        try:
            earlier = store.overtake(name, self.attempts.overlapping(cookies, attempt), LIFETIME_SECONDS)
            for replaced in {*earlier, *filter(None, [attempt.replaces])} - {name}:
                store.mark_replaced(replaced)
                for each in self.directory.end(replaced):
                    self.audit.session_revoked(each, "replaced")
                    old = each.record
                    if old is not None and old.meta.user != record.meta.user:
                        self.revoker.discard(old.tokens)
        except StoreUnavailable as error:
            log.warning("replaced_session_not_ended", reason=error.reason)

    def _onward(self, attempt: Attempt) -> Response:
        """To the return URL. A Strict cookie is withheld from a redirect that another site began, so a
        page of ours does the last step."""
        if not self.strict:
            response = make_response(redirect(attempt.return_url, 303))  # RFC 9700 §4.12
        else:
            response = make_response(render_template("signed_in.html", return_url=attempt.return_url))
            page_headers(response)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"  # the code is in this page's address
        return response

    def _keep_attempt(self, response: Response, attempt: Attempt) -> None:
        name, value = self.attempts.seal(attempt)
        left = max(1, int(attempt.expires_at - self.clock()))
        response.set_cookie(name, value, max_age=left, **self.attempt_cookie)

    def _drop_later(self, attempt: Attempt) -> None:
        """Drop the attempt's cookie with the answer, whatever that will be."""
        name = self.attempts.cookie_name(attempt.state)

        def drop(response: Response) -> Response:
            self._drop_cookie(response, name)
            return response

        after_this_request(drop)

    def _drop_cookie(self, response: Response, name: str) -> None:
        response.delete_cookie(name, **self.attempt_cookie)


@contextmanager
def _audited() -> Iterator[None]:
    """A sign-in that fails leaves a record: its code, the reason in our own words, and who asked."""
    try:
        yield
    except (SignInFailed, Unavailable) as error:
        reason = error.reason or None
        log.warning("sign_in_failed", code=error.code, reason=reason, address=this_request().client)
        raise


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
