"""What some providers do in their own way. A profile holds quirks only; the rest is the standard's."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from bff.provider.metadata import Metadata


class Profile(msgspec.Struct, frozen=True):
    """The quirks of a kind of provider; the defaults are a provider that has none."""

    name: str
    cognito_logout: bool = False
    """`/logout` takes `client_id` and `logout_uri`, and nothing of the standard."""
    ignores_max_age: bool = False
    """So that only `prompt=login` brings about a fresh sign-in."""
    ends_session_by_post: bool = False
    """The refresh token, posted to the end-session endpoint, ends the provider's session, so that the
    browser's visit there asks for no confirmation."""
    revocation_ends_all: bool = False
    """Revoking one refresh token (RFC 7009) ends all that this client holds for the user, everywhere."""
    hint_claims: tuple[str, ...] = ("email", "preferred_username", "sub")
    """The first of these that the ID token has is what `logout_hint` names the user by."""


COGNITO = Profile("cognito", cognito_logout=True, ignores_max_age=True)
GENERIC = Profile("generic")
ENTRA = Profile("entra", hint_claims=("login_hint",))  # it knows nobody by an e-mail address there
KEYCLOAK = Profile("keycloak", ends_session_by_post=True, revocation_ends_all=True)
_COGNITO_HOSTS = ("cognito-idp.", "issuer-cognito-idp.")
"""A pool's issuer, by its `IssuerConfiguration`: ORIGINAL, or UPDATED, which AWS recommends for new pools."""
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu")
PROFILES = {profile.name: profile for profile in (COGNITO, GENERIC, ENTRA, KEYCLOAK)}


def choose(setting: str, issuer: str, metadata: Callable[[], Metadata | None]) -> Profile:
    """The profile of `BFF_OIDC_PROFILE`; with "auto", by the issuer's host, then by discovery."""
    if setting != "auto":
        return PROFILES[setting]
    host = urlsplit(issuer).hostname or ""
    if host.startswith(_COGNITO_HOSTS) and host.endswith(_AWS_DOMAINS):
        return COGNITO
    if host == "login.microsoftonline.com" or host.endswith((".ciamlogin.com", ".microsoftonline.us")):
        return ENTRA
    found = metadata()
    if found is not None and urlsplit(found.token_endpoint).path.endswith("/protocol/openid-connect/token"):
        return KEYCLOAK
    return GENERIC
