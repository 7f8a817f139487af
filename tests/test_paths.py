"""The canonical path: what could be read in two ways is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import BadRequest
from bff.paths import canonical, check_query


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"/", "/"),
        (b"/weather", "/weather"),
        (b"/weather/", "/weather/"),
        (b"/a/b.c/~d_e-f", "/a/b.c/~d_e-f"),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/...", "/..."),
        (b"/a..b", "/a..b"),
        (b"/a/..b", "/a/..b"),
        (b"/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        (b"/%77eather", "/weather"),
        (b"/%7Euser", "/~user"),
        (b"/a%2db%5fc", "/a-b_c"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/%e0%a4%85%f0%9f%98%80", "/%E0%A4%85%F0%9F%98%80"),
        (b"/%20", "/%20"),
        (b"/%22%3c%3E", "/%22%3C%3E"),
        (b"/%ff", "/%FF"),
        (b"/.%41", "/.A"),
    ],
)
def test_canonical_forms(path: bytes, form: str) -> None:
    """Escapes of plain characters are undone, the others in upper case (RFC 3986 §6.2.2)."""
    assert canonical(path) == form


REFUSED = [
    b"",
    b"*",
    b"weather",
    b"//",
    b"//weather",
    b"/a//b",
    b"/a//",
    b"/.",
    b"/..",
    b"/./a",
    b"/../a",
    b"/a/.",
    b"/a/..",
    b"/a/./b",
    b"/a/../b",
    b"/%2e",
    b"/%2e%2E/a",
    b"/.%2e/a",
    b"/a/%2e./",
    b"/a;b",
    b"/a;jsessionid=1",
    b"/..;/a",
    b"/a%3bb",
    b"/a%2fb",
    b"/a%2Fb",
    b"/a%5cb",
    b"/a\\b",
    b"/a%23b",
    b"/a#b",
    b"/a?b",
    b"/a%3fb",
    b"/a%25b",
    b"/a%252fb",
    b"/%252e%252e/",
    b"/a%00",
    b"/a%0a",
    b"/a%0d%0aX:y",
    b"/a%09",
    b"/a%1f",
    b"/a%7f",
    b"/a\x00",
    b"/a b",
    b"/a\tb",
    b"/a\nb",
    b"/weather\n",
    b"/a\x7f",
    b"/a\x80",
    "/caf\u00e9".encode(),
    b"/%",
    b"/%2",
    b"/%g0",
    b"/%%41",
    b"/%u0041",
    b"/\xc0\xae\xc0\xae/",
    b"/%c0%ae%c0%ae/",
    b"/a%C0%AFb",
    b"/a%c1%9cb",
    b"/%e0%80%ae%e0%80%ae/",
    b"/a%F0%80%80%AFb",
    b'/"',
    b"/<",
    b"/>",
    b"/^",
    b"/`",
    b"/{a}",
    b"/a|b",
    b"/[a]",
    b"http://evil.com/",
]


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_servers_read_in_different_ways_are_refused(path: bytes) -> None:
    """Encoded slashes, dot and empty segments, parameters, controls: 400, whatever lies behind."""
    with pytest.raises(BadRequest) as caught:
        canonical(path)
    assert caught.value.detail


PATH_PIECES = st.sampled_from(
    [
        b"/",
        b"/",
        b".",
        b"..",
        b"a",
        b"weather",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%41",
        b"%c3",
        b"%",
        b"%25",
        b";",
        b"%3B",
    ]
    + [b"\\", b"?", b"#", b" ", b"\n", b"\x00", b"\xff", b"~", b"-", b"@", b"%7e", b"%00", b"%20"]
)
PATHS = st.one_of(
    st.lists(PATH_PIECES, max_size=10).map(lambda pieces: b"/" + b"".join(pieces)),
    st.binary(max_size=20),
)


@given(PATHS)
def test_the_canonical_form_is_one_form(path: bytes) -> None:
    """It is its own canonical form, plain ASCII, and has no dot, empty or parameter segment."""
    try:
        form = canonical(path)
    except BadRequest:
        return
    assert canonical(form.encode()) == form
    assert form.startswith("/")
    segments = form[1:].split("/")
    assert "" not in segments[:-1]
    for segment in segments:
        plain = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        assert plain not in (".", "..")
    assert re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-F]{2})*", form)
    assert not re.search("%(2F|5C|23|3F|25|3B|[01].|7F)", form)


@pytest.mark.parametrize("query", [b"", b"a=1&b=2", b"?path=/public", b"%23%2f", b"a;b", b"\\", b"[]"])
def test_a_query_is_sent_as_it_came(query: bytes) -> None:
    """It decides nothing here, so that what is odd in it is the upstream's affair."""
    check_query(query)


@pytest.mark.parametrize("query", [b" ", b"a b", b"a\n", b"a\r\nX: y", b"\x00", b"\x7f", "ü".encode()])
def test_a_query_that_http_does_not_allow_is_refused(query: bytes) -> None:
    """Blanks and controls would end the request line early."""
    with pytest.raises(BadRequest):
        check_query(query)


@pytest.mark.parametrize(
    ("path", "form"),
    [(b"/a%2Fb", "/a%2Fb"), (b"/a%2fb%20c", "/a%2fb%20c"), (b"/%2F", "/%2F"), (b"/a%2f", "/a%2f")],
)
def test_encoded_slashes_where_they_may_pass(path: bytes, form: str) -> None:
    """They stay as they were sent, upper or lower case."""
    assert canonical(path, encoded_slashes=True) == form


@pytest.mark.parametrize("path", [path for path in REFUSED if b"%2f" not in path.lower()])
def test_nothing_else_passes_with_encoded_slashes(path: bytes) -> None:
    """What else is refused, is refused then, too."""
    with pytest.raises(BadRequest):
        canonical(path, encoded_slashes=True)
