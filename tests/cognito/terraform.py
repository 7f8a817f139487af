"""The Terraform module, read with an HCL parser, and its expressions evaluated as far as it uses them."""

from __future__ import annotations

import functools
import re
from typing import Any

import hcl2

from tests.cognito.template import FOLDER, NO_VALUE

FILE = FOLDER / "main.tf"
NOT_COMPARED = ("depends_on", "lifecycle")
_OPTIONS = hcl2.SerializationOptions(
    with_comments=False, explicit_blocks=False, strip_string_quotes=False, preserve_heredocs=False
)


@functools.cache
def load() -> dict[str, Any]:
    """The module: its blocks by kind, strings still in their quotation marks."""
    with FILE.open() as file:
        return hcl2.load(file, serialization_options=_OPTIONS)


def blocks(module: dict[str, Any], kind: str) -> dict[str, Any]:
    """Blocks of a kind by their last label; resources as (type, body)."""
    found: dict[str, Any] = {}
    for each in module[kind]:
        for label, body in each.items():
            if kind == "resource":
                ((name, inner),) = body.items()
                found[_text(name)] = (_text(label), inner)
            else:
                found[_text(label)] = body
    return found


def _text(quoted: str) -> str:
    return quoted.strip('"')


class Evaluation:
    """The module with values for its variables. `known` has what attributes of resources give."""

    def __init__(self, variables: dict[str, Any], known: dict[str, str]) -> None:
        module = load()
        self.resources = blocks(module, "resource")
        self.variables = blocks(module, "variable")
        self.output_blocks = blocks(module, "output")
        self.module = module
        self.known = known
        assert set(variables) == set(self.variables)
        self._values = variables

    def arguments(self, resource: str) -> dict[str, Any]:
        """The arguments of a resource; a nested block that occurs once is a dictionary."""
        _, body = self.resources[resource]
        return self._body({name: value for name, value in body.items() if name not in NOT_COMPARED})

    def outputs(self) -> dict[str, Any]:
        """The outputs, by their names."""
        return {name: self.value(body["value"]) for name, body in self.output_blocks.items()}

    def _body(self, body: dict[str, Any]) -> dict[str, Any]:
        values = {name: self.value(value) for name, value in body.items()}
        return {name: value for name, value in values.items() if value is not NO_VALUE}

    def value(self, node: Any) -> Any:
        """An argument's value; `null` counts as left out."""
        if isinstance(node, list) and node and all(isinstance(each, dict) for each in node):
            (block,) = node
            return self._body(block)
        if isinstance(node, list):
            return [self.value(each) for each in node]
        if not isinstance(node, str):
            return node
        whole = re.fullmatch(r"\$\{(.*)\}", node)
        if whole and not node.startswith('"'):
            return self._expression(whole[1])
        return re.sub(r"\$\{([^}]*)\}", lambda found: str(self._expression(found[1])), _text(node))

    def _expression(self, text: str) -> Any:
        text = text.strip()
        if choice := re.fullmatch(r"(\S+) (==|!=) (\S+) \? (\S+) : (\S+)", text):
            one, other = self._expression(choice[1]), self._expression(choice[3])
            return self._expression(choice[4] if (one == other) == (choice[2] == "==") else choice[5])
        if text == "null":
            return NO_VALUE
        if text.startswith('"'):
            return self.value(text)
        if text.startswith("var."):
            return self._values[text.removeprefix("var.")]
        return self.known[text]
