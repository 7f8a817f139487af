"""Redirect URI, scopes and sign-out URI, as the provider sees them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from bff.check.client import Probe, reason_word
from bff.check.finding import Finding, error, ok, plain, warning
from bff.check.walk import End, Outcome, walk
from bff.errors import PublicError, SignInFailed
from bff.provider.profiles import COGNITO
from bff.settings import Settings

AREA = "redirect"
SCOPE = "scope"
_AS_ASKED = ("", "login_required", "interaction_required", "consent_required", "account_selection_required")
"""What a provider says to `prompt=none` when nobody is signed in and all else is well (OpenID Connect Core
§3.1.2.6)."""
_REGISTER = "register exactly {} as a callback (redirect) URI of this client, letter by letter"
_STANDARD = frozenset(("openid", "profile", "email", "phone", "address", "offline_access"))


def check_redirect_uri(probe: Probe) -> Generator[Finding, None, bool]:
    """Ask for a sign-in as a browser would; returns whether the provider took the request, scopes and all."""
    outcome = _ask(probe, {"prompt": "none"})
    if not _decisive(outcome):  # a provider that does not know prompt=none
        outcome = _ask(probe, {})
    accepted = outcome.end in (End.ELSEWHERE, End.PAGE) or (
        outcome.end is End.RETURNED and outcome.error in _AS_ASKED
    )
    yield from _JUDGES[outcome.end](outcome, probe.settings)
    if outcome.end is End.RETURNED and accepted and probe.provider.profile is COGNITO:
        yield from _check_pages(probe)
    return accepted and not (outcome.end is End.PAGE and outcome.steps == 0)


def _ask(probe: Probe, parameters: dict[str, str]) -> Outcome:
    try:
        url, _ = probe.begin(parameters)
    except SignInFailed as refused:  # the provider did not take the pushed request (RFC 9126 §2.3)
        return Outcome(End.REFUSED, plain(reason_word(refused), 60))
    except PublicError as failed:
        return Outcome(End.FAILED, plain(reason_word(failed), 60))
    return walk(url, probe.settings.redirect_uri, probe.settings.oidc_ca_file)


def _check_pages(probe: Probe) -> Iterator[Finding]:
    """Cognito answers prompt=none without its pages, so that this says nothing about them: a client without a
    style for managed login has none, and nobody can sign in."""
    outcome = _ask(probe, {})
    if outcome.end is End.REFUSED:
        yield error(
            AREA,
            f"the provider takes the request and shows no sign-in page ({outcome.error})",
            "give this client a style for managed login (Cognito: app client, Login pages, or the resource "
            "AWS::Cognito::ManagedLoginBranding), or the pool's domain the hosted UI (classic)",
        )


def _decisive(outcome: Outcome) -> bool:
    text = f"{outcome.error} {outcome.description}"
    known = outcome.error in _AS_ASKED or any(word in text for word in ("redirect", "scope", "client"))
    return known or outcome.end is End.FAILED


def _returned(outcome: Outcome, settings: Settings) -> Iterator[Finding]:
    yield ok(AREA, f"the provider redirects to {settings.redirect_uri}")
    if outcome.error in _AS_ASKED:
        return
    if "scope" in f"{outcome.error} {outcome.description}":
        yield _scope_refused(settings)
    elif outcome.error == "unauthorized_client":
        yield _not_allowed(settings)
    else:
        yield warning(
            AREA,
            f"the provider answers {outcome.error} to the authorization request",
            "try a sign-in, and look at the provider's log",
        )


def _refused(outcome: Outcome, settings: Settings) -> Iterator[Finding]:
    text = f"{outcome.error} {outcome.description}".lower()
    if "redirect" in text or "aadsts50011" in text:
        yield error(
            AREA,
            f"the provider does not know our redirect URI ({outcome.error})",
            _REGISTER.format(settings.redirect_uri),
        )
    elif "scope" in text:
        yield _scope_refused(settings)
    elif "unauthorized_client" in text:
        yield _not_allowed(settings)
    elif "client" in text or "aadsts700016" in text:
        yield error(
            "client",
            f"the provider does not know client {settings.oidc_client_id} ({outcome.error})",
            "compare BFF_OIDC_CLIENT_ID with the client of this very environment",
        )
    else:
        yield error(
            AREA,
            f"the provider refuses the authorization request with a page of its own ({outcome.error})",
            f"mostly the redirect URI: {_REGISTER.format(settings.redirect_uri)}; else the client id "
            f"({settings.oidc_client_id}), its grant types or its scopes",
        )


def _page(outcome: Outcome, settings: Settings) -> Iterator[Finding]:
    if outcome.steps:
        yield ok(AREA, f"the provider takes {settings.redirect_uri} and goes on to its sign-in page")
    else:
        yield ok(
            AREA,
            f"could not tell whether {settings.redirect_uri} is registered: the provider shows a page",
        )


def _elsewhere(_outcome: Outcome, settings: Settings) -> Iterator[Finding]:
    yield ok(AREA, f"the provider takes {settings.redirect_uri} and goes on to sign in elsewhere")


def _failed(outcome: Outcome, settings: Settings) -> Iterator[Finding]:
    yield warning(
        AREA,
        f"could not tell whether {settings.redirect_uri} is registered: the authorization endpoint gave no "
        f"answer of use{f' ({outcome.error})' if outcome.error else ''}",
        "open /bff/login in a browser; if this machine may not reach that endpoint, nothing needs mending",
    )


_JUDGES = {
    End.RETURNED: _returned,
    End.REFUSED: _refused,
    End.PAGE: _page,
    End.ELSEWHERE: _elsewhere,
    End.FAILED: _failed,
}


def _scope_refused(settings: Settings) -> Finding:
    return error(
        SCOPE,
        f"the provider refuses the scopes {' '.join(settings.oidc_scope)}",
        "allow each of them for this client (Cognito: app client, Login pages, custom scopes: the resource "
        "server's identifier, a slash, the scope's name), or take it out of BFF_OIDC_SCOPE",
    )


def _not_allowed(settings: Settings) -> Finding:
    return error(
        "client",
        f"client {settings.oidc_client_id} may not use the code grant (unauthorized_client)",
        "allow the authorization code grant for it (Cognito: app client, Login pages, OAuth grant types)",
    )


def check_scopes(settings: Settings, document: dict[str, Any], *, accepted: bool) -> Iterator[Finding]:
    """Compare with what is published; an API's scopes seldom are, so that `accepted` ones count."""
    offered = document.get("scopes_supported")
    if not isinstance(offered, list):
        yield ok(SCOPE, "the provider does not publish its scopes")
        return
    lacking = [scope for scope in settings.oidc_scope if scope not in offered]
    unlisted = [scope for scope in lacking if accepted and scope not in _STANDARD]
    missing = [scope for scope in lacking if scope not in unlisted]
    if missing:
        yield warning(
            SCOPE,
            f"the provider does not list {' '.join(missing)}",
            "check the spelling in BFF_OIDC_SCOPE, and that the scope is allowed for this client",
        )
    elif unlisted:
        yield ok(SCOPE, f"{' '.join(unlisted)} not listed, as is usual for an API's scopes, but accepted")
    else:
        yield ok(SCOPE, f"the provider offers {' '.join(settings.oidc_scope)}")


