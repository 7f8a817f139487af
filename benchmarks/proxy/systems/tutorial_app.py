"""A backend-for-frontend as tutorials show it: Flask, Authlib, Flask-Session and requests.

For comparison only: it knows no refresh, no CSRF header and no limits.
"""

from __future__ import annotations

import os

import redis
import requests
from authlib.integrations.flask_client import OAuth
from flask import Flask, Response, redirect, session, url_for
from flask_session import Session
from werkzeug.wrappers import Response as BaseResponse

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ["TUTORIAL_SECRET"],
    SESSION_TYPE="redis",
    SESSION_REDIS=redis.Redis.from_url(os.environ["TUTORIAL_REDIS_URL"]),
    SESSION_KEY_PREFIX="tutorial:",
)
Session(app)
provider = OAuth(app).register(
    "provider",
    client_id=os.environ["TUTORIAL_CLIENT_ID"],
    client_secret=os.environ["TUTORIAL_CLIENT_SECRET"],
    server_metadata_url=os.environ["TUTORIAL_ISSUER"] + "/.well-known/openid-configuration",
    client_kwargs={"scope": os.environ["TUTORIAL_SCOPE"], "code_challenge_method": "S256"},
)
UPSTREAMS = {"weather": os.environ["TUTORIAL_FAST"], "slow": os.environ["TUTORIAL_SLOW"]}


@app.get("/login")
def login() -> BaseResponse:
    """To the provider."""
    answer: BaseResponse = provider.authorize_redirect(url_for("callback", _external=True))
    return answer


@app.get("/callback")
def callback() -> BaseResponse:
    """Keep the tokens in the session."""
    token = provider.authorize_access_token()
    session["user"] = token["userinfo"]
    session["token"] = {name: token[name] for name in ("access_token", "refresh_token") if name in token}
    return redirect("/")


@app.get("/")
def home() -> str:
    """Where a sign-in ends."""
    return "signed in" if "user" in session else "signed out"


@app.get("/<name>")
def proxy(name: str) -> Response:
    """Ask the API with the user's token."""
    if "token" not in session:
        return Response(status=401)
    answer = requests.get(
        UPSTREAMS[name] + f"/{name}",
        headers={"Authorization": f"Bearer {session['token']['access_token']}"},
        timeout=30,
    )
    return Response(answer.content, answer.status_code, content_type=answer.headers["Content-Type"])
