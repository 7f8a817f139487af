"""A built single-page app behind the BFF: `BFF_STATIC_DIR` and `BFF_CSP`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bff.guard import page_policy
from tests.support.browser import CSRF, Browser
from tests.support.stack import Stack, running, store
from tests.support.wire import line

INDEX = "<!doctype html><title>App</title><script src=/assets/index-BwQx3K9a.js></script>"
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'"
NAVIGATION = {"Sec-Fetch-Mode": "navigate"}
FILES = {
    "index.html": INDEX,
    "robots.txt": "User-agent: *",
    "about.html": "About",
    "assets/index-BwQx3K9a.js": "export const app = 1;",
    "assets/logo.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "caf\u00e9 menu.txt": "coffee",
    "static/js/main.8c1d4f2a.js": "main()",
    "static/page.css": "/* the app's own */",
    ".well-known/security.txt": "Contact: mailto:security@app.example",
    ".env": "SECRET=1",
    "assets/.git/config": "[core]",
    "weather/index.html": "never: a route has this address",
}
MEGABYTES = bytes(range(256)) * 40_960


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a bundler left, and a link out of it."""
    root = tmp_path_factory.mktemp("site")
    (root / "secret.txt").write_text("outside")
    app = root / "dist"
    for name, text in FILES.items():
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (app / "film.bin").write_bytes(MEGABYTES)
    (app / "link.txt").symlink_to(root / "secret.txt")
    (app / "up").symlink_to(root)
    (app / "loop").symlink_to("loop")
    return app


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with store() as own, running(own, static_dir=str(folder), csp=POLICY) as stack:
        yield stack


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return stack.browser()


@pytest.mark.parametrize(
    "target", ["/", "/reports", "/reports/2026/7", "/about", "/assets/nothing.js", "/assets", "/loop", "/x.y"]
)
def test_pages_of_the_app(browser: Browser, target: str) -> None:
    """A navigation to what nothing else answers gets index.html, never stored without asking again."""
    answer = browser.get(target, NAVIGATION)
    assert (answer.status, answer.text) == (200, INDEX)
    assert answer.get("content-type") == "text/html; charset=utf-8"
    assert answer.get("cache-control") == "no-cache"
    assert answer.get("content-security-policy") == POLICY
    assert answer.get("vary") == "Sec-Fetch-Mode, Accept"
    assert answer.get("referrer-policy") == "same-origin"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Accept": "text/html,application/xhtml+xml;q=0.9"}, 200),
        ({"Accept": "application/xml, TEXT/HTML ;q=0.1"}, 200),
        ({"Sec-Fetch-Mode": "navigate", "Accept": "*/*"}, 200),
        ({"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, 404),
        ({"Sec-Fetch-Mode": "no-cors", "Accept": "text/html"}, 404),
        ({"Accept": "*/*"}, 404),
        ({"Accept": "text/htmlx"}, 404),
        ({"Accept": "application/json"}, 404),
        ({}, 404),
    ],
)
def test_only_navigations_get_the_page(browser: Browser, headers: dict[str, str], status: int) -> None:
    """A script or a tag that asks for what is not there learns so, and gets no page in its place."""
    answer = browser.get("/reports", headers)
    assert answer.status == status
    if status == 404:
        assert answer.code == "route_not_found"


@pytest.mark.parametrize("target", ["/bff/nothing", "/bff", "/health", "/health/x", "/static/nothing.js"])
def test_our_own_space_has_no_pages_of_the_app(browser: Browser, target: str) -> None:
    """A mistyped address of ours is 404 even for a navigation."""
    answer = browser.get(target, NAVIGATION)
    assert (answer.status, answer.code) == (404, "route_not_found")


def test_ours_comes_first(stack: Stack, browser: Browser) -> None:
    """Sign-in, user, health and routes are where they always are."""
    stack.sign_in(browser)
    assert browser.api("/bff/user").status == 200
    assert browser.api("/weather").status == 200
    assert browser.get("/weather", NAVIGATION).code == "csrf_required"
    assert browser.get("/health/live").status == 200