def check_sign_out(probe: Probe) -> Iterator[Finding]:
    """Go to the sign-out address as a browser that is not signed in would."""
    area, back = "sign-out", probe.settings.public_url + "/"
    url = probe.provider.sign_out_url(None)
    if url == "/":
        return
    outcome = walk(url, back, probe.settings.oidc_ca_file)
    if outcome.end is End.RETURNED and not outcome.error:
        yield ok(area, f"the provider comes back to {back}")
    elif outcome.end is End.RETURNED:
        yield warning(
            area,
            f"the provider comes back to {back} with an error ({outcome.error})",
            "sign out once, and look at the provider's log",
        )
    elif outcome.end is End.FAILED:
        yield warning(
            area,
            f"the sign-out address gave no answer of use{f' ({outcome.error})' if outcome.error else ''}",
            "sign out in a browser; if this machine may not reach that address, nothing needs mending",
        )
    elif outcome.error == "status 404":
        yield error(
            area,
            "the provider has nothing at its sign-out address (404)",
            "compare end_session_endpoint in the discovery document with the provider's documentation",
        )
    elif outcome.end is End.REFUSED:
        yield error(
            area,
            f"the provider refuses the sign-out address ({outcome.error})",
            f"register exactly {back} as a sign-out (post-logout redirect) URI of this client",
        )
    else:
        yield ok(area, f"could not tell whether the provider comes back to {back}: it asks the person first")
