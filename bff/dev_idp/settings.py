"""The provider's settings, read once from the environment.

It is a tool for development only, so every setting has a default that suits the local stack,
the client's secret included; with `BFF_ENV=production` it refuses to start at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bff.dev_idp.environment import Environment, host_of

DEFAULT_CLIENT_ID = "local-client"
# Published on purpose: it protects nothing but a provider that serves made-up users on loopback.
DEFAULT_CLIENT_SECRET = "local-client-secret-for-development-only"


class SettingsError(ValueError):
    """The configuration can't be used.

    `problems` holds one line for each problem: the environment variable, the cause, the fix.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """Everything the provider can be told from outside. Lifetimes are in seconds."""

    bind: str = "127.0.0.1:5002"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    issuer: str = "http://localhost:5002/local_pool"
    public_url: str = "http://127.0.0.1:5002"
    backend_url: str = "http://127.0.0.1:5002"
    client_id: str = DEFAULT_CLIENT_ID
    client_secret: str = field(default=DEFAULT_CLIENT_SECRET, repr=False)
    redirect_uris: tuple[str, ...] = ("http://localhost:5003/bff/callback",)
    logout_uris: tuple[str, ...] = ("http://localhost:5003/",)
    service_client_id: str = ""
    service_client_secret: str = field(default="", repr=False)
    scope_api: str = "api://weather/access"
    access_token_seconds: int = 300
    refresh_token_seconds: int = 86400
    refresh_rotation: bool = True
    refresh_grace_seconds: int = 0
    control_token: str = field(default="", repr=False)
    state_file: Path | None = None
    log_level: str = "info"
    log_format: str = "text"

    @property
    def issuer_path(self) -> str:
        """The path below which discovery and JWKS lie; the issuer's final slash isn't doubled."""
        return urlsplit(self.issuer).path.rstrip("/")

    @property
    def hosts(self) -> frozenset[str]:
        """The values of `Host` that this provider answers to."""
        return frozenset(map(host_of, (self.public_url, self.backend_url, self.issuer)))

    @property
    def secure(self) -> bool:
        """Whether browsers reach the pages over https."""
        return self.public_url.startswith("https://")


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from environment variables.

    Raises `SettingsError` with all problems at once.
    """
    env = Environment(environ)
    _refuse_production(env)
    defaults = Settings()
    public_url = env.origin("IDP_PUBLIC_URL", defaults.public_url)
    service_id, service_secret = _service_client(env)
    certificate, key = _tls_files(env)
    settings = Settings(
        bind=env.bind("IDP_BIND", defaults.bind),
        tls_cert_file=certificate,
        tls_key_file=key,
        issuer=env.issuer("IDP_ISSUER", defaults.issuer),
        public_url=public_url,
        backend_url=env.origin("IDP_BACKEND_URL", public_url),
        client_id=env.text("IDP_CLIENT_ID", defaults.client_id),
        client_secret=env.secret("IDP_CLIENT_SECRET", defaults.client_secret),
        redirect_uris=env.urls("IDP_REDIRECT_URIS", defaults.redirect_uris),
        logout_uris=env.urls("IDP_LOGOUT_URIS", defaults.logout_uris),
        service_client_id=service_id,
        service_client_secret=service_secret,
        scope_api=_scope(env, defaults.scope_api),
        access_token_seconds=_seconds(env, "IDP_ACCESS_TOKEN_SECONDS", 300),
        refresh_token_seconds=_seconds(env, "IDP_REFRESH_TOKEN_SECONDS", 86400),
        refresh_rotation=env.choice("IDP_REFRESH_ROTATION", "on", ("on", "off")) == "on",
        refresh_grace_seconds=env.integer("IDP_REFRESH_GRACE_SECONDS", 0, least=0, most=86400),
        control_token=_control_token(env),
        state_file=_state_file(env),
        log_level=env.choice("IDP_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        log_format=env.choice("IDP_LOG_FORMAT", "text", ("text", "json")),
    )
    if env.problems:
        raise SettingsError(tuple(env.problems))
    return settings


def _refuse_production(env: Environment) -> None:
    if env.text("BFF_ENV", "").lower() == "production":
        env.problem(
            "BFF_ENV",
            "the local identity provider is for development and its passwords are published",
            "Use a real provider in production, or set BFF_ENV=development",
        )


def _service_client(env: Environment) -> tuple[str, str]:
    client_id = env.text("IDP_SERVICE_CLIENT_ID", "")
    secret = env.secret("IDP_SERVICE_CLIENT_SECRET", "")
    if client_id and not secret:
        env.problem("IDP_SERVICE_CLIENT_SECRET", "missing", "Set it together with IDP_SERVICE_CLIENT_ID")
    if secret and not client_id:
        env.problem("IDP_SERVICE_CLIENT_ID", "missing", "Set it together with IDP_SERVICE_CLIENT_SECRET")
    if client_id and client_id == env.text("IDP_CLIENT_ID", DEFAULT_CLIENT_ID):
        env.problem("IDP_SERVICE_CLIENT_ID", "the same as IDP_CLIENT_ID", "Give it a name of its own")
    return client_id, secret


def _tls_files(env: Environment) -> tuple[Path | None, Path | None]:
    certificate, key = env.text("IDP_TLS_CERT_FILE", ""), env.text("IDP_TLS_KEY_FILE", "")
    if bool(certificate) != bool(key):
        missing = "IDP_TLS_KEY_FILE" if certificate else "IDP_TLS_CERT_FILE"
        env.problem(missing, "missing", "Set both files, or neither")
    return (Path(certificate), Path(key)) if certificate and key else (None, None)


def _scope(env: Environment, default: str) -> str:
    scope = env.text("IDP_SCOPE_API", default)
    # RFC 6749 section 3.3: the characters a scope token may have; a blank would make two of it.
    if all("!" <= char <= "~" and char not in '"\\' for char in scope):
        return scope
    env.problem("IDP_SCOPE_API", "not a single scope", f"Give one scope, such as {default}")
    return default


def _seconds(env: Environment, name: str, default: int) -> int:
    return env.integer(name, default, least=1, most=315_360_000)


def _control_token(env: Environment) -> str:
    token = env.secret("IDP_CONTROL_TOKEN", "")
    # Visible ASCII: it travels in a header and is typed into a form.
    if not token or (16 <= len(token) <= 512 and all("!" <= char <= "~" for char in token)):
        return token
    env.problem(
        "IDP_CONTROL_TOKEN",
        "not 16 to 512 printable ASCII characters without blanks",
        "Give such a token, or leave it unset: then there is no control page",
    )
    return ""


def _state_file(env: Environment) -> Path | None:
    raw = env.text("IDP_STATE_FILE", "")
    if not raw:
        return None
    path = Path(raw)
    if path.is_dir() or not path.parent.is_dir():
        env.problem(
            "IDP_STATE_FILE",
            "not a file in an existing directory",
            "Name a file in a directory that exists, or leave it unset to keep state in memory",
        )
    return path
