"""`[[routes]]` of the TOML file: what is proxied, where to, and with which token."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
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
_NEVER_UP = frozenset(
    b"authorization cookie cookie2 host forwarded via x-request-id x-csrf traceparent tracestate expect "
    b"connection keep-alive te trailer transfer-encoding content-length upgrade service-worker "
    b"x-real-ip x-client-ip x-cluster-client-ip true-client-ip cf-connecting-ip x-http-method "
    b"x-http-method-override x-method-override x-original-method x-original-uri x-original-url "
    b"x-rewrite-url".split()
)
_OURS_UP = (b"proxy-", b"x-forwarded-", b"x-auth-request-", b"sec-")
_CORS = b"access-control-"

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")  # RFC 6749 §3.3
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+\Z")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+\Z")  # RFC 9110 §5.6.2


def never_back(name: bytes) -> bool:
    """Whether not even a route's own `response_headers` lets a header (in lower case) through: it would act
    with this origin's authority, or belongs to the connection."""
    return name in _NEVER_BACK or name.startswith(_CORS)


def never_up(name: bytes) -> bool:
    """Whether not even a route's own `request_headers` lets a header (in lower case) through: it is ours to
    send, belongs to the connection, or would have the upstream act on another address, path or method.
    With `_` it is another name to us and the same to CGI and WSGI."""
    return name in _NEVER_UP or name.startswith(_OURS_UP) or b"_" in name


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
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    encoded_slashes: bool = False
    upstream_ca_file: Path | None = None
    upstream_cert_file: Path | None = None
    upstream_key_file: Path | None = None
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

    @field_validator("request_headers")
    @classmethod
    def _passable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if forbidden := [name for name in value if never_up(name.lower().encode())]:
            raise ValueError(f"must not name {forbidden[0]}: the upstream would take it for ours, or obey it")
        return value

    @field_validator("request_headers", "response_headers")
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
        if (self.upstream_cert_file is None) != (self.upstream_key_file is None):
            raise ValueError("upstream_cert_file and upstream_key_file belong together")
        if (self.upstream_ca_file or self.upstream_cert_file) and not self.upstream.startswith("https:"):
            raise ValueError("upstream_ca_file and upstream_cert_file are for an upstream over https")
        _check_tls_files(self.upstream_ca_file, self.upstream_cert_file, self.upstream_key_file)
        if self.max_age is not None and self.anonymous:
            raise ValueError("max_age is about a user's sign-in: an anonymous route has none")
        return self


def _check_tls_files(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Better told now than at the first request."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(
            f"upstream_ca_file cannot be used: {error.strerror or type(error).__name__}"
        ) from None
    if certificate is None:
        return
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(f"upstream_cert_file and its key cannot be used: {reason}") from None


def _no_password() -> str:
    """Or OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")
