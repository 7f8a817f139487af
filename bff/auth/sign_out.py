"""The sign-out, by the person or by the provider."""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from flask import Response, jsonify, make_response, redirect, request

from bff.audit import Audit
from bff.auth.asked import this_request, this_session
from bff.backchannel import BackChannel
from bff.errors import BadRequest, CSRFRequired, StoreUnavailable
from bff.provider.client import Provider
from bff.provider.revocation import Revoker
from bff.sessions.interface import BFFSession, SafeRedisSessionInterface
from bff.sessions.record import WHO, logout_sid


@dataclass(frozen=True)
class SignOut:
    """`/bff/logout` and `/bff/backchannel`."""

    provider: Provider
    sessions: SafeRedisSessionInterface
    revoker: Revoker
    audit: Audit
    back_channel: BackChannel

    def logout(self) -> Response:
        """The three forms of the sign-out: a script's POST, a form's POST, and a link."""
        current = this_session()
        if request.method == "POST":
            return self._logout_by_post(current)
        if not self._maybe_signed_in(current):
            return self._see_other("/")
        self._check_sid(current, request.args.getlist("sid"))
        return self._see_other(self._end(current))

    def _logout_by_post(self, current: BFFSession) -> Response:
        if this_request().head.has(b"x-csrf"):
            return jsonify(logout_url=self._end(current))
        if "sid" not in request.form:
            raise CSRFRequired("Signing out needs the header X-CSRF: 1, or a form of this site.")
        if self._maybe_signed_in(current):
            self._check_sid(current, request.form.getlist("sid"))
        return self._see_other(self._end(current))

    def _maybe_signed_in(self, current: BFFSession) -> bool:
        """Whether there is a session to end; one that cannot be read for now counts."""
        try:
            return current.record is not None
        except StoreUnavailable:
            return True

    def _check_sid(self, current: BFFSession, given: list[str]) -> None:
        expected = logout_sid(cast("str", current.sid))
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), expected.encode()):
            raise BadRequest("The sign-out link does not belong to this session.")

    def _end(self, current: BFFSession) -> str:
        """End the session here first, then at the provider; where the browser goes to sign out there."""
        hint = current.get(WHO, {}).get("hint")
        signed_in, held = True, None
        with suppress(StoreUnavailable):  # one that cannot be read for now may be there
            held = current.record
            signed_in = held is not None
        try:
            ended = self.sessions.end(current) or held  # sent twice, the second call finds nothing any more
        except StoreUnavailable:  # it may have ended; that it should is certain
            if held is not None:
                self.revoker.later(held.tokens)
            raise
        if ended is not None:
            self.revoker.soon(ended.tokens)
            self.audit.signed_out(ended)
        return self.provider.sign_out_url(hint, held.tokens if held else None) if signed_in else "/"

    def backchannel(self) -> Response:
        """The provider's own call: 200, or the error of LogoutTokenInvalid."""
        self.back_channel.logout(request.form.getlist("logout_token"))
        return Response(status=200)

    def _see_other(self, url: str) -> Response:
        response = make_response(redirect(url, 303))
        response.headers["Referrer-Policy"] = "no-referrer"
        return response
