"""What the template makes is what the BFF and the resource API need, field by field."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bff.resource_api.settings
import bff.settings
from bff.cognito.stack import SECRETS, setting_name
from bff.sealing import new_key
from bff.settings import Settings
from tests.cognito.account import Built, build, client
from tests.cognito.template import FOLDER, PARAMETERS, PRODUCTION, Evaluation, load

pytestmark = pytest.mark.usefixtures("aws")

ENVIRONMENTS = pytest.mark.parametrize("parameters", [PARAMETERS, PRODUCTION], ids=["dev", "prod"])


def settings(built: Built) -> tuple[Settings, bff.resource_api.settings.Settings]:
    """Both programs' settings, from the stack's outputs, its clients' secrets, and what is not AWS's."""
    environ = {setting_name(name): value for name, value in built.evaluation.outputs().items()}
    for resource, secret in zip(("AppClient", "ServiceClient"), SECRETS.values(), strict=True):
        environ[secret] = built.app_client(resource)["ClientSecret"]
    api = bff.resource_api.settings.load(environ)
    named = {name: value for name, value in environ.items() if name.startswith("BFF_")}
    ours = {
        "BFF_ENV": "production" if environ["BFF_PUBLIC_URL"].startswith("https") else "development",
        "BFF_REDIS_URL": "redis://localhost",
        "BFF_SECRET_KEYS": new_key(),
        "BFF_API_URL": "http://localhost:5001",
    }
    return bff.settings.load({**named, **ours}), api


def test_the_templates_are_clean() -> None:
    """cfn-lint, which knows every resource's schema, has nothing to say: no error and no warning."""
    program = Path(sys.executable).parent / "cfn-lint"
    files = sorted(FOLDER.glob("*.yaml"))
    assert len(files) == 2
    result = subprocess.run([program, *files], capture_output=True, text=True, check=False, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not result.stdout.strip()


@ENVIRONMENTS
def test_the_app_client_is_what_the_bff_asks_for(parameters: dict[str, Any]) -> None:
    """Grant, addresses, scopes and authentication are those that the BFF's own settings lead to."""
    built = build(parameters)
    bff_settings, _ = settings(built)
    app = built.app_client("AppClient")
    assert app["AllowedOAuthFlowsUserPoolClient"] is True
    assert app["AllowedOAuthFlows"] == ["code"]
    assert app["CallbackURLs"] == [bff_settings.redirect_uri]
    assert app["LogoutURLs"] == [f"{bff_settings.public_url}/"]
    assert tuple(app["AllowedOAuthScopes"]) == bff_settings.oidc_scope
    assert app["ClientId"] == bff_settings.oidc_client_id
    assert bff_settings.oidc_client_secret is not None
    assert app["ClientSecret"] == bff_settings.oidc_client_secret.get_secret_value()
    assert app["SupportedIdentityProviders"] == ["COGNITO"]


@ENVIRONMENTS
def test_tokens_are_short_lived_and_refresh_tokens_rotate(parameters: dict[str, Any]) -> None:
    """Minutes for access and ID tokens, days for the refresh token, which rotates with the longest grace."""
    app = build(parameters).app_client("AppClient")
    assert app["TokenValidityUnits"] == {
        "AccessToken": "minutes",
        "IdToken": "minutes",
        "RefreshToken": "days",
    }
    assert app["AccessTokenValidity"] == app["IdTokenValidity"] == parameters["AccessTokenMinutes"]
    assert 5 <= app["AccessTokenValidity"] <= 15
    assert app["RefreshTokenValidity"] == parameters["RefreshTokenDays"]
    assert app["RefreshTokenRotation"] == {"Feature": "ENABLED", "RetryGracePeriodSeconds": 60}
    assert "ALLOW_REFRESH_TOKEN_AUTH" not in app["ExplicitAuthFlows"]
    assert app["ExplicitAuthFlows"], "Cognito's default has it"


def test_nobody_vouches_for_themselves(built: Built) -> None:
    """The BFF learns what its scopes promise; a person writes all of it but the proof of the address, and
    no password goes to Cognito's API in the clear."""
    app = built.app_client("AppClient")
    assert set(app["ReadAttributes"]) == {"email", "email_verified", "name", "given_name", "family_name"}
    assert set(app["WriteAttributes"]) == {"email", "name", "given_name", "family_name"}
    assert app["ExplicitAuthFlows"] == ["ALLOW_USER_SRP_AUTH"]


@pytest.mark.parametrize("name", ["AppClient", "ServiceClient"])
def test_both_clients_hide_who_exists_and_can_revoke(built: Built, name: str) -> None:
    """Existence errors are hidden, revocation is on, and the client has a secret."""
    app = built.app_client(name)
    assert app["PreventUserExistenceErrors"] == "ENABLED"
    assert app["EnableTokenRevocation"] is True
    assert app["ClientSecret"]


@ENVIRONMENTS
def test_the_service_client_has_its_grant_and_the_api_alone(parameters: dict[str, Any]) -> None:
    """client_credentials with the API's scope; no code grant, no page, no flow that signs a user in."""
    built = build(parameters)
    bff_settings, api = settings(built)
    service = built.app_client("ServiceClient")
    assert service["AllowedOAuthFlows"] == ["client_credentials"]
    assert service["AllowedOAuthScopes"] == [api.scope]
    assert service["ExplicitAuthFlows"] == ["ALLOW_REFRESH_TOKEN_AUTH"]
    assert "CallbackURLs" not in service
    assert service["ClientId"] == bff_settings.service_client_id
    assert bff_settings.service_client_secret is not None
    assert service["ClientSecret"] == bff_settings.service_client_secret.get_secret_value()
    assert service["ClientId"] != bff_settings.oidc_client_id


@ENVIRONMENTS
def test_the_api_accepts_the_two_clients_and_the_scope_that_exists(parameters: dict[str, Any]) -> None:
    """API_* are the pool's issuer, its two clients and the one scope of its resource server."""
    built = build(parameters)
    bff_settings, api = settings(built)
    assert api.issuers == (bff_settings.oidc_issuer,) == (built.issuer,)
    assert api.client_ids == {bff_settings.oidc_client_id, bff_settings.service_client_id}
    server = client().describe_resource_server(
        UserPoolId=built.pool_id, Identifier=parameters["ApiIdentifier"]
    )["ResourceServer"]
    scopes = [f"{server['Identifier']}/{scope['ScopeName']}" for scope in server["Scopes"]]
    assert scopes == [api.scope]
    assert api.scope in bff_settings.oidc_scope


def test_people_sign_up_and_in_by_an_address_that_is_verified(built: Built) -> None:
    """E-mail in any case is the user name, everybody may sign up, and a code proves the address."""
    pool = built.pool()
    assert pool["UsernameAttributes"] == ["email"]
    assert pool["UsernameConfiguration"] == {"CaseSensitive": False}
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is False
    assert pool["AutoVerifiedAttributes"] == ["email"]
    assert pool["VerificationMessageTemplate"]["DefaultEmailOption"] == "CONFIRM_WITH_CODE"
    assert pool["UserAttributeUpdateSettings"] == {"AttributesRequireVerificationBeforeUpdate": ["email"]}
    assert pool["AccountRecoverySetting"]["RecoveryMechanisms"] == [{"Name": "verified_email", "Priority": 1}]
    kinds = dict.fromkeys(("RequireLowercase", "RequireUppercase", "RequireNumbers", "RequireSymbols"), True)
    assert pool["Policies"]["PasswordPolicy"] == {
        "MinimumLength": 12,
        "TemporaryPasswordValidityDays": 7,
        **kinds,
    }


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://localhost:5003", True),
        ("https://localhost:5003", True),
        ("https://www.example.com", True),
        ("https://www.example.com/", False),
        ("http://localhost:5003/", False),
        ("https://www.example.com/app", False),
        ("https://WWW.example.com", False),
        ("https://www.example.com,https://evil.example", False),
        ("https://user@www.example.com", False),
        ("http://www.example.com", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1:5003", False),
        ("javascript://www.example.com", False),
        ("", False),
    ],
)
def test_public_urls(url: str, fine: bool) -> None:
    """An origin and nothing else, since codes go to addresses made of it; http on localhost only."""
    pattern = load()["Parameters"]["PublicUrl"]["AllowedPattern"]
    assert (re.search(pattern, url) is not None) is fine


