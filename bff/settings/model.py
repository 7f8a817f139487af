"""All settings of the BFF, checked and frozen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from bff.settings.kinds import (
    URL,
    Authorities,
    BaseURL,
    Bind,
    ClientKeyFile,
    Folder,
    Network,
    Origin,
    ReadableFile,
    RedisURL,
    Seconds,
    SecretKeys,
    Text,
    overlap,
    split,
)
from bff.settings.redis_url import RedisAddress, parse_redis_url
from bff.settings.routes import WEATHER, RouteSettings, never_back
from bff.tls import FilesRefused, Identity, identity, server_context


class Settings(BaseModel):
    """The BFF's configuration. Field `x` is the environment's `BFF_X` and the TOML file's `x`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    env: Literal["production", "development"] = "production"
    bind: Bind = "127.0.0.1:5003"
    public_url: Origin
    tls_cert_file: ReadableFile | None = None
    tls_key_file: ReadableFile | None = Field(default=None, validate_default=True)
    workers: Annotated[int, Field(gt=0, le=100_000)] = Field(default_factory=lambda: os.cpu_count() or 1)
    oidc_issuer: URL
    oidc_ca_file: Authorities | None = None
    oidc_client_id: Text
    oidc_client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] = (
        "client_secret_basic"
    )
    oidc_client_secret: SecretStr | None = Field(default=None, validate_default=True)
    oidc_client_key_file: ClientKeyFile | None = Field(default=None, validate_default=True)
    service_client_id: Text | None = None
    service_client_secret: SecretStr | None = Field(default=None, validate_default=True)
    oidc_scope: Annotated[tuple[Text, ...], split(None)] = ("openid", "email", "profile")
    oidc_response_mode: Literal["query", "form_post"] = "query"
    oidc_id_token_hint: Literal["off", "on"] = "off"
    oidc_profile: Literal["auto", "cognito", "generic", "entra", "keycloak"] = "auto"
    redis_url: RedisURL
    redis_prefix: Text = "bff:"
    secret_keys: SecretKeys
    routes: tuple[RouteSettings, ...] = ()
    api_url: BaseURL | None = None
    api_ca_file: Authorities | None = None
    session_idle_seconds: Seconds = 1800
    session_max_seconds: Seconds = 28800
    sessions_per_user: Annotated[int, Field(ge=0, le=10_000)] = 0
    cookie_samesite: Literal["Strict", "Lax"] = "Strict"
    refresh_leeway_seconds: Annotated[int, Field(ge=0)] = 60
    provider_timeout_seconds: Seconds = 10
    upstream_timeout_seconds: Seconds = 30
    streams_per_session: Seconds = 20
    streams_per_worker: Seconds = 4096
    max_body_bytes: Annotated[int, Field(gt=0, le=2**50)] = 10_485_760
    max_header_bytes: Annotated[int, Field(ge=8192)] = 65_536
    static_dir: Folder | None = None
    csp: Text | None = None
    trusted_proxies: Annotated[tuple[Network, ...], split(",")] = ()
    forward_auth_bind: Bind | None = None
    rate_limit_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 600
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 5
    metrics_bind: Bind | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @property
    def production(self) -> bool:
        return self.env == "production"

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over https, so that cookies are Secure and carry `__Host-`."""
        return self.public_url.startswith("https://")

    @property
    def redis_address(self) -> RedisAddress:
        """Where sessions lie, and how we get in there."""
        return parse_redis_url(self.redis_url.get_secret_value())

    @property
    def local(self) -> bool:
        """Whether this is a stack on the very machine of its browser, beside others under the same name."""
        host = urlsplit(self.public_url).hostname or ""
        return not self.production and (host == "localhost" or host.endswith(".localhost"))

    @property
    def tls(self) -> Identity | None:
        """What this server shows where it speaks TLS itself."""
        return identity(self.tls_cert_file, self.tls_key_file)

    @property
    def redirect_uri(self) -> str:
        """The one literal redirect URI (RFC 9700 §4.1.3), to be registered at the provider."""
        return f"{self.public_url}/bff/callback"

    @property
    def user_resources(self) -> tuple[str, ...]:
        """The APIs that a user's token is for (RFC 8707), where routes name them."""
        named = (route.resource for route in self.routes if route.token in ("user", "user_or_client"))
        return tuple(dict.fromkeys(resource for resource in named if resource is not None))

    @property
    def warnings(self) -> list[str]:
        """What can be used but will not do what its author seems to expect, a sentence each."""
        found = [
            f"BFF_ROUTES[{number}][response_headers] names {name}, which never passes to browsers"
            for number, route in enumerate(self.routes)
            for name in route.response_headers
            if never_back(name.lower().encode())
        ]
        if self.forward_auth_bind and any(network.prefixlen == 0 for network in self.trusted_proxies):
            found.append("BFF_TRUSTED_PROXIES names every address: anybody may ask BFF_FORWARD_AUTH_BIND")
        return found

    @property
    def keys(self) -> list[bytes]:
        """The sealing keys, the newest first."""
        return [key.get_secret_value() for key in self.secret_keys]  # type: ignore[misc]

    @field_validator("public_url", "oidc_issuer")
    @classmethod
    def _https_in_production(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("env") == "production" and not value.startswith("https://"):
            raise ValueError("must be https in production (BFF_ENV=development allows http)")
        return value

    @field_validator("tls_cert_file")
    @classmethod
    def _reachable_over_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("public_url", "https://").startswith("https://"):
            raise ValueError("must be left out where BFF_PUBLIC_URL is http: browsers would not get in")
        return value

    @field_validator("tls_key_file")
    @classmethod
    def _with_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "tls_cert_file" not in info.data:
            return value
        certificate = info.data["tls_cert_file"]
        if (value is None) != (certificate is None):
            raise ValueError("must be set together with BFF_TLS_CERT_FILE: both or neither")
        if value is not None:
            try:
                server_context(Identity(certificate, value))
            except FilesRefused as error:
                raise ValueError(f"or BFF_TLS_CERT_FILE is wrong: {error}") from None
        return value

    @field_validator("oidc_client_secret")
    @classmethod
    def _some_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("oidc_client_auth", "private_key_jwt") != "private_key_jwt":
            raise ValueError("is missing: that client's secret (or BFF_OIDC_CLIENT_SECRET_FILE)")
        if value is not None and not value.get_secret_value():
            raise ValueError("must not be empty")
        return value

    @field_validator("oidc_client_key_file")
    @classmethod
    def _some_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("oidc_client_auth") == "private_key_jwt":
            raise ValueError("is missing: the PEM or JWK file of this client's private key")
        return value

    @field_validator("service_client_secret")
    @classmethod
    def _of_the_service_client(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "service_client_id" in info.data and (value is None) != (info.data["service_client_id"] is None):
            raise ValueError("and BFF_SERVICE_CLIENT_ID go together: set both or neither")
        if value is not None and not value.get_secret_value():
            raise ValueError("must not be empty")
        return value

    @field_validator("oidc_response_mode")
    @classmethod
    def _cookies_that_come_along(cls, value: str, info: ValidationInfo) -> str:
        """A form_post comes from another site: only a cookie with SameSite=None, which must be Secure, is
        sent with it; browsers take one over http from this very machine alone."""
        url = info.data.get("public_url", "https://")
        if value == "form_post" and not url.startswith("https://") and urlsplit(url).hostname != "localhost":
            raise ValueError("must be query where BFF_PUBLIC_URL is neither https nor localhost")
        return value

    @field_validator("oidc_scope")
    @classmethod
    def _openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("must contain openid: without it there is no ID token, so nobody to sign in")
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _no_hash_tag(cls, value: str, info: ValidationInfo) -> str:
        """Braces decide which keys lie together in a Cluster; ours stand after the prefix."""
        url = info.data.get("redis_url")
        cluster = url is not None and parse_redis_url(url.get_secret_value()).kind == "cluster"
        if cluster and ("{" in value or "}" in value):
            raise ValueError("must have no { and no } with a Redis Cluster: they decide where keys lie")
        return value

    @field_validator("routes")
    @classmethod
    def _one_route_for_a_path(cls, value: tuple[RouteSettings, ...]) -> tuple[RouteSettings, ...]:
        paths = [route.path for route in value]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"has two routes with the path {', '.join(twice)}")
        return value

    @field_validator("forward_auth_bind")
    @classmethod
    def _a_listener_of_its_own(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        wrong = []
        if "bind" in info.data and overlap(value, info.data["bind"]):
            wrong.append("must be another address than BFF_BIND: there, browsers would be given tokens")
        if info.data.get("trusted_proxies") == ():  # missing where a network is malformed
            wrong.append("must come with BFF_TRUSTED_PROXIES: the proxies that may ask there")
        if wrong:
            raise ValueError("; and ".join(wrong))
        return value

    @field_validator("metrics_bind")
    @classmethod
    def _where_nobody_else_listens(cls, value: str | None, info: ValidationInfo) -> str | None:
        """What is counted is nobody's business but the operator's."""
        for other in ("bind", "forward_auth_bind"):
            taken = info.data.get(other)
            if value is not None and taken is not None and overlap(value, taken):
                raise ValueError(f"must be another address than BFF_{other.upper()}")
        return value

    @field_validator("static_dir")
    @classmethod
    def _a_built_app(cls, value: Path | None) -> Path | None:
        if value is not None and not (value / "index.html").is_file():
            raise ValueError("must be the folder of a built single-page app: it has no index.html")
        return value

    @field_validator("csp")
    @classmethod
    def _of_an_app(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("static_dir", value) is None:
            raise ValueError("is the policy of BFF_STATIC_DIR, which is not set")
        return value

    @field_validator("api_ca_file")
    @classmethod
    def _of_an_api_over_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not (info.data.get("api_url", "https://") or "").startswith("https://"):
            raise ValueError("is for a BFF_API_URL that begins with https://")
        return value

    @field_validator("api_url")
    @classmethod
    def _something_to_proxy(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("routes") == ():  # missing where a route is malformed
            raise ValueError("is missing: the origin of the API behind /weather (or configure [[routes]])")
        if value is not None and any(route.path == WEATHER for route in info.data.get("routes", ())):
            raise ValueError("is the upstream of /weather, and a route of [[routes]] has that path, too")
        return value
