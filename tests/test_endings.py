"""Every way to end a session leaves its reason behind, for streams of it that are open anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bff.operations import operations
from bff.sealing import Keyring
from bff.sessions.ending import NOTE_SECONDS, note
from bff.sessions.record import Codec, digest
from tests.support.browser import CSRF, Browser
from tests.support.provider import ABSENT, SUBJECT, Reply
from tests.support.stack import Stack, Store, running, store


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, sessions_per_user="2") as stack:
        stack.provider.claims["sid"] = "the-session"
        yield stack


@dataclass
class Scene:
    stack: Stack
    browser: Browser
    """Whose session ends."""

    def another(self) -> Browser:
        """Another browser of the same user."""
        return self.stack.sign_in(self.stack.browser())

    @property
    def id(self) -> str:
        assert self.browser.session is not None
        return digest(self.browser.session)


def form(scene: Scene) -> None:
    link = next(c["value"] for c in scene.browser.api("/bff/user").json() if c["type"] == "bff:logout_url")
    origin = {"Origin": scene.stack.origin}
    assert scene.browser.post("/bff/logout", origin, sid=link.partition("sid=")[2]).status == 303


def link(scene: Scene) -> None:
    claims = scene.browser.api("/bff/user").json()
    target = next(claim["value"] for claim in claims if claim["type"] == "bff:logout_url")
    assert scene.browser.get(target).status == 303


def cap(scene: Scene) -> None:
    scene.another()
    scene.another()


def operator(scene: Scene) -> None:
    with operations(scene.stack.settings) as desk:
        assert desk.revoke(scene.id) == 1


def back_channel(scene: Scene, **claims: object) -> None:
    token = scene.stack.provider.logout_token(**claims)
    assert scene.stack.browser().post("/bff/backchannel", logout_token=token).status == 200


def refused_renewal(scene: Scene) -> None:
    scene.stack.provider.replies["token"] = Reply(400, {"error": "invalid_grant"})
    scene.stack.clock.ahead += 400  # the access token is dead
    assert scene.browser.api("/weather").status == 401


WAYS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "a script signs out": (lambda scene: scene.browser.request("POST", "/bff/logout", CSRF), "signed_out"),
    "a form signs out": (form, "signed_out"),
    "a link signs out": (link, "signed_out"),
    "from another browser": (
        lambda scene: scene.another().request("DELETE", f"/bff/sessions/{scene.id}", CSRF),
        "revoked",
    ),
    "all others": (lambda scene: scene.another().request("DELETE", "/bff/sessions", CSRF), "revoked"),
    "over the cap": (cap, "revoked"),
    "by an operator": (operator, "revoked"),
    "replaced by a sign-in": (lambda scene: scene.stack.sign_in(scene.browser), "revoked"),
    "by the provider, the user": (lambda scene: back_channel(scene, sid=ABSENT), "provider"),
    "by the provider, the session": (
        lambda scene: back_channel(scene, sid="the-session", sub=ABSENT),
        "provider",
    ),
    "by the provider, who refuses to renew": (refused_renewal, "provider"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_reason_is_noted(stack: Stack, way: str) -> None:
    """The reason lies where the session lay, for a minute, and says nothing of anybody."""
    end, reason = WAYS[way]
    scene = Scene(stack, stack.sign_in(stack.browser(), sub=SUBJECT))
    key = Codec(Keyring(stack.settings.keys), stack.settings.redis_prefix).key(scene.id)
    with stack.store.client() as client:
        assert client.exists(key) == 1
        end(scene)
        assert client.exists(key) == 0
        assert client.get(note(key)) == reason.encode()
        assert 0 < client.ttl(note(key)) <= NOTE_SECONDS


def test_nothing_is_noted_of_what_was_not_there(stack: Stack) -> None:
    """An end of nothing leaves nothing behind: anybody may ask for one."""
    browser = stack.browser()
    browser.cookies["bff"] = "x" * 43
    assert browser.request("POST", "/bff/logout", CSRF).status == 200
    with stack.store.client() as client:
        assert [*client.scan_iter(f"{stack.settings.redis_prefix}*:ended")] == []
