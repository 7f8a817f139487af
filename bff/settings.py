"""Settings: read once from the environment, secret files and a TOML file, then frozen.

Precedence: environment, then the file that `X_FILE` names, then the TOML file that `BFF_CONFIG` names.
All problems are reported together, each with the setting's name, the cause and the fix; no value that
could be a secret appears in a problem or in a repr.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretBytes,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bff.sealing import KEY_BYTES, parse_key

PREFIX = "BFF_"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(ValueError):
    """The configuration cannot be used; `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _split(separator: str | None) -> BeforeValidator:
    """A list comes as text from the environment and as an array from TOML."""

    def split(value: object) -> object:
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, str):
            return [part.strip() for part in value.split(separator) if part.strip()]
        return value

    return BeforeValidator(split)


def _bind(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("is not HOST:PORT, as in 127.0.0.1:5003")
    return value


def _url(value: str) -> str:
    """An absolute http(s) URL in the form that browsers write: lower case, no default port."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with https:// (or http:// where that is allowed) and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user name or password")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("must have no query and no fragment")
    if not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("has a character that does not belong in a URL")
    if parts.netloc != parts.netloc.lower():
        raise ValueError("must have its host in lower case, as browsers write it")
    if port == {"http": 80, "https": 443}[parts.scheme] or parts.netloc.endswith(":"):
        raise ValueError("must leave out the default port, as browsers do")
    return value


def _origin(value: str) -> str:
    url = _url(value).removesuffix("/")
    if urlsplit(url).path:
        raise ValueError("must be an origin: scheme, host and port, without a path")
    return url


def _base_url(value: str) -> str:
    url = _url(value).removesuffix("/")
    path = urlsplit(url).path
    if "//" in path or any(part in (".", "..") for part in path.split("/")) or "%" in path:
        raise ValueError("must have a plain base path, without empty or dot segments")
    return url


def _network(value: object) -> IPNetwork:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        raise ValueError("is not a network in CIDR form, as in 10.0.0.0/8 or 192.0.2.7/32") from None


def _secret_keys(values: tuple[SecretStr, ...]) -> tuple[SecretBytes, ...]:
    return tuple(SecretBytes(parse_key(value.get_secret_value())) for value in values)


def _redis_url(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("must name the socket's path, as in unix:///run/redis.sock")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError("must name a host, as in redis://127.0.0.1:6379/0")
    return value


def _filled(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError("must be printable ASCII text and not empty")
    return value


Text = Annotated[str, AfterValidator(_filled)]
Bind = Annotated[str, AfterValidator(_bind)]
URL = Annotated[str, AfterValidator(_url)]
Origin = Annotated[str, AfterValidator(_origin)]
BaseURL = Annotated[str, AfterValidator(_base_url)]
Seconds = Annotated[int, Field(gt=0, le=10**9)]  # Redis refuses an expiry beyond all bounds
Names = Annotated[tuple[Text, ...], _split(",")]


class RouteSettings(BaseModel):
    """One `[[routes]]` table: what is proxied, where to, and with which token."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    path: str
    upstream: BaseURL
    methods: tuple[Literal[METHODS], ...] = ("GET", "HEAD")  # type: ignore[valid-type]
    token: Literal["user", "none"] = "user"
    timeout_seconds: Seconds | None = None
    csrf: Literal["header", "fetch-metadata"] = "header"
    response_headers: tuple[str, ...] = ()
    anonymous: bool = False

    @field_validator("methods")
    @classmethod
    def _some_method(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("must name each method once, and at least one")
        return value

    @model_validator(mode="after")
    def _anonymous_has_no_user(self) -> RouteSettings:
        if self.anonymous and self.token == "user":
            raise ValueError('anonymous = true needs token = "none": a user\'s token needs a user')
        return self


class Settings(BaseModel):
    """The BFF's configuration. Field `x` is the environment's `BFF_X` and the TOML file's `x`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    env: Literal["production", "development"] = "production"
    bind: Bind = "127.0.0.1:5003"
    public_url: Origin
    workers: Seconds = Field(default_factory=lambda: os.cpu_count() or 1)
    oidc_issuer: URL
    oidc_client_id: Text
    oidc_client_secret: SecretStr
    oidc_client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    oidc_scope: Annotated[tuple[Text, ...], _split(None)] = ("openid", "email", "profile")
    oidc_profile: Literal["auto", "cognito", "generic"] = "auto"
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)]
    redis_prefix: Text = "bff:"
    secret_keys: Annotated[
        tuple[SecretStr, ...], _split(","), Field(min_length=1), AfterValidator(_secret_keys)
    ]
    routes: tuple[RouteSettings, ...] = ()
    api_url: BaseURL | None = None
    session_idle_seconds: Seconds = 1800
    session_max_seconds: Seconds = 28800
    cookie_samesite: Literal["Strict", "Lax"] = "Strict"
    refresh_leeway_seconds: Annotated[int, Field(ge=0)] = 60
    provider_timeout_seconds: Seconds = 10
    upstream_timeout_seconds: Seconds = 30
    max_body_bytes: Seconds = 10_485_760
    max_header_bytes: Annotated[int, Field(ge=8192)] = 65_536
    trusted_proxies: Annotated[tuple[Annotated[IPNetwork, PlainValidator(_network)], ...], _split(",")] = ()
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
    def redirect_uri(self) -> str:
        """The one literal redirect URI (RFC 9700 §4.1.3), to be registered at the provider."""
        return f"{self.public_url}/bff/callback"

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

    @field_validator("oidc_client_secret")
    @classmethod
    def _some_secret(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            raise ValueError("must not be empty")
        return value

    @field_validator("oidc_scope")
    @classmethod
    def _openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("must contain openid: without it there is no ID token, so nobody to sign in")
        return value

    @field_validator("api_url")
    @classmethod
    def _something_to_proxy(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("routes") == ():  # missing where a route is malformed
            raise ValueError("is missing: the origin of the API behind /weather (or configure [[routes]])")
        return value


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that `environ` (usually `os.environ`) asks for. Raises SettingsError."""
    values, problems = _gather(environ)
    if values.get("env") == "development":
        values.setdefault("log_format", "text")
        values.setdefault("secret_keys", _generated_key())
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += _describe(error, {problem.split(" ", 1)[0] for problem in problems})
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _gather(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Raw values by field name, the stronger source last, and what could not be read."""
    values, problems = _from_toml(environ.get("BFF_CONFIG"))
    for field, info in Settings.model_fields.items():
        name = PREFIX + field.upper()
        secret = "Secret" in str(info.annotation)
        if field == "routes":
            continue
        if secret and name + "_FILE" in environ:
            if name in environ:
                problems.append(f"{name} and {name}_FILE are both set; keep one")
                continue
            _read_secret(name, environ[name + "_FILE"], field, values, problems)
        if name in environ:
            values[field] = environ[name]
    return values, problems


def _from_toml(path: str | None) -> tuple[dict[str, Any], list[str]]:
    if not path:
        return {}, []
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8")), []
    except OSError as error:
        return {}, [f"BFF_CONFIG cannot be read: {error.strerror}"]
    except tomllib.TOMLDecodeError as error:
        return {}, [f"BFF_CONFIG is not TOML: {error}"]
    except UnicodeDecodeError:
        return {}, ["BFF_CONFIG is not UTF-8"]


def _read_secret(name: str, path: str, field: str, values: dict[str, Any], problems: list[str]) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        problems.append(f"{name}_FILE cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{name}_FILE is not UTF-8")
    else:
        values[field] = text.removesuffix("\n").removesuffix("\r")


def _generated_key() -> str:
    """Development only: sessions do not outlive the process (`bff dev` keeps a key of its own)."""
    import base64

    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


_FIXES: dict[str, str] = {
    "public_url": "the origin that browsers use, as in https://app.example.com",
    "oidc_issuer": "the provider's issuer, exactly as its discovery document names it",
    "oidc_client_id": "the client that you registered at the provider",
    "oidc_client_secret": "that client's secret (or BFF_OIDC_CLIENT_SECRET_FILE)",
    "redis_url": "where sessions live, as in redis://127.0.0.1:6379/0",
    "secret_keys": "make one with `bff keys new`",
}


def _describe(error: ValidationError, known: set[str]) -> list[str]:
    """One line for each failed check: name, cause, fix. Input is never quoted: it may be a secret."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        field, *where = (str(part) for part in item["loc"] or ("routes",))
        name = PREFIX + field.upper() + "".join(f"[{part}]" for part in where)
        if {name, name + "_FILE"} & known:
            continue
        lines.append(_sentence(name, field, item["type"], item["msg"]))
    return lines


def _sentence(name: str, field: str, kind: str, message: str) -> str:
    if kind == "missing":
        return f"{name} is missing: {_FIXES.get(field, 'set it')}"
    if kind == "extra_forbidden":
        return f"{name} in the file that BFF_CONFIG names is not a setting; check its spelling"
    text = message.removeprefix("Value error, ")
    verb = "" if text.startswith(("is ", "must ", "has ")) else "is wrong: "
    return f"{name} {verb}{text[0].lower() + text[1:]}"
