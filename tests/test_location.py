"""What an upstream's answers point to: mapped where that is here, refused where it leads away."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.errors import UpstreamUnreachable
from bff.location import Pointing

PUBLIC = "https://app.example.com"


def public(reference: str, upstream: str = "http://api:5001") -> str | None:
    found = Pointing(upstream, PUBLIC).public(reference.encode("latin-1"))
    return None if found is None else found.decode("latin-1")


@pytest.mark.parametrize(
    ("reference", "upstream", "mapped"),
    [
        ("/weather/7", "http://api:5001", "/weather/7"),
        ("/weather?x=//y#z", "http://api:5001", "/weather?x=//y#z"),
        ("http://api:5001/weather/7?a=b#c", "http://api:5001", "/weather/7?a=b#c"),
        ("HTTP://API:5001/weather", "http://api:5001", "/weather"),
        ("http://api:5001", "http://api:5001", "/"),
        ("http://api:5001?a", "http://api:5001", "/?a"),
        ("http://api/x", "http://api:80", "/x"),
        ("http://api:80/x", "http://api", "/x"),
        ("https://app.example.com/weather", "http://api:5001", "/weather"),
        ("https://app.example.com:443/weather", "http://api:5001/base", "/weather"),
        ("/base/weather", "http://api:5001/base", "/weather"),
        ("http://api:5001/base/weather?q", "http://api:5001/base", "/weather?q"),
        ("http://api:5001/base", "http://api:5001/base", "/"),
        ("/base?q", "http://api:5001/base", "/?q"),
        ("7", "http://api:5001/base", "7"),
        ("?page=2", "http://api:5001", "?page=2"),
        ("#top", "http://api:5001", "#top"),
        ("../x", "http://api:5001", "../x"),
        ("a/b:c", "http://api:5001", "a/b:c"),
    ],
)
def test_what_is_mapped(reference: str, upstream: str, mapped: str) -> None:
    """The upstream's own address becomes a path of ours, its base path taken off; ours stays a path."""
    assert public(reference, upstream) == mapped


ELSEWHERE = [
    "https://evil.example/",
    "http://app.example.com/weather",  # not our scheme
    "http://api:5002/x",
    "https://api:5001/x",
    "//evil.example/x",
    "//api:5001/x",
    "/\\evil.example",
    "\\\\evil.example",
    "\\evil",
    "/\t/evil.example",
    "\t//evil.example",
    " https://evil.example",
    "http://api:5001//evil.example",
    "http://api:5001/\\evil.example",
    "http://api:5001\\@evil.example/",
    "http://user@api:5001/x",
    "http://api:5001@evil.example/x",
    "http://api:99999/x",
    "http://[::1/x",
    "javascript:alert(1)",
    "data:text/html,x",
    "https:evil.example",
    "http:/evil.example",
    "x:y",
    "/a\x00b",
    "/a\nb",
]


@pytest.mark.parametrize("reference", ELSEWHERE)
def test_what_leads_elsewhere(reference: str) -> None:
    """Other origins, and whatever a browser could read as one, are not passed on as a redirect."""
    assert public(reference) is None
    with pytest.raises(UpstreamUnreachable):
        Pointing("http://api:5001", PUBLIC).mapped([(b"location", reference.encode("latin-1"))], 302)


@pytest.mark.parametrize(
    "reference", ["/other", "/basement/x", "http://api:5001/", "/bas", "/base//evil.example"]
)
def test_outside_of_the_base_path(reference: str) -> None:
    """What no request through us can reach is elsewhere, too."""
    assert public(reference, "http://api:5001/base") is None


def test_answers_that_are_no_redirects() -> None:
    """A new resource's address is mapped, and passes where it is another's; links likewise."""
    pointing = Pointing("http://api:5001", PUBLIC)
    assert pointing.mapped([(b"location", b"http://api:5001/x/7"), (b"etag", b"e")], 201) == [
        (b"location", b"/x/7"),
        (b"etag", b"e"),
    ]
    assert pointing.mapped([(b"location", b"http://other:1/x")], 201) == [(b"location", b"http://other:1/x")]
    link = b'<http://api:5001/x?page=2>; rel="next", <https://docs.example/>; rel="help"'
    assert pointing.mapped([(b"link", link)], 200) == [
        (b"link", b'</x?page=2>; rel="next", <https://docs.example/>; rel="help"')
    ]
    assert pointing.mapped([(b"content-location", b"http://api:5001/x")], 200) == [
        (b"content-location", b"/x")
    ]


@given(st.text(alphabet="/\\:.@?#%\t ahtps105", max_size=24))
def test_a_redirect_stays_here(reference: str) -> None:
    """Whatever is passed on, resolved against any address of ours, is an address of ours."""
    found = public(reference, "http://a:1")
    if found is not None:
        target = urlsplit(urljoin(PUBLIC + "/weather/x", found))
        assert (target.scheme, target.netloc) == ("https", "app.example.com")
        assert "\\" not in found
        assert not found.startswith("//")
