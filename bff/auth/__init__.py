"""`/bff/*`: sign-in, user and sign-out. Rare, rich requests; each reads top to bottom."""

from __future__ import annotations

from flask import Blueprint

from bff.auth.sign_in import SignIn
from bff.auth.sign_out import SignOut
from bff.auth.user import User

__all__ = ["SignIn", "SignOut", "User", "blueprint"]


def blueprint(sign_in: SignIn, user: User, sign_out: SignOut) -> Blueprint:
    """The routes. Methods are checked in front, by the same table."""
    routes = Blueprint("auth", __name__)
    routes.get("/bff/login")(sign_in.login)
    routes.route("/bff/callback", methods=["GET", "POST"], endpoint="callback")(sign_in.callback)
    routes.get("/bff/user")(user.user)
    routes.get("/bff/sessions")(user.own_sessions)
    routes.delete("/bff/sessions")(user.end_others)
    routes.delete("/bff/sessions/<name>")(user.end_one)
    routes.route("/bff/logout", methods=["GET", "POST"], endpoint="logout")(sign_out.logout)
    routes.post("/bff/backchannel")(sign_out.backchannel)
    return routes
