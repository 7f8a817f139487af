"""What is counted, under which names, and that it costs nothing where nobody asked for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bff.app import create_app
from bff.dataplane import DataPlane
from bff.logs import listen
from bff.measured import MeasuredPlane, Measuring, _outcome
from bff.metrics import ALERTS, NoMetrics
from bff.prometheus import STORE_BUCKETS, BulkHistogram, Prometheus, Timings
from bff.provider.renewal import GrantEnded, Refreshed, RefreshFailed, RefreshResult, Unrenewable, Unverified
from bff.proxy import Proxy
from bff.routes import build
from bff.sessions.record import digest
from bff.settings import SettingsError, load
from tests.fakes import token_set
from tests.support.browser import CSRF, Browser
from tests.support.provider import ABSENT, SUBJECT, Reply
from tests.support.stack import Stack, Store, running, store
from tests.support.upstream import Request, Wire, ok
from tests.support.wire import line, until
from tests.test_settings import BASE

METRICS = "127.0.0.1:9"  # nobody listens: that is the server's part
ROUTE = """
[[routes]]
path = "/items"
upstream = "UPSTREAM"
methods = ["GET", "POST"]
"""


@pytest.fixture(scope="module")
def module_store() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def stack(module_store: Store) -> Iterator[Stack]:
    with running(module_store, toml=ROUTE, metrics_bind=METRICS, sessions_per_user="2") as found:
        yield found
    listen(None)


def registry(stack: Stack) -> CollectorRegistry:
    assert isinstance(stack.app, MeasuredPlane)
    stack.app._flush()
    return stack.app._metrics.registry


def value(stack: Stack, name: str, **labels: str) -> float:
    """A sample, with what was counted up to now."""
    return registry(stack).get_sample_value(name, labels) or 0.0


@contextmanager
def counted(stack: Stack, name: str, by: float = 1, **labels: str) -> Iterator[None]:
    """The sample grows by so much in the block."""
    before = value(stack, name, **labels)
    yield
    assert until(lambda: value(stack, name, **labels) == before + by), (name, labels)


# -- signing in and out -----------------------------------------------------------------------------


def test_a_sign_in(stack: Stack) -> None:
    """It is counted by its result, and a session begins."""
    with (
        counted(stack, "bff_sign_ins_total", result="succeeded", code=""),
        counted(stack, "bff_sessions_begun_total"),
    ):
        stack.sign_in(stack.browser())


def failing(stack: Stack, **response: str) -> None:
    browser = stack.browser()
    asked = browser.get("/bff/login")
    browser.callback(stack.provider.authorize(asked.get("location"), code=ABSENT, **response))


@pytest.mark.parametrize("error", ["access_denied", "server_error"])
def test_a_sign_in_that_fails(stack: Stack, error: str) -> None:
    """It is counted by the code of its error page, which is one of ours, whatever the provider says."""
    code = "access_denied" if error == "access_denied" else "provider_refused"
    with counted(stack, "bff_sign_ins_total", result="failed", code=code):
        failing(stack, error=error)


def test_a_code_that_is_refused(stack: Stack) -> None:
    """The token endpoint's refusals count as failed sign-ins, too."""
    stack.provider.replies["token"] = Reply(400, {"error": "invalid_grant"})
    browser = stack.browser()
    asked = browser.get("/bff/login")
    with counted(stack, "bff_sign_ins_total", result="failed", code="code_refused"):
        browser.callback(stack.provider.authorize(asked.get("location")))


def test_a_callback_of_nobody(stack: Stack) -> None:
    """A response that belongs to no attempt is no failed sign-in: anybody can send one."""
    with (
        counted(stack, "bff_callbacks_refused_total", code="state_unknown"),
        counted(stack, "bff_sign_ins_total", by=0, result="failed", code="state_unknown"),
    ):
        stack.browser().get("/bff/callback?state=x&code=y")


def sign_out(stack: Stack) -> None:
    assert stack.sign_in(stack.browser()).request("POST", "/bff/logout", CSRF).status == 200


def revoke(stack: Stack) -> None:
    stack.sign_in(stack.browser())
    assert stack.sign_in(stack.browser()).request("DELETE", "/bff/sessions", CSRF).status == 204


def reach_the_cap(stack: Stack) -> None:
    for _ in range(3):
        stack.sign_in(stack.browser())


