"""The head of a request: headers that come twice, cookies as hostile as they come, and whom to believe."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.request import RequestHead, TrustedProxies
from tests.fakes import head

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])


def test_a_header_that_comes_twice_is_no_single_one() -> None:
    """Who trusts the first and who trusts the last would disagree: a repeated header counts as none."""
    request_head = head(("Host", "a"), ("Accept", "x"), ("Host", "b"), ("Host", "c"), ("Empty", ""))
    assert request_head.single(b"host") is None
    assert request_head.values(b"host") == [b"a", b"b", b"c"]
    assert request_head.single(b"accept") == b"x"
    assert request_head.single(b"empty") == b""
    assert request_head.has(b"empty")
    assert request_head.single(b"none") is None
    assert request_head.values(b"none") == []
    assert not request_head.has(b"none")


BFF = "__Host-bff"


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([], None),
        ([""], None),
        (["__Host-bff=v"], "v"),
        (["a=1; __Host-bff=v; b=2"], "v"),
        (["a=1;__Host-bff=v;b=2"], "v"),
        (["a=1", "__Host-bff=v"], "v"),
        ([" \t__Host-bff \t=\t v \t"], "v"),
        (["__Host-bff="], ""),
        (["__Host-bff=a=b=="], "a=b=="),
        (['__Host-bff="v"'], '"v"'),
        (['a="; __Host-bff=v; b="'], "v"),  # quotes do not hide what is between them
        (["__Host-bff"], None),
        (["__Host-bff; a=1"], None),
        (["=__Host-bff"], None),
        (["=__Host-bff=v"], None),
        (["__host-bff=v"], None),
        (["x__Host-bff=v"], None),
        (["__Host-bffx=v"], None),
        (["a=__Host-bff=v"], None),
        (["__Host-bff=v; __Host-bff=v"], None),
        (["__Host-bff=v", "__Host-bff=w"], None),
        (["__Host-bff=v; __Host-bff="], None),
        (["__Host-bff=; __Host-bff=v"], None),
        (["__Host-bff=v; \t__Host-bff\t=w"], None),
        (["__Host-bff=v,__Host-bff=w"], "v,__Host-bff=w"),  # a comma does not separate cookies
    ],
)
def test_our_cookie(headers: list[str], value: str | None) -> None:
    """One of ours that came exactly once, by its exact name; both ways to ask agree."""
    request_head = head(*[("Cookie", header) for header in headers])
    assert request_head.cookie(BFF) == value
    values = request_head.cookies().get(BFF, [])
    assert (values[0] if len(values) == 1 else None) == value


BLANK_LOOKALIKES = ["\u2000", "\u00a0", "\u0085", "\u3000", "\v", "\f", "\u001c", "\ufeff"]


@pytest.mark.parametrize("blank", BLANK_LOOKALIKES, ids=ascii)
def test_a_blank_lookalike_is_part_of_the_name(blank: str) -> None:
    """Browsers take `U+2000__Host-bff` from any page of the site: trimmed, it would become ours."""
    for octets in {blank.encode("utf-8"), blank.encode("latin-1", "ignore")} - {b""}:
        raw = octets + b"__Host-bff=planted; __Host-bff" + octets + b"=planted"
        request_head = RequestHead("GET", b"/", b"", [(b"cookie", raw)], None)
        assert request_head.cookie(BFF) is None
        assert BFF not in request_head.cookies()


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_the_two_ways_to_ask_for_a_cookie_never_disagree(headers: list[bytes]) -> None:
    """Whatever bytes come, nothing crashes, and one parser holds for both planes."""
    joined = [(b"cookie", b"b=1;" + header.replace(b"\x01", b"b=")) for header in headers]
    request_head = RequestHead("GET", b"/", b"", joined, None)
    values = request_head.cookies().get("b", [])
    assert request_head.cookie("b") == (values[0] if len(values) == 1 else None)


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.0.0.1", True),
        ("11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:10.0.0.1", True),  # a dual-stack listener shows IPv4 peers so
        ("::ffff:11.0.0.1", False),
        ("unix:", False),
        ("", False),
        (None, False),
        ("10.0.0.1:80", False),
        ("010.0.0.1", False),
    ],
)
def test_who_is_trusted(address: str | None, trusted: bool) -> None:
    """Configured networks only, IPv4 and IPv6, mapped addresses included."""
    assert PROXIES.trusts(address) is trusted


def test_nobody_is_trusted_by_default() -> None:
    """Without configuration `X-Forwarded-*` is the client's own claim."""
    nobody = TrustedProxies([])
    request_head = head(("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Host", "evil.example"), ("Host", "us"))
    assert nobody.client_address(request_head) == "192.0.2.1"
    assert nobody.host(request_head) == b"us"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7,10.9.9.9", "10.8.8.8"], "203.0.113.7"),
        (["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["2001:db9::7"], "2001:db9::7"),
        (["[2001:db9::7]"], "2001:db9::7"),
        (["[2001:db9::7]:4711"], "2001:db9::7"),
        (["203.0.113.7, 2001:db8::5"], "203.0.113.7"),
        (["203.0.113.7, ::ffff:10.1.1.1"], "203.0.113.7"),
        (["\t203.0.113.7 "], "203.0.113.7"),
        # What cannot be read ends the walk at the last hop that was vouched for.
        (["unknown"], "10.0.0.1"),
        (["203.0.113.7, unknown"], "10.0.0.1"),
        (["203.0.113.7, evil, 10.9.9.9"], "10.9.9.9"),
        ([""], "10.0.0.1"),
        (["203.0.113.7,"], "10.0.0.1"),
        (["203.0.113.7 evil"], "10.0.0.1"),
        (["fe80::1%<script>"], "10.0.0.1"),
        (["[fe80::1%25\x00]"], "10.0.0.1"),
        (["1.1.1.1\u00a0"], "10.0.0.1"),
        (["_hidden", "127.1"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(forwarded: list[str], client: str) -> None:
    """What stands to its left was written by the client itself."""
    request_head = head(*[("X-Forwarded-For", value) for value in forwarded], peer="10.0.0.1")
    assert PROXIES.client_address(request_head) == client


@pytest.mark.parametrize(("peer", "client"), [("203.0.113.9", "203.0.113.9"), (None, "unknown")])
def test_an_untrusted_peer_is_the_client(peer: str | None, client: str) -> None:
    """Its `X-Forwarded-For` is not even looked at; a peer without an address has none."""
    request_head = head(("X-Forwarded-For", "1.2.3.4"), peer=peer)
    assert PROXIES.client_address(request_head) == client


@pytest.mark.parametrize(
    ("headers", "peer", "host"),
    [
        ([("Host", "inner")], "10.0.0.1", b"inner"),
        ([("Host", "inner"), ("X-Forwarded-Host", "app.example.com")], "10.0.0.1", b"app.example.com"),
        ([("Host", "inner"), ("X-Forwarded-Host", "evil, app.example.com")], "10.0.0.1", b"app.example.com"),
        (
            [("Host", "inner"), ("X-Forwarded-Host", "evil"), ("X-Forwarded-Host", "app.example.com")],
            "10.0.0.1",
            b"app.example.com",
        ),
        ([("Host", "inner"), ("X-Forwarded-Host", "evil")], "203.0.113.9", b"inner"),
        ([("Host", "inner"), ("X-Forwarded-Host", "evil")], None, b"inner"),
        ([("Host", "a"), ("Host", "b")], "203.0.113.9", None),
        ([], "10.0.0.1", None),
        ([("Host", "inner"), ("X-Forwarded-Host", "")], "10.0.0.1", b""),
    ],
)
def test_the_host_that_the_browser_asked_for(
    headers: list[tuple[str, str]], peer: str | None, host: bytes | None
) -> None:
    """The proxy's word where it is trusted, else the one Host header."""
    assert PROXIES.host(head(*headers, peer=peer)) == host
