"""Flask's sessions made safe: what is opened, written, issued and dropped, and what never comes back."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any, cast

import pytest
from flask import Flask, Response, session

from bff.errors import NotSignedIn, PublicError, SessionExpired, StoreUnavailable
from bff.request import Admitted
from bff.sessions.connect import connect
from bff.sessions.interface import BFFSession, SafeRedisSessionInterface, host_cookie
from bff.sessions.record import digest, new_sid
from bff.settings import parse_redis_url
from tests.fakes import OTHER_KEY, SUBJECT, Rig, head, meta, token_set

NAME = "__Host-bff"
View = Callable[[BFFSession], object]


def current() -> BFFSession:
    """Flask's session of this request, itself and not the proxy."""
    return cast("BFFSession", session._get_current_object())  # type: ignore[attr-defined]


class Site:
    """A Flask application with our sessions, asked as the front asks it."""

    def __init__(self, rig: Rig, *, secure: bool = True, samesite: str = "Strict") -> None:
        self.rig = rig
        self.app = Flask("site")
        self.app.config["SESSION_COOKIE_NAME"] = host_cookie("bff", secure=secure)
        self.interface = SafeRedisSessionInterface(
            self.app, rig.client, rig.store, secure=secure, samesite=samesite
        )
        self.app.session_interface = self.interface

    def ask(self, view: View, *cookies: str, reads_session: bool = True) -> Response:
        """One request with these values of our cookie, answered by `view`."""
        pairs = [("Cookie", f"{self.interface.cookie}={value}") for value in cookies]
        admitted = Admitted(head(*pairs), "192.0.2.1", reads_session, page=False)
        with self.app.test_request_context("/", environ_overrides={Admitted.KEY: admitted}):
            view(current())
            return self.app.process_response(Response("ok"))

    def begin(self, current_session: BFFSession, **data: object) -> None:
        """A sign-in."""
        clock = self.rig.clock
        record = self.interface.begin(current_session, meta(clock), token_set(clock), data)
        assert self.rig.store.load(digest(str(current_session.sid))) is None, "it is pending"
        assert self.rig.store.settle(record)


@pytest.fixture
def site(rig: Rig) -> Site:
    """A site over https."""
    return Site(rig)


def set_cookie(response: Response) -> Any:
    """The one cookie that a response sets or drops; None where it does neither."""
    headers = response.headers.getlist("Set-Cookie")
    assert len(headers) < 2
    return SimpleCookie(headers[0]) if headers else None


def sign_in(site: Site, *cookies: str, **data: object) -> str:
    """The cookie's value after a sign-in."""
    response = site.ask(lambda current_session: site.begin(current_session, **data), *cookies)
    return cast("str", set_cookie(response)[site.interface.cookie].value)


def nothing(_session: BFFSession) -> None:
    """A view that leaves the session alone."""


def test_a_visitor_costs_redis_nothing(site: Site) -> None:
    """No cookie, no key, whatever the view writes into its session."""
    response = site.ask(lambda current_session: current_session.update(x=1))
    assert set_cookie(response) is None
    assert site.rig.in_redis() == []
    assert "Cookie" in response.headers["Vary"]


