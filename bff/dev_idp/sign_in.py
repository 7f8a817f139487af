"""The authorization endpoint and the sign-in page."""

import logging
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oidc.core.errors import LoginRequiredError
from flask import Blueprint, Response, request

from bff.dev_idp import authorization, cookies, forms
from bff.dev_idp.accounts import Account
from bff.dev_idp.authorization import Parameters
from bff.dev_idp.context import services
from bff.dev_idp.control import injection
from bff.dev_idp.local_users import TEST_USERS
from bff.dev_idp.pages import page, redirect_to
from bff.dev_idp.prompts import Interaction, needed

log = logging.getLogger(__name__)

views = Blueprint("sign_in", __name__)


@views.route("/oauth2/authorize", methods=["GET", "POST"])
def authorize() -> Response:
    """Answer from the browser's session, or send the browser to the sign-in page."""
    parameters = request.form if request.method == "POST" else request.args
    grant = authorization.judge(parameters)
    if isinstance(grant, Response):
        return grant
    session = authorization.current_session()
    if fault := injection.at_authorize(session, parameters.get("login_hint", "")):
        return fault if isinstance(fault, Response) else authorization.refuse(parameters, fault)
    interaction = needed(
        parameters.get("prompt", ""),
        authorization.max_age(parameters),
        session,
        services().clock(),
    )
    if interaction is Interaction.NONE and session is not None:
        return authorization.answer(grant, session)
    if interaction is Interaction.SIGN_IN:
        return redirect_to(f"/login?{authorization.query(parameters)}")
    if interaction is Interaction.LOGIN_REQUIRED:
        return authorization.refuse(parameters, LoginRequiredError())
    return authorization.refuse(
        parameters, InvalidRequestError("'prompt=none' can't be combined with another value.")
    )


@views.get("/login")
def login() -> Response:
    """The sign-in page. Its address holds the authorization request, as at Cognito."""
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    return _page(request.args, username=request.args.get("login_hint", "")[:320])


@views.post("/login")
def sign_in() -> Response:
    """Check the password; on success start a session and answer the authorization request."""
    forms.check()
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    username = request.form.get("username", "")
    account = services().accounts.authenticate(username, request.form.get("password", ""))
    if account is None:
        log.info("sign-in refused: incorrect user name or password")
        return _page(
            request.args,
            username=username[:320],
            error="The e-mail address or the password is not correct.",
        )
    if not account.confirmed:
        return confirmation_page(request.args, account)
    return signed_in(grant, account)


def signed_in(grant: Any, account: Account) -> Response:
    """Start a session for the user and answer the judged authorization request with it."""
    if fault := injection.at_sign_in(account):
        return fault if isinstance(fault, Response) else authorization.refuse(request.args, fault)
    held = services()
    old = cookies.read(held.settings, cookies.SESSION)
    session, value = held.sessions.start(account.sub, replaces=old)
    log.info("signed in: %s", account.sub)
    response = authorization.answer(grant, session)
    cookies.write(held.settings, response, cookies.SESSION, value)
    return response


def confirmation_page(parameters: Parameters, account: Account, error: str | None = None) -> Response:
    """The page that asks a new user for the code. No mail is sent: it shows the code itself."""
    code = services().accounts.confirmation_code(account.sub)
    log.info("confirmation code for %s: %s", account.email, code)
    return page(
        "confirm.html",
        query=authorization.query(parameters),
        form_token=forms.token(),
        ticket=forms.ticket(account.sub),
        email=account.email,
        code=code,
        in_console=log.isEnabledFor(logging.INFO),
        error=error,
    )


def _page(parameters: Parameters, *, username: str, error: str | None = None) -> Response:
    return page(
        "login.html",
        query=authorization.query(parameters),
        form_token=forms.token(),
        username=username,
        error=error,
        test_users=TEST_USERS,
    )