def be_logged_out(stack: Stack) -> None:
    stack.sign_in(stack.browser())
    token = stack.provider.logout_token(sub=stack.provider.claims["sub"])
    answer = stack.browser().post("/bff/backchannel", logout_token=token)
    assert answer.status == 200


def sign_in_again(stack: Stack) -> None:
    stack.sign_in(stack.sign_in(stack.browser()))


def lose_the_grant(stack: Stack) -> None:
    browser = stack.sign_in(stack.browser())
    stack.provider.replies["token"] = Reply(400, {"error": "invalid_grant"})
    stack.clock.ahead += 400
    assert browser.api("/items").code == "session_expired"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (sign_out, "signed_out"),
        (revoke, "revoked"),
        (reach_the_cap, "cap"),
        (be_logged_out, "provider"),
        (sign_in_again, "replaced"),
        (lose_the_grant, "refresh_refused"),
    ],
)
def test_why_sessions_end(stack: Stack, end: Callable[[Stack], None], reason: str) -> None:
    """Each way in which a session is ended is counted under its own name."""
    stack.provider.claims["sub"] = f"somebody-{reason}"
    with counted(stack, "bff_sessions_ended_total", reason=reason):
        end(stack)


# -- refresh ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Refreshed(token_set(time.time)), "renewed"),
        (GrantEnded(), "grant_ended"),
        (Unrenewable("x"), "unrenewable"),
        (Unverified(token_set(time.time)), "unverified"),
        (RefreshFailed("x"), "outage"),
        (RefreshFailed("invalid_client", outage=False), "refused"),
    ],
)
def test_outcomes_of_a_refresh(result: RefreshResult, outcome: str) -> None:
    """Each answer of the provider has its name."""
    assert _outcome(result) == outcome


def test_a_refresh_is_counted_with_its_time(stack: Stack) -> None:
    """By outcome, in a histogram whose sum is about what the provider took."""
    browser = stack.sign_in(stack.browser())
    stack.clock.ahead += 400
    with counted(stack, "bff_refresh_seconds_count", outcome="renewed"):
        assert browser.api("/items").status == 200
    assert 0 < value(stack, "bff_refresh_seconds_sum", outcome="renewed") < 1


def test_a_wait_for_another_process(stack: Stack) -> None:
    """A refresh that finds the lease held counts how long it waited."""
    browser = stack.sign_in(stack.browser())
    assert browser.session is not None
    with stack.store.client() as client:
        key = f"{stack.settings.redis_prefix}{{{digest(browser.session)}}}:lease"
        client.set(key, "somebody else", px=300)
    stack.clock.ahead += 400
    with counted(stack, "bff_refresh_lease_wait_seconds_count"):
        assert browser.api("/items").status == 200
    assert 0.1 < value(stack, "bff_refresh_lease_wait_seconds_sum") < 2


def test_a_forced_refresh(stack: Stack) -> None:
    """A 401 of the upstream that leads to a new token is counted by route; so is one that does not."""
    browser = stack.sign_in(stack.browser())
    browser.api("/items")
    stale = stack.upstream.requests[-1].get("authorization")

    def script(wire: Wire, request: Request) -> object:
        bad = request.get("authorization") == stale
        wire.send(ok(b"no", status=b"401 Unauthorized") if bad else ok(b"yes"))
        return True

    stack.upstream.script = script
    with counted(stack, "bff_forced_refreshes_total", route="/items", outcome="renewed"):
        assert browser.api("/items").status == 200
    browser = stack.sign_in(stack.browser())
    stack.upstream.answers(ok(b"no", status=b"401 Unauthorized"))
    stack.provider.replies["token"] = Reply(503)
    with counted(stack, "bff_forced_refreshes_total", route="/items", outcome="not_renewed"):
        assert browser.api("/items").status == 401


# -- requests ---------------------------------------------------------------------------------------


