"""The pages on which a user who forgot the password sets a new one, under the addresses that Cognito uses."""

import logging

from flask import Blueprint, Response, request

from bff.dev_idp import authorization, forms, passwords
from bff.dev_idp.context import services
from bff.dev_idp.pages import page, redirect_to

log = logging.getLogger(__name__)

views = Blueprint("forgot_password", __name__)


@views.get("/forgotPassword")
def form() -> Response:
    """The page that asks for the e-mail address. Its address holds the authorization request."""
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    return page(
        "forgot_password.html",
        query=authorization.query(request.args),
        form_token=forms.token(),
        username=request.args.get("login_hint", "")[:320],
    )


@views.post("/forgotPassword")
def ask() -> Response:
    """Make a code and ask for it. The page is the same whether there is such a user or not."""
    forms.check()
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    username = request.form.get("username", "").strip()[:320]
    code, account = services().resets.ask(username)
    if account is None:
        log.info("password reset asked for an address that has no account")
    else:
        log.info("password reset code for %s: %s", account.email, code)
    return _code_page(username, code=code)


@views.get("/confirmForgotPassword")
def ask_again() -> Response:
    """A reloaded second page: it begins with the first."""
    return redirect_to(f"/forgotPassword?{authorization.query(request.args)}")


@views.post("/confirmForgotPassword")
def finish() -> Response:
    """Check the code and set the password; from there the way leads to the sign-in page."""
    forms.check()
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    username = request.form.get("username", "").strip()[:320]
    password = request.form.get("password", "")
    if missing := passwords.shortcomings(password):
        return _code_page(username, problem=f"The password needs {', '.join(missing)}.")
    account = services().resets.finish(username, request.form.get("code", ""), password)
    if account is None:
        text = "This is not the code, or it can't be used any more. You can ask for another one."
        return _code_page(username, problem=text)
    log.info("password changed: %s", account.sub)
    return page("password_changed.html", query=authorization.query(request.args))


def _code_page(username: str, *, code: str = "", problem: str = "") -> Response:
    return page(
        "reset_password.html",
        query=authorization.query(request.args),
        form_token=forms.token(),
        username=username,
        code=code,
        problem=problem,
        in_console=log.isEnabledFor(logging.INFO),
    )