@pytest.mark.parametrize(("parameters", "protection"), [(PARAMETERS, "INACTIVE"), (PRODUCTION, "ACTIVE")])
def test_production_cannot_be_deleted_by_mistake(parameters: dict[str, Any], protection: str) -> None:
    """Environments have pools of their own, by name too; the one with real users is protected."""
    pool = build(parameters).pool()
    assert pool["DeletionProtection"] == protection
    assert pool["Name"] == f"bff-{parameters['Environment']}"
    assert pool["UserPoolTier"] == parameters["FeaturePlan"]


def test_the_groups_are_those_that_the_api_knows(built: Built) -> None:
    """`admins` and `readers`, admins first."""
    groups = client().list_groups(UserPoolId=built.pool_id)["Groups"]
    assert [(group["GroupName"], group["Precedence"]) for group in groups] == [("admins", 1), ("readers", 10)]


@ENVIRONMENTS
def test_the_pool_has_a_domain_with_managed_login(parameters: dict[str, Any]) -> None:
    """The prefix, or a host name of one's own with its certificate; in both cases version 2, with a style."""
    built = build(parameters)
    custom = parameters["CustomDomain"]
    domain = custom or parameters["DomainPrefix"]
    properties = built.evaluation.properties("Domain")
    described = client().describe_user_pool_domain(Domain=domain)["DomainDescription"]
    assert (described["UserPoolId"], described["Domain"]) == (built.pool_id, domain)
    assert properties["ManagedLoginVersion"] == 2
    expected = {"CertificateArn": parameters["CertificateArn"]} if custom else None
    assert properties.get("CustomDomainConfig") == expected
    assert built.evaluation.properties("Branding") == {
        "UserPoolId": built.pool_id,
        "ClientId": built.evaluation.known["AppClient"],
        "UseCognitoProvidedValues": True,
    }


@pytest.mark.parametrize(
    ("custom", "certificate", "fine"),
    [("", "", True), ("a.b", "arn", True), ("a.b", "", False), ("", "arn", False)],
)
def test_domain_and_certificate_go_together(custom: str, certificate: str, fine: bool) -> None:
    """The stack is refused before anything is made where only one of the two is given."""
    evaluation = Evaluation({**PARAMETERS, "CustomDomain": custom, "CertificateArn": certificate}, {})
    (rule,) = evaluation.template["Rules"].values()
    assert evaluation._value(rule["Assertions"][0]["Assert"]) is fine


def test_every_output_is_a_setting_of_ours() -> None:
    """Outputs that begin with Bff or Api are settings that exist, and described by their names."""
    known = {f"BFF_{name.upper()}" for name in Settings.model_fields}
    known |= {
        bff.resource_api.settings.variable_of(name)
        for name in bff.resource_api.settings.Settings.model_fields
    }
    outputs = load()["Outputs"]
    ours = {name for name in outputs if name.startswith(("Bff", "Api"))}
    assert len(ours) == 8
    for name in ours:
        assert setting_name(name) in known, name
        assert outputs[name]["Description"] == setting_name(name)
    assert set(outputs) - ours == {"UserPoolId", "SignInDomain"}
