"""Set-ups that are broken at the provider, each with the finding that names it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from benchmarks.proxy.programs import free_port
from bff.check.client import reason_word
from bff.check.discovery import check_issuer
from bff.check.finding import Finding
from bff.errors import ClientRefused
from tests.check.conftest import PUBLIC_URL, REDIRECT_URI, Setup, found
from tests.support.provider import ABSENT, CLIENT_ID, HTML, Reply, Seen, ec_key, scripted_provider

Break = Callable[[Setup], object]


def reply(endpoint: str, answer: Reply | Callable[[Seen], Reply]) -> Break:
    return lambda setup: setup.provider.replies.update({endpoint: answer})


def discovery(**changes: object) -> Break:
    return lambda setup: setup.provider.discovery.update(changes)


def settings(**changes: str) -> Break:
    return lambda setup: setup.set(**changes)


def page(status: int, body: bytes = b"<p>hello") -> Reply:
    return Reply(status, body, {"Content-Type": "text/html"})


def error_page(error: str) -> Reply:
    """As Amazon Cognito answers an authorization request that it does not like."""
    return found(302, "/error", error=error, client_id=CLIENT_ID)


def returned(**parameters: str) -> Reply:
    return found(302, REDIRECT_URI, **parameters)


def cognito(shown: Reply) -> Break:
    """Amazon Cognito, which answers prompt=none without its pages; `shown` is what its sign-in page is."""

    def change(setup: Setup) -> None:
        setup.set(oidc_profile="cognito")
        setup.provider.replies |= {
            "/authorize": lambda seen: (
                returned(error="login_required") if "prompt=none" in seen.query else found(302, "/login")
            ),
            "/login": shown,
            "logout": found(302, PUBLIC_URL + "/"),
        }

    return change


KEYLESS = {"keys": [{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}, {"kty": "oct", "k": "AAAA"}]}

PROBLEMS: list[tuple[str, Break, str, str, tuple[str, ...]]] = [
    # discovery
    ("down", settings(oidc_issuer=f"http://127.0.0.1:{free_port()}"), "error", "discovery", ("refused",)),
    ("no such host", settings(oidc_issuer="http://nowhere.invalid"), "error", "discovery", ("resolved",)),
    ("404", reply("discovery", Reply(404)), "error", "discovery", ("404", "realm, tenant or pool")),
    (
        "redirect",
        reply("discovery", found(301, "http://x/")),
        "error",
        "discovery",
        ("redirects to http://x/",),
    ),
    ("html", reply("discovery", HTML), "error", "discovery", ("JSON object",)),
    ("array", reply("discovery", Reply(body=b"[]")), "error", "discovery", ("JSON object",)),
    ("deep", reply("discovery", Reply(body=b"[" * 100_000)), "error", "discovery", ("JSON object",)),
    ("no token endpoint", discovery(token_endpoint=ABSENT), "error", "discovery", ("token_endpoint",)),
    ("typed wrongly", discovery(jwks_uri=7), "error", "discovery", ("jwks_uri",)),
    ("dripping", reply("discovery", Reply(head_drip=0.1)), "error", "discovery", ("too long",)),
    ("huge", reply("discovery", Reply(body=b"x" * 1_100_000)), "error", "discovery", ("1 MiB",)),
    (
        "ftp",
        discovery(revocation_endpoint="ftp://x/"),
        "error",
        "discovery",
        ("revocation_endpoint", "https"),
    ),
    (
        "no address",
        discovery(end_session_endpoint="http://127.0.0.1:9;x/a"),
        "error",
        "discovery",
        ("end_session_endpoint", "no address"),
    ),
    ("no S256", discovery(code_challenge_methods_supported=["plain"]), "error", "discovery", ("S256",)),
    ("no code", discovery(response_types_supported=["token"]), "error", "discovery", ("code grant",)),
    (
        "other auth",
        discovery(token_endpoint_auth_methods_supported=["private_key_jwt"]),
        "warning",
        "discovery",
        ("BFF_OIDC_CLIENT_AUTH=client_secret_basic", "private_key_jwt"),
    ),
    (
        "no form_post",
        lambda setup: (
            setup.environ.update(BFF_OIDC_RESPONSE_MODE="form_post"),
            setup.provider.discovery.update(response_modes_supported=["query"]),
        ),
        "warning",
        "discovery",
        ("form_post",),
    ),
    ("logout hangs", reply("logout", Reply(head_drip=0.1)), "warning", "sign-out", ("no answer of use",)),
    ("logout fails", reply("logout", Reply(500)), "warning", "sign-out", ("status 500",)),
    ("no logout there", reply("logout", Reply(404)), "error", "sign-out", ("404", "end_session_endpoint")),
    (
        "logout comes back with an error",
        reply("logout", found(302, PUBLIC_URL + "/", error="invalid_request")),
        "warning",
        "sign-out",
        ("with an error (invalid_request)",),
    ),
    ("no logout", discovery(end_session_endpoint=ABSENT), "warning", "discovery", ("end_session_endpoint",)),
    # issuer
    (
        "slash",
        discovery(issuer="http://127.0.0.1/"),
        "error",
        "discovery",
        ("another environment", "127.0.0.1/"),
    ),
    ("no issuer", discovery(issuer=ABSENT), "error", "discovery", ("names none",)),
    # keys
    ("no keys", reply("jwks", Reply(body={"keys": []})), "error", "keys", ("none of the 0",)),
    (
        "short RSA key",
        reply("jwks", Reply(body={"keys": [{"kty": "RSA", "n": "z" * 170, "e": "AQAB"}]})),
        "error",
        "keys",
        ("none of the 1", "2048"),
    ),
    ("other keys", reply("jwks", Reply(body=KEYLESS)), "error", "keys", ("none of the 2", "use=sig")),
    ("keys down", reply("jwks", Reply(500)), "error", "keys", ("could not be read",)),
    ("keys dropped", reply("jwks", Reply(drop=True)), "error", "keys", ("connection failed",)),
    (
        "HS256",
        discovery(id_token_signing_alg_values_supported=["HS256", "none"]),
        "error",
        "keys",
        ("no algorithm", "RS256"),
    ),
    # client
    (
        "wrong secret",
        settings(oidc_client_secret="wrong-one"),
        "error",
        "client",
        ("invalid_client", "compare"),
    ),
    ("wrong id", settings(oidc_client_id="other"), "error", "client", ("invalid_client", "client other")),
    (
        "unauthorized",
        reply("token", Reply(400, {"error": "unauthorized_client"})),
        "error",
        "client",
        ("unauthorized_client", "Keycloak", "OAuth grant types"),
    ),
    (
        "no grant",
        reply("token", Reply(400, {"error": "unsupported_grant_type"})),
        "error",
        "client",
        ("authorization code grant",),
    ),
    (
        "odd answer",
        reply("token", Reply(400, {"error": "invalid_request"})),
        "warning",
        "client",
        ("could not tell", "invalid_request"),
    ),
    ("token html", reply("token", HTML), "error", "client", ("no answer of use", "/token")),
    ("token 500", reply("token", Reply(500)), "error", "client", ("no answer of use",)),
    ("token drop", reply("token", Reply(drop=True)), "error", "client", ("no answer of use",)),
    (
        "token for nothing",
        reply("token", Reply(body={"access_token": "granted-to-nobody", "token_type": "Bearer"})),
        "error",
        "client",
        ("granted a code that is none",),
    ),
    # redirect URI
    ("mismatch", reply("/authorize", error_page("redirect_mismatch")), "error", "redirect", (REDIRECT_URI,)),
    (
        "400",
        reply("/authorize", page(400)),
        "error",
        "redirect",
        ("page of its own", REDIRECT_URI, CLIENT_ID),
    ),
    ("json 400", reply("/authorize", Reply(400, {"error": "invalid_redirect_uri"})), "error", "redirect", ()),
    ("entra", reply("/authorize", page(200, b"<p>AADSTS50011: no")), "error", "redirect", (REDIRECT_URI,)),
    (
        "google",
        reply("/authorize", found(302, "/signin/oauth/error?x=y")),
        "error",
        "redirect",
        (REDIRECT_URI,),
    ),
    (
        "cognito else",
        reply("/authorize", error_page("invalid_request")),
        "error",
        "redirect",
        (REDIRECT_URI,),
    ),
    (
        "cognito no client",
        reply("/authorize", error_page("Client does not exist.")),
        "error",
        "client",
        ("BFF_OIDC_CLIENT_ID",),
    ),
    (
        "returned unauthorized",
        reply("/authorize", returned(error="unauthorized_client")),
        "error",
        "client",
        ("code grant",),
    ),
    (
        "returned else",
        reply("/authorize", returned(error="server_error")),
        "warning",
        "redirect",
        ("server_error",),
    ),
    (
        "authorize 500",
        reply("/authorize", Reply(500)),
        "warning",
        "redirect",
        ("could not tell", "status 500"),
    ),
    ("loop", reply("/authorize", found(302, "/authorize")), "warning", "redirect", ("could not tell",)),
    ("no host", reply("/authorize", found(302, "http://[::1")), "warning", "redirect", ("could not tell",)),
    (
        "cognito without a style",
        cognito(page(200, b"<p>Login pages unavailable. Please contact an administrator.")),
        "error",
        "redirect",
        ("no sign-in page (Login pages unavailable)", "ManagedLoginBranding"),
    ),
    ("cognito 403", cognito(page(403)), "error", "redirect", ("no sign-in page (status 403)",)),
    # scopes
    ("scope", reply("/authorize", returned(error="invalid_scope")), "error", "scope", ("BFF_OIDC_SCOPE",)),
    (
        "cognito scope",
        reply("/authorize", returned(error="invalid_request", error_description="invalid_scope")),
        "error",
        "scope",
        ("openid email profile",),
    ),
    ("cognito scope page", reply("/authorize", error_page("invalid_scope")), "error", "scope", ()),
    ("unlisted", discovery(scopes_supported=["openid", "email"]), "warning", "scope", ("list profile",)),
    # sign-out
    ("sign-out", reply("logout", error_page("redirect_mismatch")), "error", "sign-out", (f"{PUBLIC_URL}/",)),
    ("sign-out 400", reply("logout", page(400)), "error", "sign-out", (f"{PUBLIC_URL}/",)),
]


@pytest.mark.parametrize(
    ("broken", "level", "area", "parts"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS]
)
def test_what_is_wrong_is_named(
    setup: Setup, broken: Break, level: str, area: str, parts: tuple[str, ...]
) -> None:
    """Each break is found in its area, with what to do about it, and never by a crash of the check."""
    broken(setup)
    assert setup.says(level, area, *parts)
    assert not setup.says("error", area, "check itself failed")
    assert setup.status == (1 if level == "error" else 0)


FINE: list[tuple[str, Break, str, tuple[str, ...]]] = [
    ("page", reply("/authorize", page(200)), "redirect", ("could not tell",)),
    (
        "own page",
        lambda setup: setup.provider.replies.update(
            {"/authorize": found(302, "/login"), "/login": page(200)}
        ),
        "redirect",
        ("its sign-in page",),
    ),
    ("cognito", cognito(page(200)), "redirect", ("redirects to",)),
    ("cognito is slow", cognito(page(500)), "redirect", ("redirects to",)),
    ("federated", reply("/authorize", found(302, "http://idp.invalid/sso")), "redirect", ("elsewhere",)),
    ("no date", reply("/x", Reply()), "clock", ("agree",)),
    (
        "prompt unknown",
        reply(
            "/authorize",
            lambda seen: (
                returned(error="invalid_request")
                if "prompt=none" in seen.query
                else returned(error="login_required")
            ),
        ),
        "redirect",
        ("redirects to",),
    ),
    ("asks before", reply("logout", page(200)), "sign-out", ("could not tell",)),
    ("EC keys", lambda setup: setup.provider.keys.insert(0, ec_key("ec-1")), "keys", ("2 of 2",)),
    ("S256", discovery(code_challenge_methods_supported=["S256", "plain"]), "discovery", ("issuer is",)),
    (
        "API scope",
        lambda setup: (
            setup.environ.update(BFF_OIDC_SCOPE="openid api://weather/access"),
            setup.provider.discovery.update(scopes_supported=["openid"]),
        ),
        "scope",
        ("api://weather/access", "accepted"),
    ),
    (
        "pushed",
        lambda setup: (
            setup.provider.discovery.update(
                pushed_authorization_request_endpoint=setup.provider.base + "/par"
            ),
            setup.provider.replies.update({"/authorize": returned(error="login_required")}),
        ),
        "redirect",
        ("redirects to",),
    ),
    ("form_post", settings(oidc_response_mode="form_post"), "redirect", ("redirects to",)),
]


@pytest.mark.parametrize(("change", "area", "parts"), [f[1:] for f in FINE], ids=[f[0] for f in FINE])
def test_what_is_right_is_no_problem(setup: Setup, change: Break, area: str, parts: tuple[str, ...]) -> None:
    """What providers may do gets no warning."""
    change(setup)
    assert setup.says("ok", area, *parts)
    assert [each for each in setup.problems() if each[1] != "redis"] == []


@pytest.mark.parametrize(
    ("error", "area"),
    [("invalid_redirect_uri", "redirect"), ("invalid_scope", "scope"), ("invalid_client", "client")],
)
def test_a_pushed_request_that_is_refused(setup: Setup, error: str, area: str) -> None:
    """Where requests are pushed, the refusal comes from that endpoint (RFC 9126 §2.3)."""
    setup.provider.discovery["pushed_authorization_request_endpoint"] = setup.provider.base + "/par"
    setup.provider.replies["/par"] = setup.provider.replies["par"] = Reply(400, {"error": error})
    assert setup.says("error", area, error if area != "scope" else "BFF_OIDC_SCOPE")


ISSUERS = [
    ("https://a/pool", "https://a/pool", True, None),
    ("https://a/pool", "https://a/pool/", True, "slash at the end"),
    ("https://a/pool/", "https://a/pool", True, "slash at the end"),
    ("https://a/one", "https://a/two", False, "another pool, realm or tenant"),
    ("https://a/pool", "https://b/pool", False, "another environment"),
    ("https://a/pool", "", False, "another environment"),
    ("https://a/pool", "https://a/\x1b[2J", False, "another pool"),
]


@pytest.mark.parametrize(("ours", "theirs", "trusted", "cause"), ISSUERS)
def test_issuers_are_compared_letter_by_letter(
    ours: str, theirs: str, trusted: bool, cause: str | None
) -> None:
    """Both are named, with the cause; only a slash at the end leaves the rest worth asking."""
    judged = []

    def judge() -> Iterator[Finding]:
        judged.append((yield from check_issuer(ours, theirs)))

    [finding] = judge()
    assert judged == [trusted]
    assert (finding.level == "ok") is (cause is None)
    if cause is not None:
        assert ours in finding.what
        assert cause in finding.what
        assert finding.what.isprintable()


def test_a_slash_too_few_hides_nothing(setup: Setup) -> None:
    """The client is still asked about, so that all problems are told at once."""
    setup.provider.discovery["issuer"] = setup.provider.issuer + "/"
    setup.set(oidc_client_secret="wrong-one")
    assert setup.says("error", "discovery", "slash at the end", f"BFF_OIDC_ISSUER={setup.provider.issuer}/")
    assert setup.says("error", "client", "invalid_client")


@pytest.mark.parametrize("changes", [{"issuer": "http://other.invalid"}, {"token_endpoint": "ftp://x/token"}])
def test_the_secret_goes_to_nobody_who_may_be_another(setup: Setup, changes: dict[str, str]) -> None:
    """After a mismatch of issuers or an address that is not safe, no credentials are sent."""
    setup.provider.discovery |= changes
    assert setup.says("ok", "provider", "not looked at")
    assert setup.provider.count("token") == 0


@pytest.mark.parametrize(
    ("ahead", "level"),
    [(0, "ok"), (3, "ok"), (-30, "warning"), (20, "warning"), (90, "error"), (-4000, "error")],
)
def test_clocks(setup: Setup, monkeypatch: pytest.MonkeyPatch, ahead: float, level: str) -> None:
    """From 5 s on a warning, from 60 s on an error, whichever clock is ahead."""
    monkeypatch.setattr(
        "tests.support.provider._Handler.date_time_string",
        lambda _handler, _timestamp=None: formatdate(time.time() + ahead, usegmt=True),
    )
    direction = "behind" if ahead > 0 else "ahead"
    assert setup.says(level, "clock", *(() if level == "ok" else (direction, "keep time")))


def test_no_date(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date that cannot be read is nobody's fault."""
    monkeypatch.setattr(
        "tests.support.provider._Handler.date_time_string", lambda _handler, _timestamp=None: "soon"
    )
    assert setup.says("ok", "clock", "could not tell")


