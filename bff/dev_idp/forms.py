"""Protects the provider's forms: only a page of ours, in the same browser, can post them."""

import hmac
import re
import secrets
from hashlib import sha256

from flask import Response, g, request

from bff.dev_idp import cookies
from bff.dev_idp.context import services
from bff.dev_idp.environment import host_of, split_url
from bff.dev_idp.pages import PageError

_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


def token() -> str:
    """The value for a form's hidden field `form_token`."""
    return sign("form", _browser())


def check() -> None:
    """Refuse a POST that no page of ours in this browser can have sent.

    Raises `PageError`. The origin is compared as well as the token, since a neighbour on the same
    host can plant cookies, and with them a token pair of its own (sign-in CSRF).
    """
    origin = request.headers.get("Origin")
    expected = sign("form", cookies.read(services().settings, cookies.FORM))
    given = request.form.get("form_token", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode()) or (
        origin is not None and not is_own(origin)
    ):
        raise PageError(
            403,
            "Please try again",
            "This form came from another page or has become too old. Go back and send it again.",
        )


def ticket(sub: str) -> str:
    """Says that this browser just gave the password of this user, who isn't confirmed yet."""
    return f"{sub}.{sign('confirm', _browser(), sub)}"


def read_ticket(value: str) -> str | None:
    """The user that a ticket of this browser speaks of, or None."""
    sub, _, signature = value.rpartition(".")
    expected = sign("confirm", cookies.read(services().settings, cookies.FORM), sub)
    if sub and hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), expected.encode()):
        return sub
    return None


def set_cookie(response: Response) -> Response:
    """Give the browser its form cookie if a form was made and it had none; runs on every answer."""
    if (fresh := g.get("fresh_form_cookie")) is not None:
        cookies.write(services().settings, response, cookies.FORM, fresh)
    return response


def _browser() -> str:
    value = cookies.read(services().settings, cookies.FORM)
    if _COOKIE_VALUE.fullmatch(value):
        return value
    if "fresh_form_cookie" not in g:
        g.fresh_form_cookie = secrets.token_urlsafe(32)
    fresh: str = g.fresh_form_cookie
    return fresh


def sign(*parts: str) -> str:
    """A signature over these parts that only this provider can make; the first says what it is for."""
    message = "\n".join(parts).encode("utf-8", "surrogatepass")
    return hmac.new(services().form_key, message, sha256).hexdigest()


def is_own(origin: str) -> bool:
    """Whether an `Origin` header names the origin that this request came to."""
    return split_url(origin) is not None and host_of(origin) == request.host.lower()
