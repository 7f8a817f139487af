"""Streams over the running server: who may open one, what passes, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bff.sealing import Keyring
from bff.sessions.ending import Reason
from bff.sessions.lifetime import Lifetime
from bff.sessions.record import Codec, digest
from bff.sessions.store import SessionStore
from bff.streams import BEAT_TICKS, LOOK_SECONDS, Streams
from bff.tokens import TokenSet
from tests.fakes import FakeClock, Rig
from tests.support.browser import CSRF
from tests.support.events import Feed, feed
from tests.support.stack import Stack, Store, running, store
from tests.support.stopwatch import Stopwatch
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import at_rest, happens, until

TOML = """
[[routes]]
path = "/events"
upstream = "UPSTREAM"
methods = ["GET", "POST"]
stream = "sse"
timeout_seconds = 9

[[routes]]
path = "/hasty"
upstream = "UPSTREAM"
stream = "sse"
timeout_seconds = 2

[[routes]]
path = "/patient"
upstream = "UPSTREAM"
stream = "sse"
timeout_seconds = 9

[[routes]]
path = "/open"
upstream = "UPSTREAM"
stream = "sse"
token = "none"
anonymous = true

[[routes]]
path = "/plain"
upstream = "UPSTREAM"
"""
IDLE, ABSOLUTE = 1000, 2000
"""Of sessions here, in seconds; warnings come a minute before."""
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def shared(module_store: Store) -> Iterator[Stack]:
    with running(
        module_store,
        toml=TOML,
        streams_per_session="3",
        streams_per_worker="8",
        session_idle_seconds=str(IDLE),
        session_max_seconds=str(ABSOLUTE),
    ) as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Iterator[Stack]:
    shared.upstream.reset()
    yield shared
    shared.clock.ahead = 0
    shared.upstream.hang_up()
    assert until(lambda: shared.streams._taken == 0), "all places are free again"


@pytest.fixture
def sid(stack: Stack) -> str:
    """The cookie of a signed-in browser."""
    return stack.plant(lives=1e6)


def sent(stack: Stack, sid: str | None, **more: str) -> dict[str, str]:
    """Headers as an EventSource sends them."""
    headers = {"Host": f"localhost:{stack.port}", "Accept": "text/event-stream"}
    headers |= {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    headers |= {"Cookie": f"bff={sid}"} if sid else {}
    return {name: value for name, value in (headers | more).items() if value}


@contextlib.contextmanager
def sessions(stack: Stack) -> Iterator[SessionStore]:
    """The store, as another node has it."""
    settings = stack.settings
    codec = Codec(Keyring(settings.keys), settings.redis_prefix)
    with stack.store.client() as client:
        yield SessionStore(client, codec, Lifetime(IDLE, ABSOLUTE), stack.clock)


def ticking(every: float = 0.1) -> Callable[[Wire, Request], object]:
    """An upstream whose events each say when they were sent."""

    def script(wire: Wire, request: Request) -> object:
        wire.body(request)
        wire.send(STREAM_HEAD)
        while True:
            wire.send(f"data: {time.monotonic()}\n\n".encode())
            time.sleep(every)

    return script


def silent(wire: Wire, _request: Request) -> object:
    """An upstream that begins a stream and says nothing."""
    wire.send(STREAM_HEAD + b": hello\n\n")
    wire.file.read()
    return False


# -- proxied events ---------------------------------------------------------------------------------


def test_events_come_at_once(stack: Stack, sid: str) -> None:
    """Each event of an upstream reaches the browser before the next one is sent; nothing on the way may
    collect them."""
    taken = threading.Semaphore(0)

    def one_by_one(wire: Wire, request: Request) -> object:
        wire.body(request)
        wire.send(STREAM_HEAD)
        for number in range(10):
            wire.send(f"data: {number}\n\n".encode())
            taken.acquire(timeout=20)
        wire.file.read()
        return False

    stack.upstream.script = one_by_one
    with feed(stack.port, "/events/x?y=1", sent(stack, sid, **{"Last-Event-ID": "41"})) as stream:
        assert (stream.status, dict(stream.headers)["content-type"]) == (200, "text/event-stream")
        assert dict(stream.headers)["x-accel-buffering"] == "no"
        assert dict(stream.headers)["cache-control"] == "no-store"
        for number, event in zip(range(10), stream, strict=False):
            assert event.text == str(number)
            taken.release()
    (seen,) = stack.upstream.requests
    assert (seen.target, seen.get("last-event-id")) == ("/events/x?y=1", "41")
    assert (seen.get("authorization"), seen.all("cookie")) == ("Bearer planted", [])
    assert stack.upstream.lost(seen), "nobody listens any more"


def test_silence_is_no_end(stack: Stack, sid: str) -> None:
    """Between two events an API may be silent for longer than its route's time-out, which is for the head."""
    stack.upstream.script = silent
    with feed(stack.port, "/hasty", sent(stack, sid)) as stream:
        assert stream.status == 200
        assert stream.lives_for(3.5)


