"""What the tokens say: Amazon Cognito's claims, member by member. Pure functions."""

import uuid
from typing import Any

from authlib.oidc.core.util import create_half_hash

from bff.dev_idp.accounts import Account
from bff.dev_idp.keys import ALGORITHM
from bff.dev_idp.refresh_families import Family


def access_token(
    issuer: str, family: Family, account: Account, scope: str, now: int, lifetime: int
) -> dict[str, Any]:
    """The claims of a user's access token. It has no `aud`; `client_id` says whose it is."""
    return {
        "sub": account.sub,
        **_groups(account),
        "iss": issuer,
        "version": 2,
        "client_id": family.client_id,
        "origin_jti": family.id,
        "event_id": family.event_id,
        "token_use": "access",
        "scope": scope,
        "auth_time": family.auth_time,
        "exp": now + lifetime,
        "iat": now,
        "jti": str(uuid.uuid4()),
        "username": account.sub,
    }


def id_token(
    issuer: str,
    family: Family,
    account: Account,
    scope: str,
    now: int,
    lifetime: int,
    *,
    nonce: str,
    access_token: str,
) -> dict[str, Any]:
    """The claims of an ID token; those about the user go by the scope, as OpenID Connect Core
    section 5.4 has it. An empty `nonce` (a refresh, or a request without one) is left out."""
    return {
        # OpenID Connect Core section 3.1.3.6: binds the ID token to the access token beside it.
        "at_hash": create_half_hash(access_token, ALGORITHM).decode(),
        "sub": account.sub,
        **_groups(account),
        **_profile(account, scope),
        "iss": issuer,
        "cognito:username": account.sub,
        **({"nonce": nonce} if nonce else {}),
        "origin_jti": family.id,
        "aud": family.client_id,
        "event_id": family.event_id,
        "token_use": "id",
        "auth_time": family.auth_time,
        "exp": now + lifetime,
        "iat": now,
        "jti": str(uuid.uuid4()),
    }


def client_access_token(issuer: str, client_id: str, scope: str, now: int, lifetime: int) -> dict[str, Any]:
    """The claims of a client's own access token: nobody signed in, so no user, no family."""
    return {
        "sub": client_id,
        "token_use": "access",
        "scope": scope,
        "auth_time": now,
        "iss": issuer,
        "exp": now + lifetime,
        "iat": now,
        "version": 2,
        "jti": str(uuid.uuid4()),
        "client_id": client_id,
    }


def user_info(account: Account, scope: str) -> dict[str, Any]:
    """The answer of the UserInfo endpoint. Like Cognito's, it writes `email_verified` as a
    string, where the ID token has a boolean."""
    profile = _profile(account, scope)
    if "email_verified" in profile:
        profile["email_verified"] = str(profile["email_verified"]).lower()
    return {"sub": account.sub, **profile, "username": account.sub}


def _profile(account: Account, scope: str) -> dict[str, Any]:
    granted = scope.split()
    claims: dict[str, Any] = {}
    if "email" in granted:
        claims |= {"email": account.email, "email_verified": account.confirmed}
    if "profile" in granted:
        claims |= {"name": account.name, "given_name": account.given_name}
    return claims


def _groups(account: Account) -> dict[str, Any]:
    # Cognito leaves the claim out for a user without groups.
    return {"cognito:groups": list(account.groups)} if account.groups else {}
