"""The pages on which a new user signs up and confirms the e-mail address."""

import logging

from flask import Blueprint, Response, request

from bff.dev_idp import authorization, forms
from bff.dev_idp.accounts import SignUp
from bff.dev_idp.context import services
from bff.dev_idp.pages import page, redirect_to
from bff.dev_idp.sign_in import confirmation_page, signed_in

log = logging.getLogger(__name__)

views = Blueprint("sign_up", __name__)


@views.get("/signup")
def form() -> Response:
    """The sign-up page. Its address holds the authorization request."""
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    return _page(SignUp(email="", password="", name=""), [])


@views.post("/signup")
def sign_up() -> Response:
    """Add the user, unconfirmed, and ask for the confirmation code."""
    forms.check()
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    wish = SignUp(
        email=request.form.get("username", "").strip(),
        password=request.form.get("password", ""),
        name=request.form.get("name", "").strip(),
    )
    if problems := wish.problems():
        return _page(wish, problems)
    account = services().accounts.sign_up(wish)
    if account is None:
        return _page(wish, ["There is already an account with this e-mail address."])
    log.info("signed up: %s", account.sub)
    return confirmation_page(request.args, account)


@views.get("/confirm")
def confirm_again() -> Response:
    """A reloaded confirmation page: signing in leads back to it."""
    return redirect_to(f"/login?{authorization.query(request.args)}")


@views.post("/confirm")
def confirm() -> Response:
    """Check the code; on success the user is signed in."""
    forms.check()
    grant = authorization.judge(request.args)
    if isinstance(grant, Response):
        return grant
    sub = forms.read_ticket(request.form.get("ticket", ""))
    account = services().accounts.by_sub(sub) if sub else None
    if account is None or account.confirmed:
        return confirm_again()
    if not services().accounts.confirm(account.sub, request.form.get("code", "")):
        return confirmation_page(request.args, account, error="This is not the code.")
    log.info("confirmed: %s", account.sub)
    return signed_in(grant, account)


def _page(wish: SignUp, problems: list[str]) -> Response:
    return page(
        "signup.html",
        query=authorization.query(request.args),
        form_token=forms.token(),
        email=wish.email[:320],
        name=wish.name[:320],
        problems=problems,
    )
