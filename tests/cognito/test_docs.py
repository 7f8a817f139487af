"""docs/cognito.md: what it names exists, its commands are AWS's, and `bff check` says what it quotes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cognito.account import client
from tests.cognito.template import FOLDER, load

ROOT = FOLDER.parent.parent
PAGE = (ROOT / "docs" / "cognito.md").read_text()
CLI_ONLY = {"query", "output", "region", "profile"}
DEPLOY = {"stack-name", "template-file", "parameter-overrides"}
"""Options of `aws cloudformation deploy`, which is the CLI's own and no call of the API."""


def section(title: str) -> str:
    """The text of a second-level section."""
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r" \| ", line.strip("| "))] for line in lines[2:]]


BEHAVIOURS = rows("What the local provider does as Cognito does")
SYMPTOMS = rows("Troubleshooting by symptom")


@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: row[0][:40])
def test_each_behaviour_is_documented_and_tested(row: list[str]) -> None:
    """It links to AWS's documentation, and every test that it names exists."""
    assert re.fullmatch(r"\[[^\]]+\]\(https://docs\.aws\.amazon\.com/cognito/[^ )]+\.html\)", row[1]), row[1]
    tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[2])
    assert tests
    assert len(tests) == row[2].count("`") / 2
    for file, name in tests:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize(
    "subject",
    [
        "Discovery",
        "Access token",
        "ID token",
        "Authorize",
        "invalid_grant",
        "invalid_client",
        "logout_uri",
        "Refresh without rotation",
        "With rotation",
        "Revoke",
        "Lifetimes",
        "prompt=none",
        "prompt=login",
        "`lang`",
    ],
)
def test_nothing_that_matters_is_left_out(subject: str) -> None:
    """Discovery, claims, errors, sign-out, refresh, revocation, lifetimes, prompt and lang have rows."""
    assert any(subject in row[0] for row in BEHAVIOURS)


def findings() -> set[tuple[str, str, str]]:
    """Level, area and text of every finding in the modules of `bff check`, with “…” where something is filled
    in."""
    found = set()
    for module in sorted((ROOT / "bff" / "check").glob("*.py")):
        tree = ast.parse(module.read_text())
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            names = given(tree.body) | given(ast.walk(function))
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ok", "warning", "error"):
                    area, text, *_ = (words(each, names) for each in node.args)
                    found.add((ast.unparse(node.func), area, text))
    return found


def given(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """The texts that names get, by one assignment or by several at once."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            (target,), value = node.targets, node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=True) if both else [(target, value)]  # type: ignore[attr-defined]
            names |= {ast.unparse(one): words(other, {}) for one, other in pairs}
    return names


def words(node: ast.expr, names: dict[str, str]) -> str:
    """The text of an expression; of a name, what it was given."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part, names) for part in node.values)  # what is filled in is no constant: “…”
    return names.get(node.id, "…") if isinstance(node, ast.Name) else "…"


@pytest.mark.parametrize("row", SYMPTOMS, ids=lambda row: row[0][:40])
def test_bff_check_says_what_is_quoted(row: list[str]) -> None:
    """There is a finding of this level and area, and it has these words, letter by letter."""
    told = re.fullmatch(r"`(ok|warning|error) ([a-z-]+)` “(.+)”", row[1])
    assert told is not None, row[1]
    level, area, text = told.groups()
    assert any(found[:2] == (level, area) and text in found[2] for found in findings())
    assert len(row) == 3
    assert row[2]


@pytest.mark.parametrize(
    "subject",
    [
        "round and round",
        "invalid_grant",
        "invalid_client",
        "audience is invalid",
        "redirect_mismatch",
        "Wrong environment",
        "Clock skew",
        "Missing scope",
    ],
)
def test_each_symptom_that_people_meet_has_a_row(subject: str) -> None:
    """The guide's classic ones."""
    assert any(subject in " ".join(row) for row in SYMPTOMS)


def commands() -> list[list[str]]:
    """Every command of the AWS CLI on the page, in words; a pipe ends one."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```|`(aws [^`]+ --[^`]+)`", PAGE, re.DOTALL):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            found += [shlex.split(part) for part in line.split(" | ") if part.strip().startswith("aws ")]
    return found


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[1:3]))
def test_commands_are_awss(words: list[str]) -> None:
    """Service, operation and options exist, and none that is required is missing."""
    service, operation = words[1:3]
    options = {word.removeprefix("--") for word in words if word.startswith("--")}
    if (service, operation) == ("cloudformation", "deploy"):
        assert options == DEPLOY
        return
    model = client(service).meta.service_model
    names = {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    known = {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(): name for name in shape.members}
    assert options - CLI_ONLY <= set(known)
    assert set(shape.required_members) <= {known[option] for option in options - CLI_ONLY}


def test_parameters_on_the_page_exist() -> None:
    """What is given to a template is a parameter of that template, and what has no default is given."""
    for words in commands():
        if words[2] == "deploy":
            file = Path(words[words.index("--template-file") + 1])
            given = {word.split("=")[0] for word in words[words.index("--parameter-overrides") + 1 :]}
            template = load(ROOT / file)
            assert given <= set(template["Parameters"])
            needed = {name for name, each in template["Parameters"].items() if "Default" not in each}
            assert needed <= given


def test_the_alarm_counts_failures() -> None:
    """Samples less successes, of the same metric of the same client; by themselves neither is a failure."""
    alarm = load(FOLDER / "watch.yaml")["Resources"]["SignInFailures"]["Properties"]
    failures, attempts, successes = alarm["Metrics"]
    assert failures["Expression"] == f"{attempts['Id']} - {successes['Id']}"
    assert [each["ReturnData"] for each in alarm["Metrics"]] == [True, False, False]
    assert attempts["MetricStat"]["Stat"] == "SampleCount"
    assert successes["MetricStat"] == {**attempts["MetricStat"], "Stat": "Sum"}
    assert attempts["MetricStat"]["Metric"]["MetricName"] == "SignInSuccesses"
