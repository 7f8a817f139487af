"""From sign-in to sign-out: no token, code, verifier or secret in answers, logs or the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import CSRF, Browser, error_page
from tests.support.process import serve_process
from tests.support.provider import ABSENT, Reply, ScriptedProvider, scripted_provider
from tests.support.stack import Store, store
from tests.support.upstream import ScriptedUpstream, ok, scripted_upstream
from tests.support.wire import until


@pytest.fixture
def own_store() -> Iterator[Store]:
    with store() as found:
        yield found


def live(provider: ScriptedProvider, upstream: ScriptedUpstream, browser: Browser) -> None:
    """Everything that a person may do, and much that can go wrong."""
    provider.claims["email"] = ABSENT  # so that UserInfo is asked too
    provider.lifetime = 1  # so that a request finds its token dead
    asked = browser.get("/bff/login?returnUrl=/x&login_hint=alice")
    response = provider.authorize(asked.get("location"))
    held = dict(browser.cookies)
    assert browser.callback(response).status == 200
    error_page(browser.callback(response), 400)
    error_page(
        browser.get(f"/bff/callback?code={response['code']}&state={response['state']}", cookies=held), 400
    )
    assert browser.api("/bff/user").status == 200
    assert until(lambda: browser.api("/weather").status == 200 and provider.count("token") > 1)
    upstream.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf", close=True)
    browser.api("/weather")
    upstream.answers(b"garbage\r\n\r\n", close=True)
    browser.api("/weather")
    upstream.answers(ok(b"fine"))
    browser.get("/weather", {"Authorization": "Bearer mine"})
    for reply in (Reply(500), Reply(400, {"error": "invalid_request"}), Reply(200, {"access_token": "x"})):
        provider.replies["token"] = reply
        asked = browser.get("/bff/login")
        browser.callback(provider.authorize(asked.get("location")))
    provider.replies.clear()
    provider.claims["aud"] = "other"
    browser.callback(provider.authorize(browser.get("/bff/login").get("location")))
    del provider.claims["aud"]
    provider.replies["revoke"] = Reply(500)
    assert browser.request("POST", "/bff/logout", CSRF).status == 200


def test_whole_life(own_store: Store) -> None:
    """At the DEBUG level of the real process, neither its log nor any answer has one of them in it."""
    with scripted_provider() as provider, scripted_upstream() as upstream:
        options = {"log_level": "debug"}
        with serve_process(provider, own_store.url, upstream, **options) as process:
            browser = Browser(process.port, f"http://localhost:{process.port}")
            live(provider, upstream, browser)
            cookies = {
                value.split("=", 1)[1].split(";")[0]
                for a in browser.transcript
                for value in a.all("set-cookie")
            }
            code, logged = process.stop()
    answers = "".join(repr(answer) for answer in browser.transcript)
    assert code == 0
    assert len(provider.secrets) > 15
    assert any(secret.startswith("code-") for secret in provider.secrets)
    assert "signed_in" in logged
    assert "signed_out" in logged
    assert [secret for secret in provider.secrets if secret in logged] == []
    assert [secret for secret in provider.secrets if secret in answers] == []
    assert [cookie for cookie in cookies if cookie and cookie in logged] == []
    assert "code=" not in logged
    assert "state=" not in logged
    assert "alice@example.com" not in logged


def test_what_is_stored(own_store: Store) -> None:
    """In Redis nothing of it can be read, neither the cookie nor who it is."""
    with (
        scripted_provider() as provider,
        scripted_upstream() as upstream,
        serve_process(provider, own_store.url, upstream) as process,
    ):
        browser = Browser(process.port, f"http://localhost:{process.port}")
        asked = browser.get("/bff/login")
        browser.callback(provider.authorize(asked.get("location")))
        with own_store.client() as client:
            stored = b"".join(key + client.dump(key) for key in client.scan_iter("*"))
    assert len(stored) > 500
    for secret in [*provider.secrets, str(browser.session), "alice@example.com", "5f0c8a6e"]:
        assert secret.encode() not in stored