def test_both_have_static_files(browser: Browser) -> None:
    """The app's files under /static win, and ours are still there: an app may use our module."""
    assert browser.get("/static/page.css").text == FILES["static/page.css"]
    assert browser.get("/static/js/main.8c1d4f2a.js").text == "main()"
    module = browser.get("/static/bff.js", NAVIGATION)
    assert module.status == 200
    assert module.text.startswith("// @ts-check")


@pytest.mark.parametrize(
    ("target", "kind", "text"),
    [
        ("/robots.txt", "text/plain; charset=utf-8", FILES["robots.txt"]),
        ("/about.html", "text/html; charset=utf-8", "About"),
        ("/assets/logo.svg", "image/svg+xml", FILES["assets/logo.svg"]),
        ("/assets/index-BwQx3K9a.js", "text/javascript; charset=utf-8", "export const app = 1;"),
        ("/caf%C3%A9%20menu.txt", "text/plain; charset=utf-8", "coffee"),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", FILES[".well-known/security.txt"]),
    ],
)
def test_files(browser: Browser, target: str, kind: str, text: str) -> None:
    """Each with its type and the headers of every answer."""
    answer = browser.get(target)
    assert (answer.status, answer.get("content-type"), answer.text) == (200, kind, text)
    assert answer.get("x-content-type-options") == "nosniff"
    assert answer.get("content-security-policy") == POLICY
    head = browser.request("HEAD", target)
    assert (head.status, head.body, head.get("content-length")) == (200, b"", str(len(text.encode())))


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("index-BwQx3K9a.js", True),
        ("main.8c1d4f2a.js", True),
        ("main.8c1d4f2a.chunk.css", True),
        ("main-5GKTRQ2M.js", True),
        ("vendor.0a1b2c3d4e5f60718293.js", True),
        ("app-D4_xY9z1.css", True),
        ("font.a1b2c3d4.woff2", True),
        ("index.html", False),
        ("main.js", False),
        ("jquery-3.7.1.min.js", False),
        ("logo-20240101.png", False),
        ("report-final2024.pdf", False),
        ("photo-DarkMode.png", False),
        ("my-component.js", False),
        ("Q3-Report2025.pdf", False),
        ("user-Guide2024.pdf", False),
        ("Inter-SemiBold600.woff2", False),
        ("config-Prod2024.json", False),
        ("manifest-Android192.json", False),
        ("app-Version2.js", False),
        ("terms-Privacy2024.html", False),
        ("i18n-deDE2024.json", False),
        ("release-Notes_v2.html", False),
        ("photo-20240101a.jpg", False),
        ("Annual-Report-2025.pdf", False),
        ("iPhone-Screenshot12.png", False),
        ("Report-Q3FY2025.pdf", False),
        ("facade-beaded.js", False),
    ],
)
def test_what_may_be_kept(stack: Stack, browser: Browser, folder: Path, name: str, hashed: bool) -> None:
    """A content hash in the name lets browsers keep a file for a year; a chosen name does not."""
    path = folder / "kept" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    answer = browser.get(f"/kept/{name}")
    kept = "public, max-age=31536000, immutable" if hashed else "no-cache"
    assert (answer.status, answer.get("cache-control")) == (200, kept)
    again = browser.get(f"/kept/{name}", {"If-None-Match": answer.get("etag")})
    assert (again.status, again.body, again.get("cache-control")) == (304, b"", kept)
    since = browser.get(f"/kept/{name}", {"If-Modified-Since": answer.get("last-modified")})
    assert since.status == 304


