"""Who may come in, and where a sign-in may lead: hostile input in tables, and a browser's own rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bff.errors import BadRequest, CSRFRequired
from bff.guard import DATA_POLICY, Guard, Proof, page_policy, safe_return_url, security_headers
from bff.request import RequestHead
from tests.fakes import head

US = "https://app.example.com"
GUARD = Guard(US)


@pytest.mark.parametrize(
    "value",
    [
        "/",
        "/path",
        "/path/",
        "/a/b?x=1&y=2#part",
        "/?next=https://evil.com",
        "/#//evil.com",
        "/?//evil.com",
        "/?a=\u00fc",
        "/a//b",
        "/a/../b",
        "/../..",
        "/.",
        "/.well-known/x",
        "/...",
        "/@evil.com",
        "/evil.com",
        "/:8080",
        "/a:b",
        "/a/https:",
        "/httpsx:",
        "/bffx",
        "/bff-x/login",
        "/bff.",
        "/x/bff/",
        "/bff/../x",
        "/bff%252Flogin",
        "/?/bff/login",
        "/%E2%82%AC",
        "/x%20y",
        "/" + "a" * 2047,
    ],
)
def test_paths_of_this_origin_pass_as_they_are(value: str) -> None:
    """A path, with a query and a fragment if need be, is what people return to."""
    assert safe_return_url(value) == value.replace("\u00fc", "%C3%BC")


def test_other_letters_are_written_as_browsers_send_them() -> None:
    """The result is ASCII: it goes into a header."""
    assert safe_return_url("/zürich/日本?q=ß#é") == "/z%C3%BCrich/%E6%97%A5%E6%9C%AC?q=%C3%9F#%C3%A9"


OUTSIDE = [
    "",
    " ",
    "x",
    "?x",
    "#x",
    ".",
    "..",
    "./x",
    "evil.com",
    "//evil.com",
    "///evil.com",
    "////evil.com",
    "/\\evil.com",
    "\\evil.com",
    "\\\\evil.com",
    "\\/evil.com",
    "/\\/evil.com",
    "//\\evil.com",
    "/ /evil.com",
    " /path",
    " //evil.com",
    "/path ",
    "/a b",
    "/\t/evil.com",
    "/\t\\evil.com",
    "\t//evil.com",
    "/\r\\evil.com",
    "/\n/evil.com",
    "/\r\n/evil.com",
    "/\t\t\\\t/evil",
    "/path\n",
    "/path\r\nSet-Cookie: a=b",
    "/path\x00",
    "/\x00/evil.com",
    "/\x0b/evil.com",
    "/\x0c/evil.com",
    "/\x1f/evil.com",
    "/\x7f/evil.com",
    "/%09/evil.com",
    "/%0a/evil.com",
    "/%0D%0A/evil.com",
    "/%20/evil.com",
    "/%00/evil.com",
    "/%5Cevil.com",
    "/%5c%5cevil.com",
    "/%2F",
    "/%2fevil.com",
    "/%2F%2Fevil.com",
    "/.//evil.com",
    "/./\\evil.com",
    "/./../../\\evil.com",
    "/..//evil.com",
    "/x/..//evil.com",
    "/x/%2e%2e//evil.com",
    "/x/%2E%2E%2F/evil.com",
    "/%2e//evil.com",
    "/x/../%2Fevil.com",
    "/a\\b",
    "/a?b\\c",
    "/a?b c",
    "/a#b\tc",
    "/HTTPS:",
    "/https:",
    "/http:evil.com",
    "/https:evil.com",
    "/HtTpS:/evil.com",
    "/%68ttps:evil.com",
    "/https%3Aevil.com",
    "/x/../https:evil.com",
    "https://evil.com",
    "https://evil.com\\@victim/",
    "https:evil.com",
    "https:/evil.com",
    "HTTPS://app.example.com/",
    "https://app.example.com/",
    "https://app.example.com@evil.com/",
    "http://app.example.com.evil.com",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "mailto:x@y",
    "@evil.com",
    ":80",
    "\ufeff//evil.com",
    "\u2028//evil.com",
    "／evil.com",
    "/\ud800",
    "/" + "a" * 2048,
    "/" + "\u20ac" * 700,
]


@pytest.mark.parametrize("value", OUTSIDE, ids=ascii)
def test_what_could_lead_away_is_refused(value: str) -> None:
    """Everything that got through elsewhere, and its relatives."""
    with pytest.raises(BadRequest):
        safe_return_url(value)


@pytest.mark.parametrize(
    "value",
    [
        "/bff",
        "/bff/",
        "/bff/login",
        "/BFF/login",
        "/bFf",
        "/bff?x",
        "/bff#x",
        "/bff/logout?sid=1",
        "/x/../bff/login",
        "/x/%2e%2e/bff/login",
        "/x/%2E./bff/login",
        "/./bff/login",
        "/../bff/login",
        "/bff/x/..",
        "/bff/.",
        "/%62ff/login",
        "/b%66%66/login",
        "/bff%2flogin",
        "/bff%5clogin",
        "/b%09ff/login",
        "/bff%00/login",
        "/bff/x%2F..",
        # A browser splits before it decodes: `x%2Fy` is one segment for it.
        "/x%2Fy/../bff/login",
        "/x%5Cy/../bff/login",
        "/x%2F..%2Fy/../bff/login",
        "/%2F..%2F../x/../bff/login",
    ],
)
def test_bff_is_no_place_to_return_to(value: str) -> None:
    """Signing in would go round in circles, or sign out again."""
    with pytest.raises(BadRequest):
        safe_return_url(value)


def browser_path(reference: str) -> str | None:
    """The path to which a browser resolves `reference` on our origin; None for another origin.

    The WHATWG URL parser's steps that matter here (https://url.spec.whatwg.org/#url-parsing): controls
    and blanks are stripped at both ends, tabs and newlines everywhere, a backslash is a slash, two slashes
    or a scheme begin another origin, dot segments are resolved and may be written with %2e.
    """
    text = re.sub(r"[\t\n\r]", "", reference.strip("".join(map(chr, range(0x21))))).replace("\\", "/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or text.startswith("//"):
        return None
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    segments: list[str] = []
    parts = path.split("/")[1:] if path.startswith("/") else path.split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        plain = re.sub("%2e", ".", part, flags=re.IGNORECASE)
        if plain == "..":
            segments = segments[:-1]
        if plain in (".", ".."):
            segments += [""] if last else []
        else:
            segments.append(part)
    return "/" + "/".join(segments)


PIECES = st.sampled_from(
    [
        "/",
        "//",
        "\\",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%2f",
        "%2F..%2F",
        "%5c",
        "%09",
        "\t",
        "\r",
        "\n",
        " ",
        "%00",
    ]
    + ["bff", "BFF", "b%66f", "%62ff", "login", "evil.com", "https:", "javascript:", "@", ":", "?", "#", ";"]
    + ["x", "ü", "\u2028", "\uff0f", "%", "%25", "%252e", "\x00", "\x7f", "\ud800"]
)
HOSTILE = st.one_of(
    st.lists(PIECES, max_size=9).map("".join),
    st.lists(PIECES, max_size=9).map(lambda pieces: "/" + "".join(pieces)),
    st.lists(PIECES, max_size=9).map(lambda pieces: "/" + "/".join(pieces)),
    st.text(max_size=20),
)


@given(HOSTILE)
@example("/x%2F/../bff/login")
def test_whatever_passes_stays_here_and_out_of_bff(value: str) -> None:
    """Resolved as a browser does it, every accepted value is on this origin and not below /bff/."""
    try:
        result = safe_return_url(value)
    except BadRequest:
        return
    assert result.isascii()
    assert result.isprintable()
    path = browser_path(result)
    assert path is not None
    assert not (path + "/").lower().startswith("/bff/")
    decoded = re.sub("%([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), path, flags=re.IGNORECASE)
    assert not (decoded + "/").lower().startswith("/bff/")


@pytest.mark.parametrize(
    "reference",
    [
        "//evil.com",
        "/\\evil.com",
        "/\t/evil.com",
        " //evil.com",
        "https:evil.com",
        "java\nscript:x",
        "\\\\evil.com",
    ],
)
def test_the_browser_of_these_tests_leaves_the_origin(reference: str) -> None:
    """The measure itself is sharp: what leads a browser away leads it away here too."""
    assert browser_path(reference) is None


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        (b"app.example.com", True),
        (b"APP.example.COM", True),
        (b"app.example.com:443", False),
        (b"app.example.com:8443", False),
        (b"app.example.com.", False),
        (b"app.example.com.evil.com", False),
        (b"evil.com", False),
        (b"127.0.0.1:5003", False),
        (b" app.example.com", False),
        (b"app.example.com@evil.com", False),
        (b"app.example.com,evil.com", False),
        (b"", False),
        (None, False),
    ],
)
def test_one_host_is_ours(host: bytes | None, fine: bool) -> None:
    """DNS rebinding and poisoned caches begin with another Host; none at all is no host either."""
    if fine:
        GUARD.check_host(host)
    else:
        with pytest.raises(BadRequest):
            GUARD.check_host(host)


def test_a_port_belongs_to_the_host() -> None:
    """`localhost:5003` is not `localhost`."""
    local = Guard("http://localhost:5003")
    local.check_host(b"localhost:5003")
    with pytest.raises(BadRequest):
        local.check_host(b"localhost")


def admitted(request_head: RequestHead, proof: Proof = Proof.HEADER) -> bool:
    """Whether the guard lets a request in."""
    try:
        GUARD.check_origin(request_head, proof)
    except CSRFRequired:
        return False
    return True


X = ("X-CSRF", "1")


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ([X], True),
        ([X, ("Origin", US)], True),
        ([X, ("Sec-Fetch-Site", "same-origin")], True),
        ([X, ("Origin", US), ("Sec-Fetch-Site", "same-origin")], True),
        ([], False),
        ([("X-CSRF", "0")], False),
        ([("X-CSRF", "")], False),
        ([("X-CSRF", "1 ")], False),
        ([("X-CSRF", "1,1")], False),
        ([X, X], False),
        ([("X_CSRF", "1")], False),
        ([("Origin", US)], False),
        ([("Sec-Fetch-Site", "same-origin")], False),
        ([X, ("Origin", "null")], False),
        ([X, ("Origin", "https://evil.com")], False),
        ([X, ("Origin", "http://app.example.com")], False),
        ([X, ("Origin", US + ":443")], False),
        ([X, ("Origin", US + "/")], False),
        ([X, ("Origin", "https://APP.example.com")], False),
        ([X, ("Origin", "https://sibling.example.com")], False),
        ([X, ("Origin", US + ".evil.com")], False),
        ([X, ("Origin", "")], False),
        ([X, ("Origin", US), ("Origin", US)], False),
        ([X, ("Origin", US), ("Origin", "https://evil.com")], False),
        ([X, ("Sec-Fetch-Site", "same-site")], False),
        ([X, ("Sec-Fetch-Site", "cross-site")], False),
        ([X, ("Sec-Fetch-Site", "none")], False),
        ([X, ("Sec-Fetch-Site", "")], False),
        ([X, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], False),
        ([X, ("Origin", US), ("Sec-Fetch-Site", "same-site")], False),
        ([X, ("Service-Worker", "script")], False),
        ([X, ("Service-Worker", "")], False),
    ],
)
def test_the_csrf_rule(headers: list[tuple[str, str]], fine: bool) -> None:
    """The header, and nothing that speaks against this origin, siblings included; for every method."""
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
        assert admitted(head(*headers, method=method)) is fine


@pytest.mark.parametrize(
    ("headers", "method", "fine"),
    [
        ([("Sec-Fetch-Site", "same-origin")], "GET", True),
        ([("Sec-Fetch-Site", "same-origin")], "HEAD", True),
        ([("Sec-Fetch-Site", "same-origin")], "POST", False),
        ([("Sec-Fetch-Site", "same-origin"), X], "POST", True),
        ([("Sec-Fetch-Site", "same-site")], "GET", False),
        ([("Sec-Fetch-Site", "none")], "GET", False),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-origin")], "GET", False),
        ([("Sec-Fetch-Site", "same-origin"), ("Origin", "https://evil.com")], "GET", False),
        ([("Sec-Fetch-Site", "same-origin"), ("Service-Worker", "script")], "GET", False),
        ([("Origin", US)], "GET", False),
        ([], "GET", False),
        ([X], "GET", True),
    ],
)
def test_fetch_metadata_for_pictures_and_downloads(
    headers: list[tuple[str, str]], method: str, fine: bool
) -> None:
    """Such routes also take `Sec-Fetch-Site: same-origin`, for GET and HEAD alone."""
    assert admitted(head(*headers, method=method), Proof.FETCH_METADATA) is fine


def test_addresses_without_a_proof_still_refuse_service_workers() -> None:
    """The page needs no header, but no script of ours may answer for all later pages."""
    assert admitted(head(("Origin", "https://evil.com")), Proof.NONE)
    assert not admitted(head(("Service-Worker", "script")), Proof.NONE)


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ([("Origin", US)], True),
        ([("Origin", "null")], False),
        ([("Origin", "")], False),
        ([("Origin", US), ("Origin", US)], False),
        ([("Referer", US + "/")], False),
        ([], False),
    ],
)
def test_a_form_of_ours_names_our_origin(headers: list[tuple[str, str]], ours: bool) -> None:
    """`Origin: null`, a Referer or silence prove nothing."""
    assert GUARD.same_origin(head(*headers, method="POST")) is ours


def test_hsts_goes_over_https_only() -> None:
    """Over plain http browsers ignore it, and on localhost it would outlive development."""
    assert "Strict-Transport-Security" in dict(security_headers(secure=True))
    assert "Strict-Transport-Security" not in dict(security_headers(secure=False))


@pytest.mark.parametrize("policy", [DATA_POLICY, page_policy(), page_policy("'self' https://idp.example")])
def test_policies_deny_by_default(policy: str) -> None:
    """No frame, no base, nothing inline and nothing from outside."""
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    assert directives["base-uri"] == "'none'"
    assert "form-action" in directives
    assert "unsafe" not in policy
    assert "*" not in policy
