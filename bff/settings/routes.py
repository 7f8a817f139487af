"""`[[routes]]` of the TOML file: what is proxied, where to, and with which token."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from bff.errors import BadRequest
from bff.paths import canonical
from bff.settings.kinds import BaseURL, Seconds

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WEATHER = "/weather"
"""The built-in route, to `BFF_API_URL`."""
OURS = ("/bff", "/health", "/static")
"""Below these nothing can be proxied."""
_NEVER_BACK = frozenset(
    b"set-cookie set-cookie2 server service-worker-allowed clear-site-data refresh connection keep-alive "
    b"proxy-authenticate proxy-connection te trailer transfer-encoding upgrade".split()
)
_CORS = b"access-control-"

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")  # RFC 6749 §3.3
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+\Z")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+\Z")  # RFC 9110 §5.6.2


def never_back(name: bytes) -> bool:
    """Whether not even a route's own `response_headers` lets a header (in lower case) through: it would act
    with this origin's authority, or belongs to the connection."""
    return name in _NEVER_BACK or name.startswith(_CORS)


class RouteSettings(BaseModel):
    """One `[[routes]]` table: what is proxied, where to, and with which token."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    path: str
    upstream: BaseURL
    methods: tuple[Literal[METHODS], ...] = ("GET", "HEAD")  # type: ignore[valid-type]
    token: Literal["user", "client", "user_or_client", "none"] = "user"
    scope: str | None = None
    resource: str | None = None
    max_age: Seconds | None = None
    timeout_seconds: Seconds | None = None
    stream: Literal["sse", "websocket"] | None = None
    csrf: Literal["header", "fetch-metadata"] = "header"
    response_headers: tuple[str, ...] = ()
    anonymous: bool = False

    @field_validator("path")
    @classmethod
    def _matchable(cls, value: str) -> str:
        """Written otherwise than it is matched, or in our own space, a route would be a quiet surprise."""
        try:
            plain = canonical(value.encode())
        except BadRequest as error:
            raise ValueError(f"cannot be matched: {error.detail}") from None
        if plain != value or value.endswith("/"):
            raise ValueError("must be written as it is matched, without a slash at its end")
        if any(value == ours or value.startswith(ours + "/") for ours in OURS):
            raise ValueError("belongs to this server itself")
        return value

    @field_validator("response_headers")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_TOKEN.match(name) for name in value):
            raise ValueError("must be names of headers, as in X-File-Id")
        return value

    @field_validator("methods")
    @classmethod
    def _some_method(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("must name each method once, and at least one")
        return value

    @field_validator("scope")
    @classmethod
    def _some_scope(cls, value: str | None) -> str | None:
        if value is not None and not all(_SCOPE.match(each) for each in value.split(" ")):
            raise ValueError("must be scopes, separated by one blank each")
        return value

    @field_validator("resource")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not _RESOURCE.match(value):  # RFC 8707 §2
            raise ValueError("must be an absolute URI without a fragment")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> RouteSettings:
        if self.stream == "websocket" and "GET" not in self.methods:
            raise ValueError('stream = "websocket" needs the method GET, which opens every WebSocket')
        if self.anonymous and self.token in ("user", "user_or_client"):
            raise ValueError(
                'anonymous = true needs token = "client" or "none": a user\'s token needs a user'
            )
        if self.scope is not None and self.token not in ("client", "user_or_client"):
            raise ValueError(
                'scope is what a client\'s token is asked for: it needs token = "client" or '
                '"user_or_client" (a user\'s token has the scopes of BFF_OIDC_SCOPE)'
            )
        if self.resource is not None and self.token == "none":
            raise ValueError("resource is what a token is for: it needs one")
        if self.max_age is not None and self.anonymous:
            raise ValueError("max_age is about a user's sign-in: an anonymous route has none")
        return self
