"""The head of a request as both planes see it: bytes in, one small immutable view, no I/O."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import ClassVar

from bff.settings import IPNetwork

Headers = list[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}\Z")
_BLANKS = b" \t"  # only these two are blank in a Cookie header (RFC 6265 §4.2.1): U+2000 is not


class RequestHead:
    """Method, raw path, query and headers of one request.

    `path` and `query` are the bytes of the request target, undecoded; header names are lower case.
    """

    __slots__ = ("_by_name", "_id", "headers", "method", "path", "peer", "query", "trace")

    def __init__(self, method: str, path: bytes, query: bytes, headers: Headers, peer: str | None) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.trace: Headers | None = None
        """What goes upstream in place of the caller's trace context, where a span of ours stands between."""
        self._id: bytes | None = None
        self._by_name: dict[bytes, bytes | list[bytes]] = dict(headers)
        if len(self._by_name) != len(headers):  # one has come twice
            self._by_name = _gathered(headers)

    @property
    def request_id(self) -> bytes:
        """The caller's request id where it is harmless, else one of ours: it has to be unique, not secret.
        The same each time."""
        if self._id is None:
            given = self.single(b"x-request-id")
            self._id = given if given is not None and _REQUEST_ID.match(given) else new_request_id()
        return self._id

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in order."""
        found = self._by_name.get(name)
        if found is None:
            return []
        return found if isinstance(found, list) else [found]

    def single(self, name: bytes) -> bytes | None:
        """The value of a header that came exactly once; a repeated one counts as none."""
        found = self._by_name.get(name)
        return found if isinstance(found, bytes) else None

    def has(self, name: bytes) -> bool:
        return name in self._by_name

    def cookies(self) -> dict[str, list[str]]:
        """Cookies by name. The one parser for both planes.

        Each name keeps all its values: one of ours that comes twice counts as none (cookie tossing), and
        only the caller knows which names are ours.
        """
        found: dict[str, list[str]] = {}
        for header in self.values(b"cookie"):
            for pair in header.split(b";"):
                name, equals, value = pair.partition(b"=")
                if equals:
                    found.setdefault(_text(name), []).append(_text(value))
        return found

    def cookie(self, name: str) -> str | None:
        """The value of a cookie that came exactly once."""
        header = self._by_name.get(b"cookie")
        if header is None:
            return None
        if isinstance(header, list):
            header = b";".join(header)
        values = _cookie_named(name).findall(header)
        return _text(values[0]) if len(values) == 1 else None


def _gathered(headers: Headers) -> dict[bytes, bytes | list[bytes]]:
    """The values of each header, in a list where it came more than once."""
    found: dict[bytes, bytes | list[bytes]] = {}
    for name, value in headers:
        earlier = found.get(name)
        if earlier is None:
            found[name] = value
        elif isinstance(earlier, list):
            earlier.append(value)
        else:
            found[name] = [earlier, value]
    return found


def new_request_id() -> bytes:
    return b"%032x" % random.getrandbits(128)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that has passed every check that needs no session, on its way to the control plane."""

    KEY: ClassVar[str] = "bff.admitted"

    head: RequestHead
    client: str
    """The browser's address."""
    reads_session: bool
    page: bool
    """Whether a person looks at the answer, so that errors are pages."""


@cache  # for the few names of ours
def _cookie_named(name: str) -> re.Pattern[bytes]:
    """Finds the values of one cookie, as `cookies` would."""
    return re.compile(rb"(?:\A|;)[ \t]*" + re.escape(name.encode()) + rb"[ \t]*=([^;]*)")


def _text(value: bytes) -> str:
    return value.strip(_BLANKS).decode("latin-1")


class TrustedProxies:
    """Who is believed about the client: `X-Forwarded-*` from configured peers only (RFC 9700 §4.13)."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str | None) -> bool:
        if not self._networks or address is None:
            return False
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self._networks)

    def client_address(self, head: RequestHead) -> str:
        """The rightmost address that is not a trusted proxy's; "unknown" where the peer has none.

        What stands to the left of it is the client's own claim and is not believed.
        """
        address = head.peer or "unknown"
        if not self._networks or not self.trusts(head.peer):
            return address
        hops = [hop for value in head.values(b"x-forwarded-for") for hop in value.split(b",")]
        for hop in reversed(hops):
            try:
                address = str(ip_address(_bare(hop.strip(_BLANKS).decode("latin-1"))))
            except ValueError:
                return address
            if not self.trusts(address):
                return address
        return address

    def host(self, head: RequestHead) -> bytes | None:
        """The host that the browser asked for: `X-Forwarded-Host` from a trusted peer, else `Host`."""
        if self._networks and head.has(b"x-forwarded-host") and self.trusts(head.peer):
            return head.values(b"x-forwarded-host")[-1].rpartition(b",")[2].strip(_BLANKS)
        return head.single(b"host")


def _bare(hop: str) -> str:
    """Without a port: some proxies write `192.0.2.7:1234` or `[2001:db8::7]:1234`.

    A zone id may be any text to `ipaddress`, and means nothing on another machine: no address of ours.
    """
    if "%" in hop:
        return ""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
