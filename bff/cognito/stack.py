"""A stack of deploy/cognito/template.yaml, read as settings of the BFF and of the resource API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bff.cognito.aws import Account, AwsRefused, in_sentences

PREFIXES = ("BFF_", "API_")
SECRETS = {
    "BFF_OIDC_CLIENT_ID": "BFF_OIDC_CLIENT_SECRET",
    "BFF_SERVICE_CLIENT_ID": "BFF_SERVICE_CLIENT_SECRET",
}
"""The setting that names a client, and the one that holds its secret."""

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True)
class Stack:
    """The settings among a stack's outputs, in the stack's order, and its user pool."""

    settings: dict[str, str]
    user_pool_id: str


def setting_name(output: str) -> str:
    """`BffOidcIssuer` to `BFF_OIDC_ISSUER`: the names of outputs can have letters and digits only."""
    return _WORD.sub("_", output).upper()


def read_stack(account: Account, name: str) -> Stack:
    """Ask CloudFormation for the stack of this name or ARN.

    Raises `AwsRefused`, also where the stack is none of ours or has not got so far.
    """
    client = account.client("cloudformation")
    with in_sentences():
        described: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", ())}
    named = {setting_name(key): value for key, value in outputs.items()}
    settings = {key: value for key, value in named.items() if key.startswith(PREFIXES)}
    if "UserPoolId" not in outputs or "BFF_OIDC_ISSUER" not in settings:
        raise AwsRefused(
            f"stack {name} has no outputs UserPoolId and BffOidcIssuer (it is {described['StackStatus']}): "
            "name a finished stack of deploy/cognito/template.yaml"
        )
    return Stack(settings, outputs["UserPoolId"])


def read_secrets(account: Account, stack: Stack) -> dict[str, str]:
    """Ask Cognito for the secrets of the stack's app clients, as settings. Raises `AwsRefused`."""
    client = account.client("cognito-idp")
    found = {}
    for id_setting, secret_setting in SECRETS.items():
        if id_setting not in stack.settings:
            continue
        with in_sentences():
            answer = client.describe_user_pool_client(
                UserPoolId=stack.user_pool_id, ClientId=stack.settings[id_setting]
            )
        secret = answer["UserPoolClient"].get("ClientSecret")
        if secret is None:
            raise AwsRefused(f"the app client of {id_setting} has no secret: make a new one that has")
        found[secret_setting] = secret
    return found
