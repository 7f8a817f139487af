"""OpenID Back-Channel Logout 1.0: what the provider may end, and what only looks like it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bff.sealing import Keyring, new_key, parse_key
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, Meta
from bff.sessions.store import SessionStore
from bff.tokens import TokenSet
from tests.support.browser import Browser, error_page
from tests.support.provider import ABSENT, CLIENT_ID, SUBJECT, Reply, rsa_key, sign
from tests.support.stack import Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.wire import Answer

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store) as stack:
        yield stack


def sign_in(stack: Stack, sub: str = SUBJECT, sid: str | None = None) -> Browser:
    """A browser in which that user is signed in, under that session of the provider."""
    stack.provider.claims |= {"sub": sub, "sid": ABSENT if sid is None else sid}
    return stack.sign_in(stack.browser())


def call(stack: Stack, token: str | None = None, **changes: Any) -> Answer:
    """The provider's call: no cookie, no header of ours."""
    logout_token = stack.provider.logout_token(**changes) if token is None else token
    return stack.browser().post("/bff/backchannel", logout_token=logout_token)


def alive(browser: Browser) -> bool:
    return browser.api("/bff/user").status == browser.api("/weather").status == 200


def accepted(answer: Answer) -> bool:
    assert answer.get("cache-control") == "no-store"
    return (answer.status, answer.body) == (200, b"")


def refused(answer: Answer) -> bool:
    assert answer.get("cache-control") == "no-store"
    return (answer.status, answer.code) == (400, "bad_request")


def test_by_subject(stack: Stack) -> None:
    """All of the user's sessions end, nobody else's; their refresh tokens are revoked."""
    mine = [sign_in(stack, sid="one"), sign_in(stack, sid="two"), sign_in(stack)]
    other = sign_in(stack, "somebody-else")
    assert accepted(call(stack))
    assert [alive(browser) for browser in mine] == [False] * 3
    assert alive(other)


def test_by_session(stack: Stack) -> None:
    """One session ends, the user's others live."""
    one, two = sign_in(stack, sid="one"), sign_in(stack, sid="two")
    assert accepted(call(stack, sid="one", sub=ABSENT))
    assert [alive(one), alive(two)] == [False, True]


def test_by_both(stack: Stack) -> None:
    """With both, the session must be that user's; their sessions without a known sid end as well."""
    one, two, unknown = sign_in(stack, sid="one"), sign_in(stack, sid="two"), sign_in(stack)
    assert accepted(call(stack, sid="one", sub="somebody-else"))
    assert alive(one)
    assert accepted(call(stack, sid="one"))
    assert [alive(one), alive(two), alive(unknown)] == [False, True, False]


def test_ended_already(stack: Stack) -> None:
    """Nothing to end is a success: the provider need not try again."""
    assert accepted(call(stack, sid="never", sub=ABSENT))
    assert accepted(call(stack, sub="nobody"))


def test_a_key_that_was_rotated_out(module_store: Store) -> None:
    """Sessions that began under an older key of ours are found by their sid, too."""
    old, new = new_key(), new_key()
    with running(module_store, secret_keys=old) as stack:
        browser = sign_in(stack, sid="one")
        with running(
            module_store,
            provider=stack.provider,
            secret_keys=f"{new},{old}",
            redis_prefix=stack.settings.redis_prefix,
        ) as later:
            assert accepted(call(later, sid="one", sub=ABSENT))
        assert not alive(browser)


def test_a_session_of_an_earlier_version(module_store: Store) -> None:
    """Sessions that were written with the whole hash of their sid end by it, too."""
    key = new_key()
    with running(module_store, secret_keys=key) as stack, module_store.client() as client:
        keyring, now = Keyring([parse_key(key)]), stack.clock()
        hashes = keyring.fingerprints("provider sid", f"{stack.provider.issuer} one".encode())
        sessions = SessionStore(
            client, Codec(keyring, stack.settings.redis_prefix), Lifetime(1800, 28800), stack.clock
        )
        tokens = TokenSet(access_token="x", obtained_at=now, expires_at=now + 300)
        sessions.begin("0" * 64, Meta(now, now, "user", tuple(hashes)), tokens, {})
        assert len(stack.sessions()) == 1
        assert accepted(call(stack, sid="one", sub=ABSENT))
        assert stack.sessions() == []


def test_a_token_is_used_once(stack: Stack) -> None:
    """The same jti again is refused: a replay would sign out whoever has signed in since."""
    token = stack.provider.logout_token()
    assert accepted(call(stack, token))
    browser = sign_in(stack)
    assert refused(call(stack, token))
    assert alive(browser)


def test_a_sign_in_under_way(stack: Stack) -> None:
    """A sign-in that had begun when the provider called does not slip through."""
    browser = stack.browser()
    asked = browser.get("/bff/login")
    time.sleep(0.01)
    assert accepted(call(stack))
    answer = browser.callback(stack.provider.authorize(asked.get("location")))
    assert error_page(answer, 400) == "sign_in_cut_off"
    assert stack.sessions() == []


def test_the_store_down(module_store: Store) -> None:
    """400, so that the provider tries again; the same token works once the store is back."""
    with store() as own, running(own) as stack:
        browser = sign_in(stack)
        token = stack.provider.logout_token()
        own.stop()
        assert refused(call(stack, token))
        own.start()
        assert alive(browser)
        assert accepted(call(stack, token))
        assert not alive(browser)


def test_no_keys(module_store: Store) -> None:
    """Without the provider's keys nothing is believed, and the same token works later."""
    with running(module_store) as stack:
        stack.provider.replies["jwks"] = Reply(503)
        stack.clock.ahead = 4000
        token = stack.provider.logout_token(header={"kid": "new"})
        assert refused(call(stack, token))


