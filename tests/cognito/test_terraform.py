"""The Terraform module makes what the template makes, member by member, so that the two cannot drift."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cognito import terraform
from tests.cognito.template import PARAMETERS, PRODUCTION, Evaluation

ENVIRONMENTS = pytest.mark.parametrize("parameters", [PARAMETERS, PRODUCTION], ids=["dev", "prod"])
TYPES = {
    "AWS::Cognito::UserPool": "aws_cognito_user_pool",
    "AWS::Cognito::UserPoolDomain": "aws_cognito_user_pool_domain",
    "AWS::Cognito::UserPoolResourceServer": "aws_cognito_resource_server",
    "AWS::Cognito::UserPoolGroup": "aws_cognito_user_group",
    "AWS::Cognito::UserPoolClient": "aws_cognito_user_pool_client",
    "AWS::Cognito::ManagedLoginBranding": "aws_cognito_managed_login_branding",
}
RENAMED = {
    "user_pool_name": "name",
    "client_name": "name",
    "group_name": "name",
    "scopes": "scope",
    "recovery_mechanisms": "recovery_mechanism",
}
"""Where Terraform has a name of its own."""

LIFTED = ("policies", "custom_domain_config")
"""Members that Terraform writes one level higher."""


def snake(name: str) -> str:
    """`CallbackURLs` to `callback_urls`, `AllowedOAuthFlows` to `allowed_oauth_flows`."""
    name = name.replace("OAuth", "Oauth").replace("URLs", "Urls").replace("URI", "Uri").replace("URL", "Url")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def as_terraform(node: Any) -> Any:
    """Properties of CloudFormation under Terraform's names; a list of one object is one block."""
    if isinstance(node, list) and node and all(isinstance(each, dict) for each in node):
        (block,) = node
        return as_terraform(block)
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = RENAMED.get(snake(key), snake(key))
        found |= as_terraform(value) if name in LIFTED else {name: as_terraform(value)}
    return found


def evaluations(parameters: dict[str, Any]) -> tuple[Evaluation, terraform.Evaluation]:
    """Both with the same parameters, and with names in place of what AWS would make."""
    template = Evaluation(parameters, {})
    known = {}
    for name, resource in template.template["Resources"].items():
        template.known[name] = f"<{name}>"
        known[f"{TYPES[resource['Type']]}.{snake(name)}.id"] = f"<{name}>"
    template.known["UserPool.ProviderURL"] = "https://<pool's endpoint>"
    known["aws_cognito_user_pool.user_pool.endpoint"] = "<pool's endpoint>"
    known["aws_cognito_user_pool_domain.domain.domain"] = "<Domain>"
    for client in ("app_client", "service_client"):
        known[f"aws_cognito_user_pool_client.{client}.client_secret"] = f"<secret of {client}>"
    return template, terraform.Evaluation({snake(k): v for k, v in parameters.items()}, known)


def test_the_same_resources() -> None:
    """One for one: none is missing on either side, and each has the type that belongs to it."""
    template, module = evaluations(PARAMETERS)
    wanted = {snake(name): TYPES[each["Type"]] for name, each in template.template["Resources"].items()}
    assert {name: kind for name, (kind, _) in module.resources.items()} == wanted


@ENVIRONMENTS
@pytest.mark.parametrize("name", list(Evaluation(PARAMETERS, {}).template["Resources"]))
def test_the_same_members(name: str, parameters: dict[str, Any]) -> None:
    """Every property is an argument with the same value, and the other way round, in both environments."""
    template, module = evaluations(parameters)
    assert module.arguments(snake(name)) == as_terraform(template.properties(name))


@ENVIRONMENTS
def test_the_same_outputs(parameters: dict[str, Any]) -> None:
    """Named as the settings are. Terraform has the secrets, too: they lie in its state anyway."""
    template, module = evaluations(parameters)
    outputs = module.outputs()
    secrets = {name for name, body in module.output_blocks.items() if body.get("sensitive") is True}
    assert secrets == {"BFF_OIDC_CLIENT_SECRET", "BFF_SERVICE_CLIENT_SECRET"}
    assert {name for name in outputs if "SECRET" in name} == secrets
    wanted = {snake(name).upper(): value for name, value in template.outputs().items()}
    assert {name: value for name, value in outputs.items() if name not in secrets} == wanted
    assert outputs["BFF_OIDC_CLIENT_SECRET"] == "<secret of app_client>"
    assert outputs["BFF_SERVICE_CLIENT_SECRET"] == "<secret of service_client>"


def test_the_same_parameters() -> None:
    """Defaults and bounds of a parameter are those of the variable."""
    template, module = evaluations(PARAMETERS)
    for name, parameter in template.template["Parameters"].items():
        variable = module.variables[snake(name)]
        default = module.value(variable["default"]) if "default" in variable else None
        assert default == parameter.get("Default"), name
        assert variable["type"] == {"String": "string", "Number": "number"}[parameter["Type"]]
        condition = variable["validation"][0]["condition"] if "validation" in variable else ""
        for word in parameter.get("AllowedValues", ()):
            assert f'"{word}"' in condition, name
        if "AllowedPattern" in parameter:
            assert f'regex("{parameter["AllowedPattern"]}"' in condition, name
        if "MinValue" in parameter:
            assert f">= {parameter['MinValue']} &&" in condition
            assert condition.rstrip("}").endswith(f"<= {parameter['MaxValue']}")
        assert bool(condition) == bool({"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter)), name


def test_the_same_descriptions() -> None:
    """A reader of either learns the same."""
    template, module = evaluations(PARAMETERS)
    pairs = [
        (template.template["Parameters"], module.variables, snake),
        (template.template["Outputs"], module.output_blocks, lambda name: snake(name).upper()),
    ]
    for ours, theirs, rename in pairs:
        for name, each in ours.items():
            told = module.value(theirs[rename(name)]["description"])
            plain = each["Description"].replace("CustomDomain", "custom_domain").strip()
            first = "One stack, and so", "One state, and so"
            assert told == plain.replace(*first), name


def test_what_waits_for_what() -> None:
    """Scopes exist before the clients that name them, the domain before the style of its pages."""
    template, module = evaluations(PARAMETERS)
    for name, resource in template.template["Resources"].items():
        _, body = module.resources[snake(name)]
        waits = [each.strip("${}").split(".")[1] for each in body.get("depends_on", ())]
        assert waits == ([snake(resource["DependsOn"])] if "DependsOn" in resource else []), name


def test_domain_and_certificate_go_together() -> None:
    """The template's rule is the module's precondition, the one thing that resources are not compared in."""
    _, module = evaluations(PARAMETERS)
    kept = {name: body["lifecycle"] for name, (_, body) in module.resources.items() if "lifecycle" in body}
    ((precondition,),) = [[each["precondition"] for each in blocks] for blocks in kept.values()]
    assert list(kept) == ["domain"]
    ((rule,),) = [each["Assertions"] for each in evaluations(PARAMETERS)[0].template["Rules"].values()]
    assert precondition[0]["condition"] == '${(var.custom_domain == "") == (var.certificate_arn == "")}'
    told = module.value(precondition[0]["error_message"]).rstrip(".")
    assert told == "custom_domain and certificate_arn go together"
    assert rule["AssertDescription"] == "CustomDomain and CertificateArn go together"


def test_the_provider_is_one_that_knows_all_of_this() -> None:
    """Managed login branding and refresh token rotation came with version 6 of the provider."""
    (settings,) = terraform.load()["terraform"]
    (needed,) = settings["required_providers"]
    assert needed["aws"]["version"].strip('"').startswith(">= 6.")
