"""The weather API's addresses, answers and headers."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from bff.resource_api.weather import forecast
from tests.forge import Forge
from tests.resource_api.conftest import bearer, build_app

# The forge's time, 1,800,000,000, is on the fifteenth.
TOMORROW = date(2027, 1, 16)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_anonymous(api: FlaskClient, path: str) -> None:
    """Monitors have no token."""
    answer = api.get(path)
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("query", "days"),
    [("", 5), ("?days=1", 1), ("?days=14", 14), ("?x=1", 5), ("?Days=3", 5), ("?days[]=3", 5)],
)
def test_the_forecast(api: FlaskClient, forge: Forge, query: str, days: int) -> None:
    """It begins tomorrow, goes on day by day, and has the three members and no other."""
    answer = api.get(f"/weather{query}", headers=bearer(forge.access_token()))
    assert answer.content_type == "application/json"
    entries = answer.get_json()
    expected = [(TOMORROW + timedelta(ahead)).isoformat() for ahead in range(days)]
    assert [entry["date"] for entry in entries] == expected
    for entry in entries:
        assert list(entry) == ["date", "temperatureC", "summary"]
        assert isinstance(entry["temperatureC"], int)
        assert isinstance(entry["summary"], str)


@pytest.mark.parametrize(
    "query",
    [
        "days=0",
        "days=15",
        "days=-1",
        "days=",
        "days=x",
        "days=1.0",
        "days=1e1",
        "days=%201",
        "days=1_0",
        "days=05",
        "days=005",
        "days=%D9%A3",
        "days=5&days=5",
        "days=" + "9" * 5000,
        "days=%00",
        "days=%FF",
        "days=00",
        "days=+5",
        "days=5%0A",
        "days=5;days=6",
        "days=%EF%BC%95",
        "days=0x5",
        "days=5,6",
        "days=&days=5",
    ],
)
@pytest.mark.parametrize("path", ["/weather", "/weather/admin"])
def test_days_out_of_range(api: FlaskClient, forge: Forge, path: str, query: str) -> None:
    """Anything but a whole number from 1 to 14 is a clear 400."""
    token = forge.access_token(**{"cognito:groups": ["admins"]})
    answer = api.get(f"{path}?{query}", headers=bearer(token))
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["code"] == "bad_request"
    assert "14" in answer.get_json()["detail"]
    assert "WWW-Authenticate" not in answer.headers


def test_who_may_not_call_learns_nothing(api: FlaskClient) -> None:
    """The token is judged before the query."""
    assert api.get("/weather?days=x").status_code == 401


def test_the_weather_of_a_day_never_changes() -> None:
    """The same day gets the same weather whenever and wherever it is asked for."""
    today = date(2026, 7, 1)
    assert forecast(today, 3)[1:] == forecast(today + timedelta(1), 2)
    assert len({day.temperature for day in forecast(today, 14)}) > 3


def test_the_weather_is_plausible() -> None:
    """Summers are warmer than winters, and every day has a word that fits."""
    year = forecast(date(2026, 12, 31), 365)
    january, july = year[:31], year[181:212]
    assert sum(d.temperature for d in july) > sum(d.temperature for d in january) + 300
    assert {day.summary for day in year} >= {"Freezing", "Cool", "Mild", "Hot"}
    assert all((day.summary == "Freezing") == (day.temperature < -3) for day in year)
    assert all(0 <= day.humidity <= 100 and 0 <= day.wind < 60 for day in year)


def test_administrators_see_more(api: FlaskClient, forge: Forge) -> None:
    """The group admins opens the station's details and fuller days."""
    token = forge.access_token(**{"cognito:groups": ["admins", "readers"]})
    report = api.get("/weather/admin?days=2", headers=bearer(token)).get_json()
    assert report["generatedAt"] == "2027-01-15T08:00:00Z"
    assert set(report["station"]) >= {"id", "name", "region"}
    assert len(report["forecast"]) == 2
    assert set(report["forecast"][0]) > {"date", "temperatureC", "summary", "humidityPercent"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cognito:groups": []},
        {"cognito:groups": ["admin"]},
        {"cognito:groups": ["Admins"]},
        {"cognito:groups": ["admins "]},
        {"groups": ["admins"], "roles": ["admins"]},
        {"cognito:groups": ["admins"], "scope": "openid"},
    ],
)
def test_others_do_not(api: FlaskClient, forge: Forge, changes: dict[str, object]) -> None:
    """The very group, and the scope on top of it."""
    answer = api.get("/weather/admin", headers=bearer(forge.access_token(**changes)))
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope"')


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_not_found"),
        ("GET", "/weather/", 404, "route_not_found"),
        ("GET", "/Weather", 404, "route_not_found"),
        ("GET", "/weather/../weather", 404, "route_not_found"),
        ("GET", "/%00", 404, "route_not_found"),
        ("GET", "/%FF", 404, "route_not_found"),
        ("GET", "/static/x", 404, "route_not_found"),
        ("POST", "/weather", 405, "method_not_allowed"),
        ("DELETE", "/weather/admin", 405, "method_not_allowed"),
        ("OPTIONS", "/weather", 405, "method_not_allowed"),
        ("TRACE", "/health", 405, "method_not_allowed"),
        ("B%C3%A4", "/health", 405, "method_not_allowed"),
    ],
)
def test_errors_are_problems(
    api: FlaskClient, forge: Forge, method: str, path: str, status: int, code: str
) -> None:
    """What is not there is said in JSON with a stable code, and 405 says what is allowed."""
    answer = api.open(path, method=method, headers=bearer(forge.access_token()))
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    body = answer.get_json()
    assert (body["code"], body["status"]) == (code, status)
    assert {"type", "title", "detail"} <= set(body)
    assert (answer.headers.get("Allow") == "GET, HEAD") == (status == 405)