HOSTILE: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": ABSENT},
    "another audience": {"aud": "other"},
    "one more audience": {"aud": [CLIENT_ID, "other"]},
    "no audience": {"aud": ABSENT},
    "expired": {"exp": 1000},
    "no exp": {"exp": ABSENT},
    "exp far ahead": {"exp": int(time.time()) + 10**6},
    "exp as text": {"exp": "2099"},
    "no iat": {"iat": ABSENT},
    "iat ahead": {"iat": int(time.time()) + 10**5},
    "a nonce": {"nonce": "x"},
    "an empty nonce": {"nonce": ""},
    "no events": {"events": ABSENT},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "the event as a list": {"events": [EVENT]},
    "the event as text": {"events": {EVENT: "x"}},
    "no jti": {"jti": ABSENT},
    "jti a number": {"jti": 7},
    "jti empty": {"jti": ""},
    "jti huge": {"jti": "x" * 10_000},
    "neither sub nor sid": {"sub": ABSENT},
    "sub a list": {"sub": [SUBJECT]},
    "sid a number": {"sid": 7},
    "sub empty": {"sub": ""},
    "alg none": {"header": {"alg": "none"}},
    "an algorithm that is not advertised": {"header": {"alg": "RS512"}},
    "an unknown key": {"header": {"kid": "unknown"}},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tokens(stack: Stack, changes: dict[str, Any]) -> None:
    """Each is refused with 400, and everybody stays signed in."""
    browser = sign_in(stack)
    if changes.get("header", {}).get("alg") == "none":
        _, claims, _ = stack.provider.logout_token().split(".")
        answer = call(stack, f"eyJhbGciOiJub25lIn0.{claims}.")
    else:
        answer = call(stack, **changes)
    assert refused(answer)
    assert alive(browser)


def test_a_forged_signature(stack: Stack) -> None:
    """A token that somebody else has signed under the provider's kid ends nothing."""
    browser = sign_in(stack)
    claims: dict[str, Any] = {
        "iss": stack.provider.issuer,
        "aud": CLIENT_ID,
        "sub": SUBJECT,
        "jti": "x",
        "events": {EVENT: {}},
    }
    claims |= {"iat": int(time.time()), "exp": int(time.time()) + 60}
    forged = sign({"alg": "RS256", "kid": stack.provider.keys[0].kid}, claims, rsa_key("forger"))
    assert refused(call(stack, forged))
    assert alive(browser)


def test_an_id_token_is_no_logout_token(stack: Stack) -> None:
    """Nor the other way round: each lacks what the other must have."""
    browser = sign_in(stack)
    assert refused(call(stack, stack.provider.id_token(None, "x")))
    assert alive(browser)
    stack.provider.token_members["id_token"] = stack.provider.logout_token()
    other = stack.browser()
    asked = other.get("/bff/login")
    answer = other.callback(stack.provider.authorize(asked.get("location")))
    assert error_page(answer, 400) == "id_token_invalid"


@pytest.mark.parametrize("body", [b"", b"logout_token=", b"logout_token=a&logout_token=b", b"x=y", b"\xff"])
def test_bodies(stack: Stack, body: bytes) -> None:
    """Anything but one logout_token is refused."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert refused(stack.browser().request("POST", "/bff/backchannel", kind, body))
    assert refused(stack.browser().request("POST", "/bff/backchannel", {}, b"logout_token=x"))
    assert stack.browser().get("/bff/backchannel").status == 405


def test_junk_delays_no_sign_in(stack: Stack) -> None:
    """Just after somebody's junk, keys that were rotated are fetched for a sign-in all the same."""
    stack.sign_in(stack.browser())
    refused(call(stack, header={"kid": "unknown"}))
    stack.provider.keys = [rsa_key("rsa-2")]
    assert stack.sign_in(stack.browser()).session


def test_sign_ins_that_hang(module_store: Store) -> None:
    """However many sign-ins wait for a token endpoint that hangs, the provider's own call is answered."""
    with running(module_store, provider_timeout_seconds="2") as stack:
        let_sign_ins_hang(stack)


def let_sign_ins_hang(stack: Stack) -> None:
    victim = sign_in(stack, sid="one")
    pending = []
    for _ in range(24):
        browser = stack.browser()
        asked = browser.get("/bff/login")
        pending.append((browser, stack.provider.authorize(asked.get("location"))))
    stack.provider.replies["token"] = Reply(delay=30)
    with ThreadPoolExecutor(24) as pool:
        done = [pool.submit(browser.callback, response) for browser, response in pending]
        time.sleep(0.3)
        started = Stopwatch()
        assert accepted(call(stack, sid="one", sub=ABSENT))
        assert started.own < 1.5
        assert {each.result().status for each in done} == {503}
    stack.provider.replies.clear()
    assert not alive(victim)


def test_calls_that_hang(stack: Stack) -> None:
    """Where all places are taken for longer than the provider's deadline, the answer is 400, not 503."""
    stack.provider.replies["jwks"] = Reply(delay=30)
    stack.clock.ahead = 4000  # what is known is old, and there is nothing else
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: call(stack, header={"kid": f"x-{n}"}), range(8)))
    assert all(refused(answer) for answer in answers)


def test_junk_costs_the_provider_little(stack: Stack) -> None:
    """A flood of tokens with unknown keys asks for the provider's keys once."""
    stack.sign_in(stack.browser())
    before = stack.provider.count("jwks")
    for number in range(20):
        refused(call(stack, header={"kid": f"unknown-{number}"}))
    assert stack.provider.count("jwks") - before <= 1
    assert accepted(call(stack)), "the provider's own call is not turned away for it"
