"""The documentation says what the code does: nothing is missing, nothing is left over."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import bff.dev_idp.settings
import bff.resource_api.settings
import bff.settings
from bff import errors
from bff.headers import REQUEST, RESPONSE
from bff.routes import ENDPOINTS
from tests.mutations import mutations

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HTTP = (ROOT / "docs" / "http.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def documented(prefix: str) -> set[str]:
    """Settings that begin a row of the README's tables."""
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(rf"`({prefix}[A-Z_]+)`", row)}


def test_every_setting_of_the_bff_is_documented() -> None:
    """The README's table names exactly the settings that exist."""
    assert documented("BFF_") == {f"BFF_{name.upper()}" for name in bff.settings.Settings.model_fields}


def test_every_key_of_a_route_is_documented() -> None:
    """The README's `[[routes]]` shows each key once."""
    block = README[README.index("[[routes]]\n") :].split("```", 1)[0]
    shown = re.findall(r"^([a-z_]+) = ", block, re.MULTILINE)
    assert sorted(shown) == sorted(bff.settings.RouteSettings.model_fields)


def test_every_setting_of_the_api_is_documented() -> None:
    """The same for the resource API."""
    variable_of = bff.resource_api.settings.variable_of
    assert documented("API_") == {variable_of(n) for n in bff.resource_api.settings.Settings.model_fields}


def test_every_setting_of_the_provider_is_documented() -> None:
    """The same for the local identity provider."""
    fields = dataclasses.fields(bff.dev_idp.settings.Settings)
    assert documented("IDP_") == {f"IDP_{field.name.upper()}" for field in fields}


def test_every_default_is_documented() -> None:
    """A default in the README is the one in the code."""
    for name, field in bff.settings.Settings.model_fields.items():
        row = re.search(rf"^\| `BFF_{name.upper()}` \| ([^|]*) \|", README, re.MULTILINE)
        if row is not None and isinstance(field.default, int | str) and name != "oidc_client_secret":
            assert row[1].strip("` ") == str(field.default), name


def codes(base: type[errors.PublicError]) -> set[str]:
    """Public codes of an error and all below it; classes that only group others have none of their own."""
    found = {base.code} if "code" in vars(base) else set()
    return found.union(*(codes(child) for child in base.__subclasses__()))


def test_every_error_code_is_documented() -> None:
    """docs/http.md names every code that a caller can meet."""
    rows = [line for line in HTTP.splitlines() if re.match(r"\| \d{3} ", line)]
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[2])}
    not_sent = {"internal_error", "sign_in_failed"}
    assert told == codes(errors.PublicError) - not_sent


def test_every_address_is_documented() -> None:
    """docs/http.md names every address that the control plane answers."""
    for endpoint in ENDPOINTS:
        assert endpoint.below or f"{endpoint.path}`" in HTTP or f"{endpoint.path}?" in HTTP, endpoint.path


@pytest.mark.parametrize(("start", "allowed"), [("To an upstream pass:", REQUEST), ("Back pass:", RESPONSE)])
def test_header_lists_are_documented(start: str, allowed: frozenset[bytes]) -> None:
    """The two allow-lists stand in docs/http.md as they are in the code."""
    text = HTTP[HTTP.index(start) :].split("\n\n", 1)[0].lower()
    for name in allowed:
        plain = name.decode()
        assert plain in text or f"-{plain.removeprefix('content-')}" in text, plain


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_make_target_of_the_docs_exists() -> None:
    """A command that a page shows can be run."""
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_what_conformance_names_is_there() -> None:
    """Every module and every test of docs/conformance.md exists, and each rule has a test."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test" not in line]
    assert len(rows) > 50
    for row in rows:
        if set(row) <= set("|- "):
            continue
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, row
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
        for module in re.findall(r"`(bff/[\w/]+\.py)`", row):
            assert (ROOT / module).exists(), module


def test_every_row_of_conformance_can_be_broken() -> None:
    """tests/mutations.toml has a change for each row and its test, and each change still has its place."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| (.+?) \|.*`(tests/[\w/]+\.py::test_\w+)` \|$", text, re.MULTILINE)
    assert rows == [(each.row, each.test) for each in mutations()]
    for each in mutations():
        assert each.broken(ROOT) != (ROOT / each.file).read_text()
