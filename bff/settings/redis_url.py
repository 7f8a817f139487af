"""`BFF_REDIS_URL`: one Redis, a primary that sentinels know, or a cluster. Pure, but for the TLS files.

redis://user:password@host:6379/0           rediss:// is the same over TLS
unix:///run/redis.sock?db=0
redis+sentinel://user:password@host:26379,host:26379/service/0
redis+cluster://user:password@host:6379,host:6379
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
_SENTINEL_OPTIONS = ("sentinel_password", "sentinel_username")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\s:\[\]/@,]+))(?::(?P<port>\d{1,5}))?\Z")
Requires = Literal["required", "optional", "none"]
_REQUIRES: dict[str, Requires] = {"required": "required", "optional": "optional", "none": "none"}
_YES, _NO = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


@dataclass(frozen=True, slots=True)
class Login:
    """Who connects; without a password, nobody in particular."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TLS:
    """How the certificate of Redis is judged, and what we show of ourselves. Paths are of PEM files."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: Requires = "required"
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """For a client's connections. Raises OSError where a file cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = ssl.VerifyMode[f"CERT_{self.cert_reqs.upper()}"]
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile, password="")  # or OpenSSL asks the terminal
        return context


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and how one gets in. `hosts` are the sentinels', or some of the cluster's nodes."""

    kind: Literal["one", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    """A socket's, in place of hosts."""
    service: str = ""
    """The name under which the sentinels know the primary."""
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: TLS | None = None

    @property
    def replicated(self) -> bool:
        """Whether another Redis may take over, so that writes have to reach it."""
        return self.kind != "one"


def parse_redis_url(text: str) -> RedisAddress:
    """The address that a URL names. Raises ValueError with what is wrong, without the URL's own words."""
    try:
        parts = urlsplit(text)
        login, places = _split_netloc(parts.netloc)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            "must begin with redis://, rediss:// or unix://, or with redis+sentinel:// or redis+cluster:// "
            "(rediss+… over TLS)"
        )
    options = _options(parts)
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("must name the socket's path, as in unix:///run/redis.sock")
        return RedisAddress("one", path=unquote(parts.path), db=_db(options.get("db", "")), login=login)
    tls = _tls(options) if parts.scheme.startswith("rediss") else None
    if parts.scheme.endswith("+sentinel"):
        return _of_sentinels(parts.path, places, options, login, tls)
    if parts.scheme.endswith("+cluster"):
        if parts.path not in ("", "/", "/0") or options.get("db", "0") != "0":
            raise ValueError("must name no database other than 0: a Redis Cluster has no other")
        example = "redis+cluster://host1:6379,host2:6379"
        return RedisAddress("cluster", _hosts(places, 6379, example), login=login, tls=tls)
    if not re.fullmatch(r"(?:/\d{0,4})?", parts.path):
        raise ValueError("must end with the number of a database, as in redis://127.0.0.1:6379/0")
    if "," in places:
        raise ValueError("names several hosts: begin with redis+sentinel:// or redis+cluster://")
    hosts = _hosts(places, 6379, "redis://127.0.0.1:6379/0")
    db = _db(options.get("db") or parts.path[1:])
    return RedisAddress("one", hosts, db=db, login=login, tls=tls)


def _of_sentinels(
    path: str, places: str, options: dict[str, str], login: Login, tls: TLS | None
) -> RedisAddress:
    example = "redis+sentinel://host1:26379,host2:26379/service/0"
    found = re.fullmatch(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>\d{0,4}))?", path)
    if found is None:
        raise ValueError(f"must end with the service's name and a database's number, as in {example}")
    sentinel_login = Login(options.get("sentinel_username"), options.get("sentinel_password"))
    if sentinel_login.username and not sentinel_login.password:
        raise ValueError("has a sentinel_username without a sentinel_password")
    return RedisAddress(
        "sentinel",
        _hosts(places, 26379, example),
        service=found["service"],
        db=_db(options.get("db") or found["db"] or ""),
        login=login,
        sentinel_login=sentinel_login,
        tls=tls,
    )


def _split_netloc(netloc: str) -> tuple[Login, str]:
    before, _, places = netloc.rpartition("@")
    username, _, password = before.partition(":")
    return Login(unquote(username) or None, unquote(password) or None), places


def _hosts(places: str, port: int, example: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for place in places.split(","):
        found = _HOST.match(place)
        if found is None or not 0 < int(found["port"] or port) < 65536:
            raise ValueError(f"must name hosts and their ports, as in {example}")
        hosts.append((found["six"] or found["name"], int(found["port"] or port)))
    return tuple(hosts)


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{0,4}", text):
        raise ValueError("must name a database by its number, as in db=0")
    return int(text or 0)


def _options(parts: SplitResult) -> dict[str, str]:
    """Others than these would change what we rely on, time-outs above all."""
    known = {"db"}
    known |= set(_TLS_OPTIONS) if parts.scheme.startswith("rediss") else set()
    known |= set(_SENTINEL_OPTIONS) if parts.scheme.endswith("+sentinel") else set()
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - known:
        hint = " (ssl_… go with rediss:// alone)" if unknown & set(_TLS_OPTIONS) else ""
        names = ", ".join(sorted(known))
        raise ValueError(f"has options that are not taken here ({len(unknown)}); known are {names}{hint}")
    return options


def _tls(options: dict[str, str]) -> TLS:
    requires = _REQUIRES.get(options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_"))
    hostname = options.get("ssl_check_hostname", "true").lower()
    if requires is None:
        raise ValueError("has an ssl_cert_reqs that is none of required, optional and none")
    if hostname not in _YES + _NO:
        raise ValueError("has an ssl_check_hostname that is neither true nor false")
    tls = TLS(
        options.get("ssl_ca_certs"),
        options.get("ssl_certfile"),
        options.get("ssl_keyfile"),
        requires,
        hostname in _YES,
    )
    if tls.keyfile is not None and tls.certfile is None:
        raise ValueError("has an ssl_keyfile without an ssl_certfile")
    _try_files(tls, options)
    return tls


def _try_files(tls: TLS, options: dict[str, str]) -> None:
    """A file that cannot be used is told at start, and not at the first sign-in."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options:
            try:
                with open(options[name], "rb"):  # noqa: PTH123 -- a path with a null byte is a ValueError here
                    pass
            except (OSError, ValueError):
                raise ValueError(f"names a file with {name} that cannot be read") from None
    try:
        tls.context()
    except OSError:
        raise ValueError(
            "names TLS files that cannot be used: ssl_ca_certs takes a PEM file of certificates, "
            "ssl_certfile and ssl_keyfile one of a certificate and one of its key, without a passphrase"
        ) from None