def test_slow_head(stack: Stack, sid: str) -> None:
    """The time-out of the route is for the head of the stream."""
    stack.upstream.script = lambda wire, _: wire.file.read()
    with feed(stack.port, "/hasty", sent(stack, sid)) as stream:
        assert stream.status == 504


def test_what_the_browser_does_not_take_is_not_read(stack: Stack, sid: str) -> None:
    """A slow reader holds the API back: nothing piles up in between."""
    pushed = []

    def flood(wire: Wire, _request: Request) -> object:
        wire.send(STREAM_HEAD)
        while True:
            wire.send(b"data: " + b"x" * 65_536 + b"\n\n")
            pushed.append(65_536)

    stack.upstream.script = flood
    with feed(stack.port, "/events", sent(stack, sid), reads=False) as stream:
        assert stream.status == 200
        assert until(lambda: len(pushed) > 2)
        assert at_rest(lambda: len(pushed)), "it is held back"
        assert sum(pushed) < 20_000_000
        with sessions(stack) as elsewhere:
            elsewhere.end(digest(sid))
        assert until(lambda: stack.upstream.lost(stack.upstream.requests[0], 0.01), 2.5), "and ends in time"

        def hung_up() -> bool:
            try:
                stream.line.socket.send(b"x")
            except OSError:
                return True
            return False

        assert until(hung_up, 2), "what it does not take is thrown away"


# -- the end of the session -------------------------------------------------------------------------

Ending = Callable[[Stack, str], None]


def end_elsewhere(reason: Reason) -> Ending:
    def end(stack: Stack, sid: str) -> None:
        with sessions(stack) as elsewhere:
            assert elsewhere.end(digest(sid), reason)

    return end


def refuse_renewal(stack: Stack, sid: str) -> None:
    with sessions(stack) as elsewhere:
        record = elsewhere.load(digest(sid))
        assert record is not None
        assert elsewhere.end_if_current(record)


def let_time_pass(seconds: float) -> Ending:
    def end(stack: Stack, _sid: str) -> None:
        stack.clock.ahead += seconds

    return end


def forget(stack: Stack, sid: str) -> None:
    with stack.store.client() as client:
        client.delete(f"{stack.settings.redis_prefix}{{{digest(sid)}}}")


def sign_out(stack: Stack, sid: str) -> None:
    browser = stack.browser()
    browser.cookies["bff"] = sid
    assert browser.request("POST", "/bff/logout", CSRF).status == 200


