"""The whole way over HTTP, against live processes: sign in, call, refresh, sign out."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.e2e.stack import ADMIN, CSRF, LiveStack, secrets_of, sign_in, submit

TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+")


def claims(browser: requests.Session, url: str) -> dict[str, list[object]]:
    """What `/bff/user` says, by claim."""
    answer = browser.get(f"{url}/bff/user", headers=CSRF, timeout=10)
    assert answer.status_code == 200, answer.text
    found: dict[str, list[object]] = {}
    for claim in answer.json():
        found.setdefault(claim["type"], []).append(claim["value"])
    return found


def test_signs_in_calls_the_api_and_signs_out(stack: LiveStack) -> None:
    """A person signs in, sees who they are, gets the weather, signs out, and is nobody afterwards."""
    browser = sign_in(stack.url)
    user = claims(browser, stack.url)
    assert user["email"] == ["alice@example.com"]
    assert user["cognito:groups"] == ["readers"]
    weather = browser.get(f"{stack.url}/weather", headers=CSRF, timeout=10)
    assert weather.status_code == 200
    assert [sorted(day) for day in weather.json()] == [["date", "summary", "temperatureC"]] * 5
    answer = browser.post(f"{stack.url}/bff/logout", headers=CSRF, timeout=10)
    assert answer.json()["logout_url"].startswith(f"{stack.idp_url}/logout?client_id=")
    landed = browser.get(answer.json()["logout_url"], timeout=10)
    assert (landed.status_code, landed.url) == (200, f"{stack.url}/")
    gone = browser.get(f"{stack.url}/weather", headers=CSRF, timeout=10)
    assert (gone.status_code, gone.json()["code"]) == (401, "not_signed_in")


def test_a_signed_out_cookie_opens_nothing(stack: LiveStack) -> None:
    """The cookie's value is dead on every worker once its session was signed out."""
    browser = sign_in(stack.url)
    cookie = {"Cookie": f"bff={browser.cookies['bff']}"} | CSRF
    assert browser.post(f"{stack.url}/bff/logout", headers=CSRF, timeout=10).status_code == 200
    for _ in range(8):
        answer = requests.get(f"{stack.url}/weather", headers=cookie, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (401, "session_expired")


def test_only_admins_get_the_admin_part(stack: LiveStack) -> None:
    """The API, not the BFF, decides by group, and its refusal passes as it is."""
    reader, admin = sign_in(stack.url), sign_in(stack.url, ADMIN)
    assert admin.get(f"{stack.url}/weather/admin", headers=CSRF, timeout=10).status_code == 200
    refused = reader.get(f"{stack.url}/weather/admin", headers=CSRF, timeout=10)
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]


def test_tokens_are_renewed_silently_and_once(stack: LiveStack) -> None:
    """With strict rotation, many calls over two workers around two expiries never lose the session."""
    browser = sign_in(stack.url)
    cookie = {"Cookie": f"bff={browser.cookies['bff']}"} | CSRF
    until = time.monotonic() + 14

    def call(_: int) -> int:
        return requests.get(f"{stack.url}/weather", headers=cookie, timeout=20).status_code

    with ThreadPoolExecutor(16) as pool:
        while time.monotonic() < until:
            assert set(pool.map(call, range(32))) == {200}
            time.sleep(0.2)
        time.sleep(7)  # the token is dead now: all wait for one refresh
        assert set(pool.map(call, range(32))) == {200}
    assert "reuse" not in stack.log.lower()


def test_wrong_password_stays_at_the_provider(stack: LiveStack) -> None:
    """A wrong password shows the form again, with a message, and no session begins."""
    browser = requests.Session()
    page = browser.get(f"{stack.url}/bff/login", timeout=10)
    answer = submit(browser, page, username="alice@example.com", password="wrong")
    assert answer.url.startswith(stack.idp_url)
    assert 'name="password"' in answer.text
    assert "wrong" not in answer.text.replace("wrong e-mail or password", "")
    assert browser.get(f"{stack.url}/bff/user", headers=CSRF, timeout=10).status_code == 401


def test_no_token_in_what_the_browser_sees(stack: LiveStack) -> None:
    """No answer of the BFF and no line of the stack's log carries a token."""
    browser = requests.Session()
    seen: list[str] = []

    def record(answer: requests.Response, *_: object, **__: object) -> None:
        if answer.url.startswith(stack.url):
            seen.append(f"{answer.url} {answer.headers} {answer.text}")

    browser.hooks["response"].append(record)
    page = browser.get(f"{stack.url}/bff/login", timeout=10)
    submit(browser, page, username="alice@example.com", password="Passw0rd!")
    for path in ("/bff/user", "/weather", "/", "/static/bff.js"):
        assert browser.get(stack.url + path, headers=CSRF, timeout=10).status_code == 200
    assert len(seen) >= 6
    assert not [text for text in seen if TOKEN.search(text)]
    for secret in secrets_of(stack):
        assert not [text for text in [*seen, stack.log] if secret in text]
    assert not TOKEN.search(stack.log)


def test_health_tells_nothing(stack: LiveStack) -> None:
    """Health answers without a session, under any Host, and with nothing but the state."""
    for path in ("live", "ready"):
        answer = requests.get(
            f"http://127.0.0.1:{stack.ports[0]}/health/{path}", headers={"Host": "10.0.0.1"}, timeout=10
        )
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
