"""A whole set-up that is in order, for each test to break."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from bff.check import run
from bff.settings import RedisAddress, parse_redis_url
from tests.support.provider import Reply, ScriptedProvider, Seen, scripted_provider
from tests.support.stack import environment
from tests.support.upstream import ScriptedUpstream, scripted_upstream

PORT = 5003
PUBLIC_URL = f"http://localhost:{PORT}"
REDIRECT_URI = f"{PUBLIC_URL}/bff/callback"


def found(status: int, url: str, **query: str) -> Reply:
    """A redirect."""
    return Reply(status, b"", {"Location": f"{url}?{urlencode(query)}" if query else url})


def silent(seen: Seen) -> Reply:
    """What a provider answers to prompt=none that knows client and redirect URI."""
    asked = {name: values[0] for name, values in parse_qs(seen.query).items()}
    return found(302, asked["redirect_uri"], error="login_required", state=asked["state"])


def signed_out(seen: Seen) -> Reply:
    """What a provider's sign-out address answers to a browser that is not signed in."""
    return found(302, parse_qs(seen.query)["post_logout_redirect_uri"][0])


class Setup:
    """What is configured, and what there is."""

    def __init__(self, provider: ScriptedProvider, upstream: ScriptedUpstream, redis_url: str) -> None:
        self.provider = provider
        self.upstream = upstream
        self.environ = environment(PORT, provider, redis_url, upstream.url)
        self.provider.replies |= {"/authorize": silent, "logout": signed_out}
        self.status = -1

    def set(self, **settings: str | None) -> None:
        """Change settings, named as in `BFF_…` in lower case; None takes one away."""
        for name, value in settings.items():
            self.environ.pop(f"BFF_{name.upper()}", None)
            if value is not None:
                self.environ[f"BFF_{name.upper()}"] = value

    @property
    def address(self) -> RedisAddress:
        return parse_redis_url(self.environ["BFF_REDIS_URL"])

    def report(self, *, strict: bool = False, show_config: bool = False) -> dict[str, Any]:
        """Run it; the JSON document."""
        return json.loads(self.text(as_json=True, strict=strict, show_config=show_config))  # type: ignore[no-any-return]

    def text(self, *, as_json: bool = False, strict: bool = False, show_config: bool = False) -> str:
        """Run it; what it prints."""
        out = io.StringIO()
        self.status = run(self.environ, as_json=as_json, strict=strict, show_config=show_config, out=out)
        return out.getvalue()

    def problems(self) -> list[tuple[str, str, str]]:
        """Level, area and text, the fix included, of everything that is not well."""
        return [
            (each["level"], each["area"], f"{each['what']} / {each['fix']}")
            for each in self.report()["findings"]
            if each["level"] != "ok"
        ]

    def says(self, level: str, area: str, *parts: str) -> bool:
        """Whether there is a finding of this level and area that has all these parts."""
        return any(
            (each["level"], each["area"]) == (level, area)
            and all(part in f"{each['what']} / {each['fix']}" for part in parts)
            for each in self.report()["findings"]
        )


@pytest.fixture
def setup(redis_url: str) -> Iterator[Setup]:
    """All in order, but for what the shared Redis lacks: it keeps nothing."""
    with scripted_provider() as provider, scripted_upstream() as upstream:
        yield Setup(provider, upstream, redis_url)