def test_requests_by_route_and_class(stack: Stack) -> None:
    """A route's requests count under its configured path, whatever lies below it and whatever came of it."""
    browser = stack.sign_in(stack.browser())
    with (
        counted(stack, "bff_requests_total", by=2, route="/items", status="2xx"),
        counted(stack, "bff_upstream_seconds_count", by=2, route="/items"),
        counted(stack, "bff_upstream_seconds_count", by=0, route="/weather"),
    ):
        assert browser.api("/items/4711?secret=1").status == 200
        assert browser.api("/items").status == 200
    with counted(stack, "bff_requests_total", by=3, route="/items", status="4xx"):
        assert browser.get("/items").status == 403
        assert browser.request("DELETE", "/items", CSRF).status == 405
        assert stack.browser().api("/items").status == 401
    stack.upstream.answers(b"", close=True)
    with counted(stack, "bff_requests_total", route="/items", status="5xx"):
        assert browser.api("/items").status == 502


def request_of(stack: Stack, browser: Browser) -> bytes:
    head = f"GET /items HTTP/1.1\r\nHost: localhost:{stack.port}\r\nX-CSRF: 1\r\n"
    return f"{head}Cookie: bff={browser.session}\r\n\r\n".encode()


def test_a_browser_that_goes(stack: Stack) -> None:
    """A request whose browser hangs up before there is an answer is told from the others."""
    stack.upstream.script = lambda wire, _request: wire.file.read()
    browser = stack.sign_in(stack.browser())
    with (
        counted(stack, "bff_requests_total", route="/items", status="aborted"),
        line(stack.port) as connection,
    ):
        connection.send(request_of(stack, browser))
        assert until(lambda: value(stack, "bff_requests_open") == 1)
        connection.close()


def test_open_streams(stack: Stack) -> None:
    """An answer that has begun and not ended is a stream, as long as it is open."""
    go_on = [False]

    def script(wire: Wire, _request: Request) -> object:
        wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        until(lambda: go_on[0], within=30)
        wire.send(b"0\r\n\r\n")
        return True

    stack.upstream.script = script
    browser = stack.sign_in(stack.browser())
    with line(stack.port) as connection:
        connection.send(request_of(stack, browser))
        assert until(lambda: value(stack, "bff_streams_open") == 1)
        go_on[0] = True
        assert connection.answer().body == b"hello"
    assert until(lambda: value(stack, "bff_streams_open") == value(stack, "bff_requests_open") == 0)


def test_the_store_is_timed(stack: Stack) -> None:
    """Each look at a session is a question to Redis, with its time."""
    browser = stack.sign_in(stack.browser())
    with counted(stack, "bff_store_seconds_count", by=3):
        for _ in range(3):
            browser.api("/items")
    assert value(stack, "bff_store_seconds_sum") > 0


def test_refusals_by_code(stack: Stack) -> None:
    """Errors of the BFF's own count by their public code, in both planes."""
    asked = {
        "csrf_required": ("/items", {}),
        "not_signed_in": ("/bff/user", CSRF),
        "route_not_found": ("/nothing", {}),
        "bad_request": ("/bff/login?returnUrl=//evil.example", {}),
    }
    for code, (target, headers) in asked.items():
        with counted(stack, "bff_refusals_total", code=code):
            stack.browser().get(target, headers)


def test_rate_limited_requests(module_store: Store) -> None:
    """They are among the refusals."""
    with running(module_store, metrics_bind=METRICS, rate_limit_per_minute="1") as stack:
        stack.browser().get("/bff/login")
        with counted(stack, "bff_refusals_total", code="rate_limited"):
            stack.browser().get("/bff/login")


def test_no_label_tells_of_anybody(stack: Stack) -> None:
    """After a whole visit nothing of it stands in the metrics: no user, session, path, address, token."""
    browser = stack.sign_in(stack.browser())
    browser.api("/items/4711?secret=1")
    browser.get("/bff/callback?state=planted&code=guessed")
    sid = browser.session or ""
    text = generate_latest(registry(stack)).decode()
    for told in (sid, digest(sid), SUBJECT, "alice", "/4711", "secret=", "planted", "127.0.0.1"):
        assert told not in text, told
    assert not any(secret in text for secret in stack.provider.secrets)


# -- what it costs ----------------------------------------------------------------------------------


