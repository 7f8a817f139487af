"""An AWS account in memory (moto) that has what the template describes."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.validate import ParamValidator

from tests.cognito.template import PARAMETERS, Evaluation

REGION = "eu-west-1"
STACK = "bff-dev"
CALLS = {
    "AWS::Cognito::UserPool": "create_user_pool",
    "AWS::Cognito::UserPoolDomain": "create_user_pool_domain",
    "AWS::Cognito::UserPoolResourceServer": "create_resource_server",
    "AWS::Cognito::UserPoolGroup": "create_group",
    "AWS::Cognito::UserPoolClient": "create_user_pool_client",
    "AWS::Cognito::ManagedLoginBranding": "create_managed_login_branding",
}
"""The API call of each type: its parameters are the resource's properties."""

RENAMED = {"UserPoolName": "PoolName"}
NOT_IN_MOTO = ("create_managed_login_branding",)


@functools.cache
def client(service: str = "cognito-idp") -> Any:
    """A client of whichever account in memory is in force: making one is slow."""
    return boto3.client(
        service, region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing"
    )


def check_parameters(operation: str, parameters: dict[str, Any]) -> None:
    """Hold parameters against the service's own description of the call: names, types, required members."""
    idp = client()
    model = idp.meta.service_model.operation_model(idp.meta.method_to_api_mapping[operation])
    report = ParamValidator().validate(parameters, model.input_shape)
    assert not report.has_errors(), f"{operation}: {report.generate_report()}"


@dataclass
class Built:
    """What the template made, by the resources' names."""

    evaluation: Evaluation
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def pool_id(self) -> str:
        return self.evaluation.known["UserPool"]

    @property
    def issuer(self) -> str:
        return self.evaluation.known["UserPool.ProviderURL"]

    def pool(self) -> dict[str, Any]:
        """The pool as the account now describes it."""
        return client().describe_user_pool(UserPoolId=self.pool_id)["UserPool"]  # type: ignore[no-any-return]

    def app_client(self, name: str) -> dict[str, Any]:
        """An app client as the account now describes it."""
        found = client().describe_user_pool_client(
            UserPoolId=self.pool_id, ClientId=self.evaluation.known[name]
        )
        return found["UserPoolClient"]  # type: ignore[no-any-return]


def build(parameters: dict[str, Any] = PARAMETERS) -> Built:
    """Hand each resource's properties to the API call of its type."""
    built = Built(Evaluation(parameters, {}))
    for name, resource in built.evaluation.template["Resources"].items():
        _create(built, name, CALLS[resource["Type"]])
    return built


def _create(built: Built, name: str, operation: str) -> None:
    parameters = {RENAMED.get(k, k): v for k, v in built.evaluation.properties(name).items()}
    check_parameters(operation, parameters)
    if operation in NOT_IN_MOTO:
        return
    answer = getattr(client(), operation)(**parameters)
    built.answers[name] = answer
    known = built.evaluation.known
    if operation == "create_user_pool":
        known[name] = answer["UserPool"]["Id"]
        known[f"{name}.ProviderURL"] = f"https://cognito-idp.{REGION}.amazonaws.com/{known[name]}"
    elif operation == "create_user_pool_client":
        known[name] = answer["UserPoolClient"]["ClientId"]
    elif operation == "create_user_pool_domain":
        known[name] = parameters["Domain"]


def make_stack(outputs: dict[str, str], name: str = STACK) -> None:
    """moto has no Cognito in CloudFormation: a stack with these outputs and something that it knows."""
    template = {
        "Resources": {"Nothing": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