ENDINGS = {
    "signed out": (sign_out, "signed_out"),
    "revoked": (end_elsewhere(Reason.REVOKED), "revoked"),
    "by the provider": (end_elsewhere(Reason.PROVIDER), "provider"),
    "renewal refused": (refuse_renewal, "provider"),
    "idle": (let_time_pass(IDLE), "expired"),
    "absolute": (let_time_pass(ABSOLUTE), "expired"),
    "gone without a word": (forget, "expired"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_streams_end_with_the_session(stack: Stack, sid: str, ending: str) -> None:
    """Within two seconds of the session's end its streams end, and the browser is told why."""
    end, reason = ENDINGS[ending]
    stack.upstream.script = silent
    other = stack.plant(lives=1e6)
    with (
        feed(stack.port, "/bff/events", sent(stack, sid)) as told,
        feed(stack.port, "/events", sent(stack, sid)) as proxied,
        feed(stack.port, "/bff/events", sent(stack, other)) as unconcerned,
    ):
        assert [told.status, proxied.status, unconcerned.status] == [200, 200, 200]
        end(stack, sid)
        start = Stopwatch()
        events = [(event.name, event.data) for event in told.named()]
        assert (events, told.ended_well) == ([("session-ended", {"reason": reason})], True)
        assert proxied.ends_within(2)
        assert proxied.ended_well
        assert start.own < 2
        if reason != "expired" or end is forget:
            assert unconcerned.lives_for(0.5)


def test_events_of_a_route_that_does_not_say_so(stack: Stack, sid: str) -> None:
    """Events end with the session, and are bounded, also where the route has no `stream`."""
    stack.upstream.script = ticking()
    headers = sent(stack, sid, **CSRF)
    with contextlib.ExitStack() as opened:
        streams = [opened.enter_context(feed(stack.port, "/plain", headers)) for _ in range(4)]
        assert [stream.status for stream in streams] == [200, 200, 200, 429]
        end_elsewhere(Reason.REVOKED)(stack, sid)
        start = Stopwatch()
        for stream in streams[:3]:
            for _ in stream.named():
                pass
            assert stream.ended_well
        assert start.own < 2
    assert all(stack.upstream.lost(request) for request in stack.upstream.requests)


def test_answers_cut_short_do_not_look_whole(stack: Stack, sid: str) -> None:
    """Of a stream that is no stream of events the end is missing, so that nobody takes a part for all."""

    def rows(wire: Wire, _request: Request) -> object:
        wire.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{"row": 1}\n')
        wire.file.read()
        return False

    stack.upstream.script = rows
    with feed(stack.port, "/events", sent(stack, sid)) as stream:
        assert stream.status == 200
        end_elsewhere(Reason.REVOKED)(stack, sid)
        assert stream.ends_within(2)
        assert not stream.ended_well


def test_a_stream_that_has_not_begun(stack: Stack, sid: str) -> None:
    """Where the session ends before the API has answered, the answer is ours."""

    def forgets(wire: Wire, _request: Request) -> object:
        forget(stack, sid)
        return wire.file.read() != b""

    stack.upstream.script = forgets
    browser = stack.browser()
    browser.cookies["bff"] = sid
    answer = browser.api("/patient")
    assert (answer.status, answer.code) == (401, "session_expired")
    assert stack.upstream.lost(stack.upstream.requests[0]), "nobody waits for the API any more"


def test_a_session_that_ends_with_its_tokens(stack: Stack) -> None:
    """What cannot be renewed ends with its access token; a renewal that changes this is noticed."""
    now = stack.clock()
    sid = stack.plant(TokenSet(access_token="a", obtained_at=now, expires_at=now + 50))
    with (
        feed(stack.port, "/bff/events", sent(stack, sid)) as stream,
        sessions(stack) as elsewhere,
    ):
        record = elsewhere.load(digest(sid))
        assert record is not None
        elsewhere.save_tokens(record, TokenSet(access_token="b", obtained_at=now, expires_at=now + 90))
        assert until(lambda: [each.generation for each in stack.streams._watched.values()] == [2])
        stack.clock.ahead += 55
        assert stream.lives_for(2.5)
        stack.clock.ahead += 36
        assert stream.ends_within(3)


# -- warnings ---------------------------------------------------------------------------------------


def test_warnings(stack: Stack, sid: str) -> None:
    """Before the idle end there is one warning, after a slide another; and one before the absolute end."""

    def warned(end: float, most: int) -> bool:
        """Whether the next event warns of that end, and tells the seconds that are left: `most` at most."""
        event = next(events)
        return event.name == "session-expiring" and end - stack.clock() - 1 < event.data["seconds"] <= most

    with feed(stack.port, "/bff/events", sent(stack, sid)) as stream, sessions(stack) as elsewhere:
        events = stream.named()
        record = elsewhere.load(digest(sid))
        assert record is not None
        stack.clock.ahead += IDLE - 50
        assert warned(record.last_seen + IDLE, most=50)
        idle_end = elsewhere.slide(record)
        stack.clock.ahead += IDLE - 50
        assert warned(idle_end, most=50)
        elsewhere.slide(record)
        stack.clock.ahead += 42  # the absolute end comes first now
        assert warned(record.meta.created + ABSOLUTE, most=58)
        stack.clock.ahead += 60
        assert [event.data for event in events] == [{"reason": "expired"}]


def test_warned_once(stack: Stack, sid: str) -> None:
    """Nobody is warned of the same end twice; signs of life are no events."""
    with feed(stack.port, "/bff/events", sent(stack, sid), timeout=6) as stream:
        stack.clock.ahead += IDLE - 50
        assert next(stream.named()).name == "session-expiring"
        with pytest.raises(TimeoutError):
            next(stream.named())


def test_signs_of_life(stack: Stack, sid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment comes every fifteen seconds, and a time to come back after at the beginning."""
    assert BEAT_TICKS * LOOK_SECONDS == 15
    monkeypatch.setattr("bff.streams.LOOK_SECONDS", 0.1)  # a second and a half
    with feed(stack.port, "/bff/events", sent(stack, sid), timeout=17) as stream:
        found = [next(iter(stream)) for _ in range(2)]
        assert [event.name for event in found] == ["", ""]


# -- nothing extends the session --------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/bff/events", "/events"])
def test_no_stream_extends_the_session(stack: Stack, sid: str, target: str) -> None:
    """Neither to open one nor to keep it open counts as use; any other request does."""
    stack.upstream.script = silent
    key = f"{stack.settings.redis_prefix}{{{digest(sid)}}}"
    with stack.store.client() as client:
        before = client.hget(key, "s")
        stack.clock.ahead += IDLE / 2
        with feed(stack.port, target, sent(stack, sid)) as stream:
            assert stream.status == 200
            time.sleep(1.2)
        assert client.hget(key, "s") == before
        stack.upstream.reset()
        with feed(stack.port, "/plain", sent(stack, sid) | CSRF) as answer:
            assert answer.status == 200
        assert client.hget(key, "s") != before


# -- who may ----------------------------------------------------------------------------------------

OURS = "http://localhost:PORT"
PROOFS: dict[str, tuple[dict[str, str], int]] = {
    "our header": ({"X-CSRF": "1"}, 200),
    "an EventSource of ours": ({"Sec-Fetch-Site": "same-origin"}, 200),
    "our Origin": ({"Origin": OURS}, 200),
    "all three": ({"X-CSRF": "1", "Sec-Fetch-Site": "same-origin", "Origin": OURS}, 200),
    "nothing": ({}, 403),
    "a foreign Origin": ({"Origin": "https://evil.example"}, 403),
    "a foreign Origin with our header": ({"Origin": "https://evil.example", "X-CSRF": "1"}, 403),
    "a foreign Origin that calls itself ours": (
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        403,
    ),
    "Origin: null": ({"Origin": "null"}, 403),
    "Origin: null in a frame of ours": ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 403),
    "a sibling": ({"Sec-Fetch-Site": "same-site"}, 403),
    "a sibling with our header": ({"Sec-Fetch-Site": "same-site", "X-CSRF": "1"}, 403),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "the address line": ({"Sec-Fetch-Site": "none"}, 403),
    "a longer Origin": ({"Origin": OURS + ".evil.example"}, 403),
    "another port": ({"Origin": "http://localhost:1"}, 403),
    "another header": ({"X-CSRF": "0"}, 403),
    "a service worker": ({"X-CSRF": "1", "Service-Worker": "script"}, 403),
}


@pytest.mark.parametrize("target", ["/bff/events", "/events"])
@pytest.mark.parametrize("case", PROOFS)
def test_proof_of_origin(stack: Stack, sid: str, target: str, case: str) -> None:
    """Streams take the browser's word in our header's place, and nobody else's."""
    headers, status = PROOFS[case]
    headers = {name: value.replace("PORT", str(stack.port)) for name, value in headers.items()}
    plain = {"Host": f"localhost:{stack.port}", "Cookie": f"bff={sid}"}
    stack.upstream.script = silent
    with feed(stack.port, target, plain | headers) as stream:
        assert stream.status == status


def test_the_word_of_the_browser_is_for_streams(stack: Stack, sid: str) -> None:
    """On other routes and addresses the header stays due."""
    for target in ("/plain", "/bff/user"):
        with feed(stack.port, target, sent(stack, sid, Origin=stack.origin)) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("target", ["/bff/events", "/events"])
@pytest.mark.parametrize(("cookie", "code"), [(None, "not_signed_in"), ("x" * 43, "session_expired")])
def test_signed_out(stack: Stack, target: str, cookie: str | None, code: str) -> None:
    """Without a session there is no stream."""
    browser = stack.browser()
    browser.cookies |= {"bff": cookie} if cookie else {}
    answer = browser.api(target)
    assert (answer.status, answer.code, answer.get("cache-control")) == (401, code, "no-store")


def test_methods(stack: Stack, sid: str) -> None:
    """The address of events takes GET alone; a stream that answers a POST is possible elsewhere."""
    browser = stack.browser()
    browser.cookies["bff"] = sid
    assert browser.request("POST", "/bff/events", CSRF).code == "method_not_allowed"
    assert browser.request("HEAD", "/bff/events", CSRF).status == 405
    stack.upstream.answers(ok(b"data: 1\n\n", b"content-type: text/event-stream"))
    assert browser.request("POST", "/events", CSRF, b"{}").body == b"data: 1\n\n"


# -- how many ---------------------------------------------------------------------------------------


def test_streams_of_a_session_are_bounded(stack: Stack, sid: str) -> None:
    """A session has so many streams at once; what is over gets 429 and costs nothing; a place that is left is
    free again."""
    stack.upstream.script = silent
    with contextlib.ExitStack() as open_streams:
        streams = [
            open_streams.enter_context(feed(stack.port, target, sent(stack, sid)))
            for target in ("/bff/events", "/events", "/bff/events", "/events")
        ]
        assert [stream.status for stream in streams] == [200, 200, 200, 429]
        assert dict(streams[3].headers)["retry-after"] == "10"
        with feed(stack.port, "/bff/events", sent(stack, stack.plant())) as other:
            assert other.status == 200
    again = stack.browser()
    again.cookies["bff"] = sid

    def free() -> bool:
        time.sleep(0.05)
        with feed(stack.port, "/bff/events", sent(stack, sid)) as stream:
            return stream.status == 200

    assert until(free)


def test_streams_of_a_worker_are_bounded(stack: Stack) -> None:
    """All sessions together have so many; anonymous ones are bounded by their address."""
    stack.upstream.script = silent
    with contextlib.ExitStack() as open_streams:
        anonymous = [
            open_streams.enter_context(feed(stack.port, "/open", sent(stack, cookie)))
            for cookie in (None, "a" * 43, "b" * 43, None)
        ]
        assert [stream.status for stream in anonymous] == [200, 200, 200, 429]
        signed_in = [
            open_streams.enter_context(feed(stack.port, "/bff/events", sent(stack, stack.plant())))
            for _ in range(6)
        ]
        assert [stream.status for stream in signed_in] == [200] * 5 + [429]


# -- trouble ----------------------------------------------------------------------------------------


def test_a_store_that_is_away_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams outlive a short outage of Redis; in one of half a minute they end, without a word about the
    session; and an end that comes during it is still told."""
    clock = FakeClock(1000)
    monkeypatch.setattr("bff.streams.time", SimpleNamespace(monotonic=clock))
    with store() as own, running(own, toml=TOML) as stack:
        sid = stack.plant()
        with feed(stack.port, "/bff/events", sent(stack, sid)) as stream:
            own.stop()
            clock.advance(20)
            assert stream.lives_for(2)
            own.start()
            assert until(lambda: {each.seen_at for each in stack.streams._watched.values()} == {clock.now})
            own.stop()
            clock.advance(20)
            assert stream.lives_for(2)
            clock.advance(11)
            assert stream.ends_within(5)
            assert stream.ended_well
        own.start()


def test_shutting_down_before_the_head(module_store: Store) -> None:
    """A stream that the API has not begun is told to come again."""
    answers = []
    with running(module_store, toml=TOML) as stack:
        stack.upstream.script = lambda wire, _: wire.file.read()
        browser = stack.browser()
        browser.cookies["bff"] = stack.plant()
        thread = threading.Thread(target=lambda: answers.append(browser.api("/patient")))
        thread.start()
        assert until(lambda: stack.upstream.requests)
    thread.join(30)
    assert (answers[0].status, answers[0].code) == (503, "store_unavailable")


def test_an_api_that_breaks_off(stack: Stack, sid: str) -> None:
    """What the API cuts off is cut off, also where another request waits behind it."""

    def crash(wire: Wire, _request: Request) -> object:
        wire.send(
            STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n") + b"3\r\n:\n\n\r\n"
        )
        time.sleep(0.3)
        return False

    stack.upstream.script = crash
    with feed(stack.port, "/events", sent(stack, sid)) as stream:
        stream.line.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.ends_within(2)
        assert not stream.ended_well


def test_a_stream_that_fails_keeps_no_other_open(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    """The end of a session reaches all of its streams, and whoever is told badly is logged."""
    told: list[Reason | None] = []

    class Broken:
        def beat(self) -> None: ...
        def expiring(self, seconds: float) -> None: ...
        def end(self, reason: Reason | None) -> None:
            raise RuntimeError

    class Sound(Broken):
        def end(self, reason: Reason | None) -> None:
            told.append(reason)

    async def gone(*_command: object) -> list[None] | bytes:
        return [None, None] if _command[0] == b"HMGET" else b"unheard_of"

    async def watch() -> None:
        reader = rig.reader()
        streams = Streams(reader, gone, rig.lifetime, rig.clock, per_session=9, per_worker=9)
        with streams.watch(record, Broken()), streams.watch(record, Sound()):
            assert await happens(lambda: bool(told))
        await reader.close()

    monkeypatch.setattr("bff.streams.LOOK_SECONDS", 0.01)
    record = rig.begin()
    asyncio.run(watch())
    assert told == [Reason.REVOKED]


def test_shutting_down(module_store: Store) -> None:
    """When the server ends, streams end at once, and sessions live on."""
    with running(module_store, toml=TOML) as stack:
        stack.upstream.script = silent
        sid = stack.plant()
        streams = [
            Feed(stack.port, target, sent(stack, sid)) for target in ("/bff/events", "/events", "/events")
        ]
        streams[2].line.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")  # waits behind the stream
        keys, start = stack.sessions(), Stopwatch()
    assert start.own < 1.5
    assert len(keys) == 1
    for stream in streams:
        assert list(stream.named()) == []
        assert stream.ended_well
        stream.close()