def test_nobody_is_visited_but_the_provider(setup: Setup) -> None:
    """Redirects are read and not followed to another site."""
    with scripted_provider() as other:
        setup.provider.replies["/authorize"] = found(302, f"{other.base}/somewhere")
        setup.report()
        assert other.seen == []


def test_service_client(setup: Setup, tmp_path: Path) -> None:
    """Routes with the client's own token have it fetched once for each scope; a refusal is explained."""
    file = tmp_path / "bff.toml"
    file.write_text(
        "".join(
            f'[[routes]]\npath = "/{name}"\nupstream = "{setup.upstream.url}"\ntoken = "client"\n'
            'scope = "read"\n'
            for name in "ab"
        )
    )
    setup.set(config=str(file), service_client_id="service", service_client_secret="service-secret")
    setup.provider.service_client = ("service", "service-secret")
    assert setup.says("ok", "service", "for read")
    assert sum(seen.form.get("grant_type") == "client_credentials" for seen in setup.provider.seen) == 1
    setup.provider.service_client = None
    assert setup.says("error", "service", "invalid_client", "BFF_SERVICE_CLIENT_ID")


def test_the_code_that_is_sent_is_new_each_time(setup: Setup) -> None:
    """Nobody can have prepared an answer to it, and it is no code of anybody's."""
    setup.report()
    setup.report()
    codes = [seen.form["code"] for seen in setup.provider.seen if seen.endpoint == "token"]
    assert len(set(codes)) == 2


def test_reason_word() -> None:
    """The word at the end of a reason is the provider's own."""
    assert reason_word(ClientRefused(reason="token endpoint: invalid_client")) == "invalid_client"
