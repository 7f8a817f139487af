"""The package from outside: what it exports, what it imports, and that its documentation runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bff.resource_api
from bff.resource_api.settings import Settings, variable_of
from tests.forge import Forge
from tests.resource_api.conftest import bearer

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bff" / "resource_api"
GUIDE = ROOT / "docs" / "resource-server.md"


def test_every_export_resolves() -> None:
    """What `__all__` promises is there, and nothing else is made up."""
    for name in bff.resource_api.__all__:
        assert getattr(bff.resource_api, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = bff.resource_api.no_such_thing


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after this statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_importing_the_package_is_cheap() -> None:
    """Command lines import it to find out that it is not wanted."""
    assert not loaded_by("import bff.resource_api") & {"flask", "jose", "pydantic", "requests"}
    assert not loaded_by("import bff.resource_api.settings") & {"flask", "jose", "requests"}


def test_the_app_listens_before_the_slow_imports() -> None:
    """The HTTP client and the signature library are loaded when the first token comes."""
    made = (
        "from bff.resource_api import create_app\n"
        "from bff.resource_api.settings import load\n"
        "create_app(load({'API_ISSUER': 'https://i.example', 'API_CLIENT_IDS': 'c'}))"
    )
    loaded = loaded_by(made)
    assert "flask" in loaded
    assert not loaded & {"jose", "requests", "urllib3", "cryptography"}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_package_stands_alone(path: Path) -> None:
    """It imports nothing of the BFF; python-jose in one file only, Flask nowhere below jwt."""
    imported = imports_of(path)
    inside = {name for name in imported if name.split(".")[0] == "bff"}
    assert all(name.startswith("bff.resource_api") for name in inside)
    if any(name.split(".")[0] == "jose" for name in imported):
        assert path == PACKAGE / "jwt" / "keys.py"
    if path.parent.name == "jwt" and path.stem != "validator":
        assert not {name for name in imported if name.split(".")[0] in ("flask", "werkzeug")}


def test_python_jose_is_touched_in_one_place() -> None:
    """In all of the program: the local provider apart, which signs with it if it likes."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bff").rglob("*.py")
        if "dev_idp" not in path.parts
        if any(name.split(".")[0] == "jose" for name in imports_of(path))
    }
    assert users == {"bff/resource_api/jwt/keys.py"}


def example(heading: str) -> str:
    """The first block of Python under a heading of the guide."""
    section = GUIDE.read_text().split(f"## {heading}\n", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_guide_s_example_runs(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The ten lines of the guide make an API that lets in the right token and nobody else."""
    # Flask looks for a folder `static` beside the file that calls it.
    monkeypatch.chdir(tmp_path)
    code = example("Ten lines")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert re.search(r"^from bff.resource_api import JWTValidator, .*\brequires$", code, re.MULTILINE)
    issuer = re.search(r'"(https://[^"]+)"', code)
    assert issuer is not None
    names: dict[str, Any] = {"__name__": "example"}
    exec(code.replace(issuer[1], forge.issuer), names)
    client = names["app"].test_client()
    mint = Forge(forge.issuer, "my-client", "api://orders/read", now=int(time.time()))
    assert client.get("/orders").status_code == 401
    answer = client.get("/orders", headers=bearer(mint.access_token()))
    assert answer.status_code == 200, answer.text
    assert mint.access_claims()["sub"] in answer.text
    assert client.get("/orders", headers=bearer(mint.access_token(scope="openid"))).status_code == 403


def test_the_guide_names_every_setting() -> None:
    """A setting that is not documented does not exist for anybody."""
    text = GUIDE.read_text()
    for field in Settings.model_fields:
        assert f"`{variable_of(field)}`" in text
