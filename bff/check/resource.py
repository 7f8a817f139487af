"""The resource API's settings beside the BFF's, where one environment has both: tokens must fit the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bff.check.configuration import Configuration
from bff.check.discovery import is_cognito
from bff.check.finding import Finding, error, ok, plain
from bff.resource_api.settings import Settings as ApiSettings
from bff.resource_api.settings import SettingsError, load, variable_of
from bff.settings import Settings

AREA = "api"


def check_api(environ: Mapping[str, str], configuration: Configuration) -> Iterator[Finding]:
    """Whether the API of `environ` accepts what the provider issues to this client.

    An environment without API_ISSUER has no such API, or not here: then nothing is said.
    """
    settings = configuration.settings
    if not environ.get(variable_of("issuers"), "").strip() or settings is None:
        return
    if not configuration.usable("oidc_issuer", "oidc_client_id", "oidc_scope", "routes"):
        yield ok(AREA, "not looked at: mend the settings first")
        return
    try:
        api = load(environ)
    except SettingsError as refused:
        for problem in refused.problems:
            yield error(AREA, plain(problem), "bff api will not start before that")
        return
    found = [
        *_issuer(settings, api),
        *_clients(settings, api),
        *_audience(settings, api),
        *_scope(settings, api),
    ]
    yield from found or [ok(AREA, "the API's settings beside these (API_*) accept this client's tokens")]


def _issuer(settings: Settings, api: ApiSettings) -> Iterator[Finding]:
    if settings.oidc_issuer not in api.issuers:
        yield error(
            AREA,
            f"API_ISSUER is {', '.join(api.issuers)} and BFF_OIDC_ISSUER {settings.oidc_issuer}: the API "
            "answers 401 to every token",
            "set both to the issuer of this environment, letter by letter",
        )


def _clients(settings: Settings, api: ApiSettings) -> Iterator[Finding]:
    wanted = [settings.oidc_client_id]
    if settings.service_client_id and any(
        route.token in ("client", "user_or_client") for route in settings.routes
    ):
        wanted.append(settings.service_client_id)
    for client_id in wanted:
        if api.client_ids and client_id not in api.client_ids:
            yield error(
                AREA,
                f"API_CLIENT_IDS does not name {client_id}: the API answers 401 to its tokens, as made for "
                "somebody else",
                "add it to API_CLIENT_IDS, or take the ids of one environment for both",
            )


def _audience(settings: Settings, api: ApiSettings) -> Iterator[Finding]:
    """Cognito's access tokens have an audience only where a resource was asked for (RFC 8707)."""
    if api.audience and is_cognito(settings.oidc_issuer) and api.audience not in settings.user_resources:
        yield error(
            AREA,
            f"API_AUDIENCE is {plain(api.audience)}, but Cognito's access tokens carry no aud: the API "
            "answers 401 to every token",
            "unset API_AUDIENCE and set API_CLIENT_IDS, or name the audience as resource of the route",
        )


def _scope(settings: Settings, api: ApiSettings) -> Iterator[Finding]:
    if api.scope not in settings.oidc_scope:
        yield error(
            AREA,
            f"BFF_OIDC_SCOPE lacks {api.scope}, which API_SCOPE demands: the API answers 403 "
            "insufficient_scope",
            "add it to BFF_OIDC_SCOPE, and sign in again",
        )