def test_the_unexpected_is_a_problem_too(forge: Forge, caplog: pytest.LogCaptureFixture) -> None:
    """A bug answers 500 without a word of what happened; the log has it."""

    def broken() -> float:
        raise ZeroDivisionError("inner workings")

    calls = iter([forge.now])
    app = build_app(forge, clock=lambda: next(calls, None) or broken())
    answer = app.test_client().get("/weather", headers=bearer(forge.access_token()))
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal_error"
    assert "inner" not in answer.text
    assert "inner workings" in caplog.text


@pytest.mark.parametrize("path", ["/health", "/weather", "/weather/admin", "/nope"])
def test_every_answer_is_hardened(api: FlaskClient, forge: Forge, path: str) -> None:
    """Nothing is sniffed and nothing is kept, with a token and without."""
    for headers in ({}, bearer(forge.access_token())):
        answer = api.get(path, headers=headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


APP_ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def cors_api(forge: Forge) -> FlaskClient:
    """The API with one origin allowed."""
    return build_app(forge, {"API_CORS_ORIGINS": APP_ORIGIN}).test_client()


def preflight(client: FlaskClient, origin: str, path: str = "/weather") -> dict[str, str]:
    """The CORS headers of a preflight's answer, and its status."""
    answer = client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    cors = {name: value for name, value in answer.headers if re.match("Access-Control-", name)}
    return {**cors, "status": str(answer.status_code)}


def test_a_preflight_of_an_allowed_origin(cors_api: FlaskClient) -> None:
    """It may send Authorization, and gets no credentials mode."""
    answer = preflight(cors_api, APP_ORIGIN)
    assert answer["status"] == "204"
    assert answer["Access-Control-Allow-Origin"] == APP_ORIGIN
    assert answer["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert answer["Access-Control-Allow-Headers"] == "Authorization"
    assert "Access-Control-Allow-Credentials" not in answer


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "https://APP.example",
        "https://app.example/",
        "https://evil.example, https://app.example",
        "null",
        "*",
        "",
    ],
)
def test_other_origins_get_nothing(cors_api: FlaskClient, forge: Forge, origin: str) -> None:
    """No CORS header at all, on preflights and on answers."""
    assert preflight(cors_api, origin) == {"status": "405"}
    headers = {"Origin": origin, **bearer(forge.access_token())}
    answer = cors_api.get("/weather", headers=headers)
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("method", ["POST", "DELETE", "", "\u00e4"])
def test_a_preflight_allows_no_more_than_there_is(cors_api: FlaskClient, method: str) -> None:
    """Whatever is asked for, the answer names what the address takes, and the browser refuses the rest."""
    headers = {
        "Origin": APP_ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "x-anything, cookie",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = cors_api.options("/weather", headers=headers)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Methods"]) == (204, "GET, HEAD")
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization"
    assert "Access-Control-Allow-Private-Network" not in answer.headers


def test_two_origins_are_none(cors_api: FlaskClient, forge: Forge) -> None:
    """A header that came twice names nobody."""
    lines = Headers([("Origin", APP_ORIGIN), ("Origin", APP_ORIGIN), *bearer(forge.access_token()).items()])
    assert "Access-Control-Allow-Origin" not in cors_api.get("/weather", headers=lines).headers


def test_each_origin_is_told_its_own_name(forge: Forge) -> None:
    """With several origins allowed, the answer to one does not speak of another."""
    origins = [APP_ORIGIN, "http://localhost:5173", "http://[::1]:8080"]
    client = build_app(forge, {"API_CORS_ORIGINS": ",".join(origins)}).test_client()
    for origin in origins:
        answer = client.get("/health", headers={"Origin": origin})
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/weather?access_token=x", "/weather/admin", "/weather?days=0", "/nope"])
def test_every_refusal_can_be_read(cors_api: FlaskClient, forge: Forge, path: str) -> None:
    """Not only the 401: a page must be able to tell its user what is wrong."""
    answer = cors_api.get(path, headers={"Origin": APP_ORIGIN, **bearer(forge.access_token())})
    assert answer.status_code in (400, 403, 404)
    assert answer.headers["Access-Control-Allow-Origin"] == APP_ORIGIN


def test_errors_can_be_read_by_the_page_too(cors_api: FlaskClient) -> None:
    """A page that may call must also see why it was refused."""
    answer = cors_api.get("/weather", headers={"Origin": APP_ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == APP_ORIGIN
    assert "WWW-Authenticate" in answer.headers["Access-Control-Expose-Headers"]


def test_a_preflight_for_nothing(cors_api: FlaskClient) -> None:
    """An address that does not exist stays 404."""
    assert preflight(cors_api, APP_ORIGIN, "/nope")["status"] == "404"


def test_without_origins_there_is_no_cors(api: FlaskClient) -> None:
    """The default: nobody calls from another page."""
    assert preflight(api, APP_ORIGIN) == {"status": "405"}
