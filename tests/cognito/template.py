"""The CloudFormation template, read and evaluated as CloudFormation does with the functions that it uses."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "cognito"
FILE = FOLDER / "template.yaml"
NO_VALUE = object()
PARAMETERS = {
    "Environment": "dev",
    "PublicUrl": "http://localhost:5003",
    "DomainPrefix": "weather-test",
    "CustomDomain": "",
    "CertificateArn": "",
    "FeaturePlan": "ESSENTIALS",
    "ApiIdentifier": "api://weather",
    "ApiScopeName": "access",
    "AccessTokenMinutes": 5,
    "RefreshTokenDays": 1,
}
PRODUCTION = {
    **PARAMETERS,
    "Environment": "prod",
    "PublicUrl": "https://www.example.com",
    "CustomDomain": "auth.example.com",
    "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/0a",
    "FeaturePlan": "PLUS",
    "ApiIdentifier": "https://api.example.com",
    "ApiScopeName": "weather.read",
    "AccessTokenMinutes": 15,
    "RefreshTokenDays": 30,
}


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, turned into the long ones."""


def _long_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(suffix)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


@functools.cache
def load(file: Path = FILE) -> dict[str, Any]:
    """A template with long forms."""
    return yaml.load(file.read_text(), _Loader)  # type: ignore[no-any-return]


class Evaluation:
    """The template with values for its parameters. `known` has what `Ref` and `GetAtt` of resources give."""

    def __init__(self, parameters: dict[str, Any], known: dict[str, str]) -> None:
        self.template = load()
        assert set(parameters) == set(self.template["Parameters"])
        self.known = known
        self._parameters = parameters

    def properties(self, resource: str) -> dict[str, Any]:
        """The properties of a resource as CloudFormation would send them."""
        found = self._value(self.template["Resources"][resource]["Properties"])
        assert isinstance(found, dict)
        return found

    def outputs(self) -> dict[str, str]:
        """The outputs, by their names."""
        return {name: self._value(each["Value"]) for name, each in self.template["Outputs"].items()}

    def _value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for each in node if (value := self._value(each)) is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (name, argument), *_ = node.items()
            if name == "Ref":
                return self._ref(argument)
            if name.startswith("Fn::"):
                return getattr(self, "_" + name[4:].lower())(argument)
        pairs = {key: self._value(value) for key, value in node.items()}
        return {key: value for key, value in pairs.items() if value is not NO_VALUE}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        return self._parameters[name] if name in self._parameters else self.known[name]

    def _sub(self, text: str) -> str:
        return re.sub(r"\$\{([A-Za-z.]+)\}", lambda found: str(self._ref(found[1])), text)

    def _getatt(self, path: str) -> str:
        return self.known[path]

    def _if(self, argument: list[Any]) -> Any:
        condition, yes, no = argument
        return self._value(yes if self._value(self.template["Conditions"][condition]) else no)

    def _equals(self, argument: list[Any]) -> bool:
        one, other = map(self._value, argument)
        return bool(one == other)

    def _not(self, argument: list[Any]) -> bool:
        return not self._value(argument[0])

    def _and(self, argument: list[Any]) -> bool:
        return all(map(self._value, argument))

    def _or(self, argument: list[Any]) -> bool:
        return any(map(self._value, argument))
