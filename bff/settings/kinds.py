"""The kinds of values that settings have; each says what is wrong with one that it refuses."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretBytes, SecretStr

from bff.client_key import load_client_key
from bff.sealing import parse_key
from bff.settings.redis_url import parse_redis_url
from bff.tls import check_authorities, check_readable

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def split(separator: str | None) -> BeforeValidator:
    """A list comes as text from the environment and as an array from TOML."""

    def _split(value: object) -> object:
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, str):
            return [part.strip() for part in value.split(separator) if part.strip()]
        return value

    return BeforeValidator(_split)


def _bind(value: str) -> str:
    host, colon, port = value.rpartition(":")
    bare = host.count(":") > 0 and not (host.startswith("[") and host.endswith("]"))
    named = bool(host) and host.isascii() and host.isprintable()
    if bare or not (colon and named and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("is not HOST:PORT, as in 127.0.0.1:5003 or [::1]:5003")
    return value


def overlap(one: str, other: str) -> bool:
    """Whether two listen addresses are, or could be, the same: names count as any address of that port."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if int(port) != int(other_port):
        return False
    addresses = [_address(host), _address(other_host)]
    return any(address is None or address.is_unspecified for address in addresses) or (
        addresses[0] == addresses[1]
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


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
    parse_redis_url(value.get_secret_value())
    return value


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("is not a folder")
    return value.resolve()


def _client_key_file(value: Path) -> Path:
    try:
        load_client_key(value)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    return value.resolve()


def _readable(value: Path) -> Path:
    check_readable(value)
    return value.absolute()  # not what a link leads to now: renewal often turns it elsewhere


def _authorities(value: Path) -> Path:
    check_authorities(value)
    return value.absolute()


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
Names = Annotated[tuple[Text, ...], split(",")]
ClientKeyFile = Annotated[Path, AfterValidator(_client_key_file)]
Folder = Annotated[Path, AfterValidator(_folder)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
Authorities = Annotated[Path, AfterValidator(_authorities)]
Network = Annotated[IPNetwork, PlainValidator(_network)]
SecretKeys = Annotated[tuple[SecretStr, ...], split(","), Field(min_length=1), AfterValidator(_secret_keys)]
RedisURL = Annotated[SecretStr, AfterValidator(_redis_url)]