def test_nothing_is_in_the_way_without_metrics(module_store: Store) -> None:
    """With metrics off the parts are the plain ones, and prometheus-client is not even imported."""
    with running(module_store) as stack:
        plane = stack.app
        assert type(plane) is DataPlane
        assert type(plane._proxy) is Proxy
        assert type(plane._reader._wire).__name__ == "Wire"
        assert type(plane._proxy._access._metrics) is NoMetrics
    code = "import sys, bff.app; print([m for m in ('prometheus_client', 'bff.tracing') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counting_is_cheap() -> None:
    """What is done at each request takes about a microsecond; ten are allowed, for machines that are busy."""
    tally = Prometheus(["/items"]).tally
    rounds = 20_000
    began = time.thread_time()
    for _ in range(rounds):
        tally.answer("/items", 200)
        tally.store.observe(0.0003)
        tally.upstream["/items"].observe(0.003)
    assert (time.thread_time() - began) / rounds < 10e-6


def test_buckets_hold_what_they_say() -> None:
    """An observation on a bound belongs to its bucket, as Prometheus has it; none is lost or doubled."""
    histogram = BulkHistogram("x", "x", buckets=STORE_BUCKETS, registry=(found := CollectorRegistry()))
    timings = Timings(histogram, STORE_BUCKETS)
    for seconds in (0.0002, 0.00021, 99.0):
        timings.observe(seconds)
    timings.flush()
    timings.flush()
    assert found.get_sample_value("x_bucket", {"le": "0.0002"}) == 1
    assert found.get_sample_value("x_bucket", {"le": "0.0005"}) == 2
    assert found.get_sample_value("x_bucket", {"le": "+Inf"}) == found.get_sample_value("x_count") == 3
    assert found.get_sample_value("x_sum") == pytest.approx(99.00041)


# -- alerts -----------------------------------------------------------------------------------------


def test_alerts_are_there_from_the_beginning() -> None:
    """Each begins at zero, or Prometheus would miss the first; what is no alert makes no series."""
    metrics = Prometheus([])
    for event in ALERTS:
        assert metrics.registry.get_sample_value("bff_alerts_total", {"event": event}) == 0
    metrics.alert("refresh_failed")
    metrics.alert("something else")
    text = generate_latest(metrics.registry).decode()
    assert 'bff_alerts_total{event="refresh_failed"} 1.0' in text
    assert "something else" not in text


# -- where it listens -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bind", "metrics", "problem"),
    [
        ("127.0.0.1:5003", "127.0.0.1:5003", "BFF_BIND"),
        ("0.0.0.0:5003", "127.0.0.1:5003", "BFF_BIND"),
        ("127.0.0.1:5003", "[::]:5003", "BFF_BIND"),
        ("127.0.0.1:5003", "localhost:5003", "BFF_BIND"),
        ("127.0.0.1:5003", "9100", "HOST:PORT"),
        ("127.0.0.1:5003", "127.0.0.1:5004", "BFF_FORWARD_AUTH_BIND"),
        ("127.0.0.1:5003", "0.0.0.0:5004", "BFF_FORWARD_AUTH_BIND"),
        ("127.0.0.1:5003", "127.0.0.1:9100", None),
        ("127.0.0.1:5003", "127.0.0.2:5003", None),
    ],
)
def test_an_address_of_its_own(bind: str, metrics: str, problem: str | None) -> None:
    """Never the public one, nor that of forward-auth, nor one that includes them."""
    forward_auth = {"BFF_FORWARD_AUTH_BIND": "127.0.0.1:5004", "BFF_TRUSTED_PROXIES": "127.0.0.1/32"}
    environ = BASE | forward_auth | {"BFF_BIND": bind, "BFF_METRICS_BIND": metrics}
    if problem is None:
        assert load(environ).metrics_bind == metrics
        return
    with pytest.raises(SettingsError) as failed:
        load(environ)
    (line_,) = failed.value.problems
    assert line_.startswith("BFF_METRICS_BIND ")
    assert problem in line_


def test_routes_alone_are_labels(module_store: Store) -> None:
    """The configured routes and the built-in one, no more."""
    with running(module_store, toml=ROUTE) as stack:
        assert sorted(Measuring(build(stack.settings)).prometheus.tally.upstream) == ["/items", "/weather"]
    listen(None)


def test_the_application_may_be_made_twice(module_store: Store) -> None:
    """Two applications in one process, as in tests, do not share their counts."""
    with running(module_store, metrics_bind=METRICS) as stack:
        Browser(stack.port, stack.origin).api("/bff/user")
        other = create_app(stack.settings)
        assert isinstance(other, MeasuredPlane)
        assert (
            other._metrics.registry.get_sample_value("bff_refusals_total", {"code": "not_signed_in"}) is None
        )
    listen(None)
