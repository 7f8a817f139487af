"""Hosts, headers, error answers, health, log lines."""

import logging

import pytest

from tests.dev_idp.conftest import MakeBrowser
from tests.dev_idp.flow import Browser, request_parameters

PATHS = (
    "/",
    "/health",
    "/login",
    "/oauth2/authorize",
    "/oauth2/token",
    "/oauth2/userInfo",
    "/logout",
    "/local_pool/.well-known/openid-configuration",
    "/local_pool/.well-known/jwks.json",
    "/static/idp.css",
    "/unknown",
)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5002",
        "127.0.0.1",
        "127.0.0.1:5003",
        "127.0.0.1.evil.example:5002",
        "localhost",
        "localhost:5002.",
        "user@localhost:5002",
        "[::1]:5002",
        "",
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_other_hosts_are_refused(browser: Browser, path: str, host: str) -> None:
    """DNS rebinding: a foreign name that leads here gets nothing, whatever the path."""
    response = browser.client.get(path, headers={"Host": host}, base_url=browser.origin)
    assert response.status_code == 400
    assert "access" not in response.text
    assert "evil" not in response.text


@pytest.mark.parametrize("host", ["127.0.0.1:5002", "localhost:5002", "LOCALHOST:5002", "idp:5002"])
def test_hosts_of_the_settings_are_answered(make: MakeBrowser, host: str) -> None:
    """Those of public address, backend address and issuer."""
    browser = make(backend_url="http://idp:5002")
    response = browser.client.get("/health", headers={"Host": host}, base_url=browser.origin)
    assert response.status_code == 200
    assert response.get_json() == {"status": "ok"}


def test_containers_may_use_the_backend_address(make: MakeBrowser) -> None:
    """The token endpoint answers over plain http under a name that isn't loopback."""
    browser = make(backend_url="http://idp:5002")
    code = browser.sign_in()
    browser.origin = "http://idp:5002"
    assert browser.redeem(code).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_security_headers_everywhere(browser: Browser, path: str) -> None:
    """On pages, JSON, redirects and errors."""
    headers = browser.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    if not path.startswith("/static"):
        assert headers["Cache-Control"] == "no-store"


def test_form_action_names_where_the_forms_redirects_lead(make: MakeBrowser) -> None:
    """Browsers check the redirect after a form, too."""
    browser = make(
        redirect_uris=("https://app.example/cb", "http://localhost:5003/bff/callback", "http://b/c")
    )
    policy = browser.get("/").headers["Content-Security-Policy"]
    assert policy.endswith("form-action 'self' http://b http://localhost:5003 https://app.example")


@pytest.mark.parametrize(
    ("method", "path", "status", "json_answer"),
    [
        ("GET", "/unknown", 404, False),
        ("GET", "/oauth2/unknown", 404, False),
        ("GET", "/.well-known/openid-configuration", 404, False),
        ("DELETE", "/login", 405, False),
        ("GET", "/oauth2/token", 405, True),
        ("PUT", "/oauth2/revoke", 405, True),
        ("DELETE", "/oauth2/userInfo", 405, True),
    ],
)
def test_errors_are_pages_for_people_and_json_for_servers(
    browser: Browser, method: str, path: str, status: int, json_answer: bool
) -> None:
    """A 405 says what is allowed."""
    response = browser.client.open(path, method=method, base_url=browser.origin)
    assert response.status_code == status
    assert response.is_json is json_answer
    if not json_answer:
        assert "For development only." in response.text
    if status == 405:
        assert response.headers["Allow"]


@pytest.mark.parametrize("path", ["/oauth2/token", "/login", "/oauth2/authorize", "/logout"])
def test_large_bodies_are_refused(browser: Browser, path: str) -> None:
    """Nothing here needs more than 64 KiB."""
    response = browser.post(path, {"x": "y" * 70_000})
    assert response.status_code == 413


@pytest.mark.parametrize(
    "query", ["%ff%fe", "client_id=%00&redirect_uri=%00", "a=b&&&=&==", "%", "client_id[]=x"]
)
@pytest.mark.parametrize("path", ["/login", "/oauth2/authorize", "/logout", "/signup"])
def test_junk_in_the_query_is_no_server_error(browser: Browser, path: str, query: str) -> None:
    """Bad input gets a page with a 400, or is ignored where sign-out doesn't depend on it."""
    response = browser.client.get(f"{path}?{query}", base_url=browser.origin)
    assert response.status_code in ((200, 400) if path == "/logout" else (400,))


def test_unexpected_errors_show_nothing(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is a plain page or JSON, and a line in the log."""

    def fail(*_: object) -> None:
        raise RuntimeError("inner detail")

    monkeypatch.setattr("bff.dev_idp.browser_sessions.BrowserSessions.find", fail)
    page = browser.authorize()
    assert page.status_code == 500
    assert "inner detail" not in page.text
    assert "inner detail" in caplog.text
    monkeypatch.setattr("bff.dev_idp.tokens.TokenIssuer.read_access_token", fail)
    answer = browser.user_info("x")
    assert answer.status_code == 500
    assert answer.get_json() == {"error": "server_error"}


def test_static_files_need_no_session(browser: Browser) -> None:
    """The pages' style and picture are there."""
    assert browser.get("/static/idp.css").mimetype == "text/css"
    assert browser.get("/static/idp.svg").mimetype == "image/svg+xml"


def test_the_log_leaves_out_queries(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each request, without its query."""
    caplog.set_level(logging.DEBUG, "bff.dev_idp")
    browser.get("/login", **request_parameters())
    assert "GET /login 200 in " in caplog.text
    assert "state-1" not in caplog.text
