"""Who may use the control page and API: nobody without the token, and no page of another origin."""

import hmac
import secrets

from flask import Response, request

from bff.dev_idp import cookies, forms
from bff.dev_idp.context import services
from bff.dev_idp.control.guesses import WINDOW_SECONDS
from bff.dev_idp.control.problems import ControlError
from bff.dev_idp.services import Services

ROOT = "/control"
PAGE_ROOT = "/control/page"
COOKIE_SECONDS = 3600


def is_control() -> bool:
    """Whether the request is for the page or the API."""
    # An issuer may have this very path: discovery is for everybody.
    return f"{request.path}/".startswith(f"{ROOT}/") and request.blueprint != "discovery"


def is_page() -> bool:
    """Whether a person gets the answer: of the control addresses these speak HTML."""
    return request.path.rstrip("/") == ROOT or f"{request.path}/".startswith(f"{PAGE_ROOT}/")


def check() -> None:
    """Refuse a control request that may not be answered. Runs before the views. Raises `ControlError`.

    A page of another origin is refused even with the right token. Where no token is set, there is no
    control page: 404, like every address that doesn't exist.
    """
    if not services().settings.control_token:
        raise ControlError(404, "Not Found", "Check the address and try again.")
    if is_page():
        if request.method not in ("GET", "HEAD"):
            _refuse_other_origins()
        return
    _refuse_other_origins()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized(
            "Send the header 'Authorization: Bearer' with the token that IDP_CONTROL_TOKEN holds."
        )
    if not is_token(token.strip()):
        raise _unauthorized("This is not the token that IDP_CONTROL_TOKEN holds.")


def is_token(given: str) -> bool:
    """Whether this is the token. Raises `ControlError` after too many wrong ones from one address."""
    held = services()
    address = request.remote_addr or ""
    if held.guesses.too_many(address):
        text = f"Too many wrong tokens came from your address. Wait {WINDOW_SECONDS} seconds."
        raise ControlError(429, "Too many requests", text, {"Retry-After": str(WINDOW_SECONDS)})
    if hmac.compare_digest(given.encode("utf-8", "surrogatepass"), held.settings.control_token.encode()):
        return True
    held.guesses.note(address)
    return False


def has_cookie() -> bool:
    """Whether this browser gave the token within the last hour."""
    held = services()
    value = cookies.read(held.settings, cookies.CONTROL)
    until, _, rest = value.partition(".")
    nonce, _, _ = rest.partition(".")
    if not hmac.compare_digest(value.encode("utf-8", "surrogatepass"), _signed(held, until, nonce).encode()):
        return False
    return int(until) > held.clock()


def give_cookie(response: Response) -> None:
    """Let this browser in for an hour. The cookie isn't the token: it can't be used at the API."""
    held = services()
    value = _signed(held, str(int(held.clock()) + COOKIE_SECONDS), secrets.token_urlsafe(16))
    cookies.write(held.settings, response, cookies.CONTROL, value, samesite="Strict", max_age=COOKIE_SECONDS)


def take_cookie(response: Response) -> None:
    """Remove the cookie."""
    cookies.delete(services().settings, response, cookies.CONTROL, samesite="Strict")


def _signed(held: Services, until: str, nonce: str) -> str:
    # With the token under the signature: a new token ends all cookies.
    signature = forms.sign("control", held.settings.control_token, until, nonce)
    return f"{until}.{nonce}.{signature}"


def _refuse_other_origins() -> None:
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "none")
    if (origin is not None and not forms.is_own(origin)) or site not in ("same-origin", "none"):
        raise ControlError(403, "Forbidden", "Pages of other origins may not use this.")


def _unauthorized(detail: str) -> ControlError:
    return ControlError(401, "Unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="control"'})