@pytest.mark.parametrize(
    ("given", "status", "content_range", "body"),
    [
        ("bytes=0-9", 206, "bytes 0-9/10485760", MEGABYTES[:10]),
        ("bytes=10485750-", 206, "bytes 10485750-10485759/10485760", MEGABYTES[-10:]),
        ("bytes=-3", 206, "bytes 10485757-10485759/10485760", MEGABYTES[-3:]),
    ],
)
def test_ranges(browser: Browser, given: str, status: int, content_range: str, body: bytes) -> None:
    """Part of a film, as players ask for it."""
    answer = browser.get("/film.bin", {"Range": given})
    assert (answer.status, answer.get("content-range"), answer.body) == (status, content_range, body)


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ("bytes=99999999-", 416, "range_not_satisfiable"),
        ("bytes=x", 400, "bad_request"),
    ],
)
def test_ranges_that_are_not_there(browser: Browser, given: str, status: int, code: str) -> None:
    """Refused in our own words, with the size where it helps."""
    answer = browser.get("/film.bin", {"Range": given})
    assert (answer.status, answer.code) == (status, code)
    assert answer.get("content-range") == ("bytes */10485760" if status == 416 else "")


@pytest.mark.parametrize(("method", "given"), [("HEAD", "bytes=0-9"), ("GET", "lines=1-2"), ("GET", "bytes")])
def test_ranges_that_are_none(browser: Browser, method: str, given: str) -> None:
    """A range is for GET and in bytes; anything else is ignored (RFC 9110 §14.2)."""
    answer = browser.request(method, "/film.bin", {"Range": given})
    assert (answer.status, answer.get("content-length")) == (200, "10485760")


@pytest.mark.parametrize(
    "target",
    [
        "/link.txt",
        "/up/secret.txt",
        "/up/",
        "/up",
        "/.env",
        "/assets/.git/config",
        "/assets/",
        "/assets",
        "/loop",
        "/%FF",
        "/" + "a" * 300,
        "/a" * 1000,
        "/robots.txt/x",
        "/robots.txt/",
    ],
)
def test_no_way_out_of_the_folder(browser: Browser, target: str) -> None:
    """Links, hidden files, folders and impossible names are not found; nothing of them is shown."""
    answer = browser.get(target)
    assert (answer.status, answer.code) == (404, "route_not_found")


@pytest.mark.parametrize(
    "target",
    ["/../secret.txt", "/%2e%2e/secret.txt", "/assets/..%2fsecret.txt", "/a%00", "/..%5csecret"],
)
def test_paths_of_attackers(browser: Browser, target: str) -> None:
    """What could be read in two ways never reaches the file system."""
    assert browser.get(target, NAVIGATION).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_methods(browser: Browser, method: str) -> None:
    """The page takes GET and HEAD; elsewhere there is nothing to post to."""
    at_page = browser.request(method, "/", CSRF)
    assert (at_page.status, at_page.get("allow")) == (405, "GET, HEAD")
    assert browser.request(method, "/reports", CSRF).code == "route_not_found"


def test_unreadable_file(browser: Browser, folder: Path) -> None:
    """A file that may not be read is not there."""
    path = folder / "unreadable.txt"
    path.write_text("x")
    path.chmod(0)
    answer = browser.get("/unreadable.txt")
    if os.geteuid() != 0:
        assert (answer.status, answer.code) == (404, "route_not_found")
    path.unlink()


def test_large_files_hold_no_threads(stack: Stack, browser: Browser) -> None:
    """Dozens of browsers that take a film slowly keep nobody else waiting."""
    host = stack.origin.removeprefix("http://").encode()
    with ExitStack() as opened:
        for _ in range(40):
            connection = opened.enter_context(line(stack.port))
            connection.send(b"GET /film.bin HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        stack.sign_in(browser)
        for target in ("/bff/user", "/weather", "/robots.txt"):
            assert browser.api(target).status == 200


def test_without_a_policy_of_its_own(folder: Path) -> None:
    """An app gets our strict policy unless it brings one."""
    with store() as own, running(own, static_dir=str(folder)) as stack:
        answer = stack.browser().get("/", NAVIGATION)
        assert answer.get("content-security-policy") == page_policy()