def test_the_cookie_of_a_sign_in(site: Site) -> None:
    """`__Host-`, Secure, HttpOnly, SameSite, Path=/, no Domain, no lifetime, and opaque."""
    response = site.ask(lambda current_session: site.begin(current_session, hint="alice"))
    (header,) = response.headers.getlist("Set-Cookie")
    name_value, *attributes = header.split("; ")
    assert set(attributes) == {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"}
    name, _, value = name_value.partition("=")
    assert name == NAME
    assert len(value) == 43
    assert site.rig.store.load(digest(value)) is not None


def test_over_plain_http_the_cookie_has_another_name(rig: Rig) -> None:
    """Browsers take `__Host-` and Secure over https only."""
    site = Site(rig, secure=False, samesite="Lax")
    response = site.ask(site.begin)
    (header,) = response.headers.getlist("Set-Cookie")
    assert header.startswith("bff=")
    assert set(header.split("; ")[1:]) == {"HttpOnly", "Path=/", "SameSite=Lax"}


def test_what_a_sign_in_wrote_is_there_at_the_next_request(site: Site) -> None:
    """Data and record come back, and nothing is written or set again."""
    sid = sign_in(site, hint="alice")
    found: list[object] = []

    def view(current_session: BFFSession) -> None:
        found.append((current_session["hint"], current_session.signed_in().tokens.access_token))

    assert set_cookie(site.ask(view, sid)) is None
    assert found == [("alice", "access-1")]


def test_a_planted_id_is_never_adopted(site: Site) -> None:
    """Fixation: whatever the browser brought, a sign-in gives an id that nobody has seen."""
    planted = new_sid()
    sid = sign_in(site, planted)
    assert sid != planted
    assert site.rig.store.load(digest(planted)) is None


def test_nothing_of_the_earlier_user_is_left_after_a_sign_in(site: Site) -> None:
    """What was in the session before is neither shown nor stored under the new one."""
    first = sign_in(site, hint="alice", secret="alice's")
    seen: list[dict[str, Any]] = []

    def view(current_session: BFFSession) -> None:
        site.begin(current_session, hint="bob")
        seen.append(dict(current_session))

    second = set_cookie(site.ask(view, first))[NAME].value
    assert seen == [{"hint": "bob"}]
    record = site.rig.store.load(digest(second))
    assert record is not None
    assert record.data == {"hint": "bob"}


def raises(kind: type[PublicError]) -> View:
    """A view that finds nobody signed in, for that reason."""

    def view(current_session: BFFSession) -> None:
        with pytest.raises(kind):
            current_session.signed_in()

    return view


@pytest.mark.parametrize(
    ("cookies", "kind"),
    [
        ([], NotSignedIn),
        (["A" * 43], SessionExpired),
        ([""], SessionExpired),
        (["short"], SessionExpired),
        (["A" * 43, "A" * 43], NotSignedIn),  # tossed: counts as none
        (["../" + "A" * 40], SessionExpired),
        (["A" * 100_000], SessionExpired),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_cookies_that_open_nothing(site: Site, cookies: list[str], kind: type[PublicError]) -> None:
    """None came, or one that opens nothing: two answers, and no cookie is dropped by either."""
    assert set_cookie(site.ask(raises(kind), *cookies)) is None


def test_an_address_that_uses_no_session_reads_none(site: Site) -> None:
    """No round trip for the page or the callback; but the id is known, to be replaced at sign-in."""
    sid = sign_in(site, hint="alice")
    names: list[str | None] = []

    def view(current_session: BFFSession) -> None:
        assert dict(current_session) == {}
        names.append(current_session.digest)

    site.rig.store.load = None  # type: ignore[assignment,method-assign]
    site.ask(view, sid, reads_session=False)
    assert names == [digest(sid)]


def test_only_what_changed_is_written(site: Site) -> None:
    """Two requests that change different keys both win: no request writes what it did not touch."""
    sid = sign_in(site, a=1, b=1, c=1)

    def slow(current_session: BFFSession) -> None:
        site.ask(lambda other: other.update(b=2), sid)
        current_session["a"] = 2
        del current_session["c"]

    site.ask(slow, sid)
    record = site.rig.store.load(digest(sid))
    assert record is not None
    assert record.data == {"a": 2, "b": 2}


def test_a_slow_request_does_not_bring_a_session_back(site: Site) -> None:
    """Signed out while a request ran: what that one saves is gone with the session."""
    sid = sign_in(site, a=1)

    def slow(current_session: BFFSession) -> None:
        site.ask(site.interface.end, sid)
        current_session["a"] = 2

    assert set_cookie(site.ask(slow, sid)) is None
    assert site.rig.in_redis() == []


def test_a_slow_request_does_not_bring_old_tokens_back(site: Site) -> None:
    """Refreshed while a request ran: what that one saves leaves the tokens alone."""
    sid = sign_in(site, a=1)

    def slow(current_session: BFFSession) -> None:
        site.rig.store.save_tokens(current_session.signed_in(), token_set(site.rig.clock, "2"))
        current_session["a"] = 2

    site.ask(slow, sid)
    record = site.rig.store.load(digest(sid))
    assert record is not None
    assert (record.tokens.access_token, record.data) == ("access-2", {"a": 2})


def test_signing_out_ends_the_session_and_drops_the_cookie(site: Site) -> None:
    """The record comes back for revocation; the cookie goes with every attribute it came with."""
    sid = sign_in(site, a=1)
    held: list[object] = []
    left: list[dict[str, Any]] = []

    def view(current_session: BFFSession) -> None:
        record = site.interface.end(current_session)
        held.append(record and record.tokens.refresh_token)
        left.append(dict(current_session))

    response = site.ask(view, sid)
    assert held == ["refresh-1"]
    assert left == [{}]
    (header,) = response.headers.getlist("Set-Cookie")
    assert header.startswith(f"{NAME}=;")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=0"} <= set(header.split("; "))
    site.ask(raises(SessionExpired), sid)


def test_a_request_without_the_cookie_drops_none(site: Site) -> None:
    """A foreign page's request, from which Strict withheld the cookie, must not delete it."""
    assert set_cookie(site.ask(site.interface.end)) is None


def test_a_cookie_that_cannot_be_an_id_is_dropped_at_sign_out(site: Site) -> None:
    """Signing out leaves no cookie of ours behind, whatever it holds."""
    assert set_cookie(site.ask(site.interface.end, "junk"))[NAME]["max-age"] == "0"


def test_a_session_under_a_missing_key_is_trouble_only_for_those_who_ask(site: Site) -> None:
    """503 where the session is needed; signing in and signing out work even then, and nothing is deleted."""
    sid = sign_in(site, a=1)
    other = Site(site.rig.with_keys(OTHER_KEY))
    other.ask(raises(StoreUnavailable), sid)
    assert set_cookie(other.ask(nothing, sid)) is None
    assert site.rig.store.load(digest(sid)) is not None
    new = sign_in(other, sid)
    assert other.rig.store.load(digest(new)) is not None
    dropped = set_cookie(other.ask(other.interface.end, sid))
    assert dropped[NAME]["max-age"] == "0"
    assert site.rig.store.load(digest(sid)) is None


def test_a_pickle_is_never_loaded(site: Site) -> None:
    """The stock decoder falls back to pickle: whoever could write to Redis could run code."""

    class Exploit:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (pytest.fail, ("a pickle was loaded",))

    sid = sign_in(site, a=1)
    key = site.rig.codec.key(digest(sid))
    site.rig.client.hset(key, "d:a", pickle.dumps(Exploit()))
    site.ask(raises(StoreUnavailable), sid)
    site.rig.client.delete(key)
    site.rig.client.set(key, pickle.dumps(Exploit()))
    site.ask(raises(StoreUnavailable), sid)
    assert site.interface.serializer is None


def test_regenerating_alone_is_refused(site: Site) -> None:
    """A new id without new tokens is not a thing that exists here."""
    with pytest.raises(RuntimeError, match="begin"):
        site.interface.regenerate(BFFSession())


def test_an_expired_session_is_expired(site: Site) -> None:
    """By our clock, even where Redis still has it."""
    sid = sign_in(site, a=1)
    site.rig.clock.advance(1800)
    site.ask(raises(SessionExpired), sid)


def test_redis_never_sees_the_cookie_or_a_claim(rig: Rig) -> None:
    """A dump of Redis after a whole life of a session: no id, no token, no name."""
    site = Site(rig)
    sid = sign_in(site, claims=[{"type": "email", "value": "alice@example.com"}, {"sub": SUBJECT}])
    site.ask(lambda current_session: current_session.update(x="alice@example.com"), sid)
    (key,) = rig.in_redis()
    fields = cast("dict[bytes, bytes]", rig.client.hgetall(key))
    everything = key + b"".join(name + value for name, value in fields.items())
    for secret in (sid, "alice", SUBJECT, "access-", "refresh-"):
        assert secret.encode() not in everything


def test_a_clusters_client_is_kept(rig: Rig) -> None:
    """The stock interface puts a Redis on this machine in the place of a client that it does not know."""
    with connect(parse_redis_url("redis+cluster://127.0.0.1:1"), connections=1) as client:
        interface = SafeRedisSessionInterface(
            Flask("site"), client, rig.store, secure=True, samesite="Strict"
        )
        assert interface.client is client
