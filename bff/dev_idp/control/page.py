"""The control page: the same as the API, for people. Plain forms, no script."""

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from bff.dev_idp import forms
from bff.dev_idp.context import services
from bff.dev_idp.control import access, actions
from bff.dev_idp.control.fault import (
    ENDPOINTS,
    KINDS,
    LONGEST_SECONDS,
    MOST_TIMES,
    USER_ENDPOINTS,
    describe,
)
from bff.dev_idp.control.problems import ControlError, bad
from bff.dev_idp.pages import page, redirect_to
from bff.dev_idp.strict_json import BadJson, parse

views = Blueprint("control_page", __name__, url_prefix="/control")

_MOST_USERS = 200
_MOST_CODES = 20


@views.get("/", strict_slashes=False)
def show() -> Response:
    """The page, or the form that asks for the token."""
    return _page() if access.has_cookie() else _entrance()


@views.post("/page/enter")
def enter() -> Response:
    """Take the token once and let this browser in for an hour."""
    forms.check()
    if not access.is_token(request.form.get("token", "").strip()):
        return _entrance(401, "This is not the token.")
    response = redirect_to(access.ROOT)
    access.give_cookie(response)
    return response


@views.post("/page/leave")
def leave() -> Response:
    """Forget that this browser was let in."""
    forms.check()
    response = redirect_to(access.ROOT)
    access.take_cookie(response)
    return response


@views.post("/page/faults")
def add_fault() -> Response:
    """One more fault, from the form's fields."""
    return _act(lambda: actions.add_fault(_described(request.form.to_dict())))


@views.post("/page/faults/delete")
def delete_faults() -> Response:
    """One fault less, or none any more."""
    number = request.form.get("number", "")
    return _act(lambda: actions.delete_faults(_whole(number, "number") if number else None))


@views.post("/page/keys")
def rotate_keys() -> Response:
    """New signing keys."""
    return _act(lambda: actions.rotate_keys(forget_old="forget_old" in request.form))


@views.post("/page/groups")
def set_groups() -> Response:
    """Replace a user's groups."""
    names = [name.strip() for name in request.form.get("groups", "").split(",")]
    account = request.form.get("user", "")
    return _act(lambda: actions.set_groups(actions.find_user(account), [name for name in names if name]))


@views.post("/page/revoke")
def revoke() -> Response:
    """End all refresh tokens of a user."""
    return _act(lambda: actions.revoke_user(actions.find_user(request.form.get("user", ""))))


def _act(action: Callable[[], object]) -> Response:
    """Do what a form of the page asks for and show the page again, with what is wrong if something is."""
    forms.check()
    if not access.has_cookie():
        return _entrance(401, "An hour is over: please give the token again.")
    try:
        action()
    except ControlError as error:
        return _page(error.status, error.detail)
    return redirect_to(access.ROOT)


def _described(form: dict[str, str]) -> dict[str, Any]:
    """A fault as the API takes it, from the fields that matter to its kind."""
    kind = form.get("kind", "")
    described: dict[str, Any] = {"kind": kind}
    if kind == "slow":
        described["seconds"] = _number(form.get("seconds", ""))
    if kind == "status":
        described["status"] = _whole(form.get("status", ""), "status")
    if kind == "error":
        described["error"] = form.get("error", "").strip()
    if kind == "claims":
        for name in ("id_token", "access_token"):
            described[name] = _json(form.get(name, "").strip() or "{}", name)
    found = {
        "endpoint": form.get("endpoint"),
        "fault": described,
        "times": _whole(form.get("times", ""), "times"),
    }
    user = form.get("user", "").strip()
    return {**found, "user": user} if user else found


def _whole(text: str, name: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise bad(f"'{name}' must be a whole number.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise bad("'seconds' must be a number.") from None


def _json(text: str, name: str) -> Any:
    try:
        return parse(text)
    except BadJson as error:
        raise bad(f"'{name}' can't be read: {error}") from None


def _entrance(status: int = 200, error: str = "") -> Response:
    return page("control_entrance.html", status, form_token=forms.token(), error=error)


def _page(status: int = 200, error: str = "") -> Response:
    held = services()
    return page(
        "control.html",
        status,
        form_token=forms.token(),
        error=error,
        users=held.accounts.all(most=_MOST_USERS),
        faults=[(number, fault, json.dumps(describe(fault.kind))) for number, fault in held.faults.all()],
        signing=held.keys.signing(),
        published=len(held.keys.jwks()["keys"]),
        confirmations=held.accounts.unconfirmed(most=_MOST_CODES),
        resets=held.resets.recent(most=_MOST_CODES),
        clients=held.clients.all(),
        endpoints=ENDPOINTS,
        user_endpoints=USER_ENDPOINTS,
        kinds=KINDS,
        longest_seconds=LONGEST_SECONDS,
        most_times=MOST_TIMES,
    )
