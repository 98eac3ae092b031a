from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vestige import dependencies
from vestige.dependencies import (
    OPTIONAL,
    REQUIRED,
    installed,
    need,
    require_working_dependencies,
    torchvision_fault,
)
from vestige.errors import BrokenDependency, MissingExtra

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")\n'


def plant(folder: Path, package: str, source: str, distribution_version: str | None = "0.0.1") -> Path:
    """Lay an importable package with metadata into a folder for PYTHONPATH."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(source)
    if distribution_version is not None:
        info = folder / f"{package}-{distribution_version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {distribution_version}\n")
    return folder


def run(code: str, *paths: Path) -> str:
    """Standard output of a fresh interpreter that sees ``paths`` before everything else."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*map(str, paths), *([inherited] if inherited else [])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def broken_torchvision(tmp_path: Path) -> Path:
    """As the real one fails: a submodule loads, then an operator is missing."""
    folder = plant(tmp_path, "torchvision", "from torchvision import extension\n" + MISMATCH)
    (folder / "torchvision" / "extension.py").write_text("")
    return folder


REQUIRE = """
import json, sys
from vestige.dependencies import require_working_dependencies, torchvision_fault
from vestige.errors import BrokenDependency
try:
    require_working_dependencies()
    message = None
except BrokenDependency as error:
    message = str(error)
left = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
print(json.dumps({"message": message, "left": left, "faults": [torchvision_fault(), torchvision_fault()]}))
"""


def test_torchvision_built_for_another_torch_is_named_with_its_remedy(broken_torchvision: Path) -> None:
    seen = json.loads(run(REQUIRE, broken_torchvision))
    torch = importlib.metadata.version("torch")
    assert seen["faults"] == ["RuntimeError: operator torchvision::nms does not exist"] * 2
    assert seen["message"].startswith("torchvision 0.0.1 is installed but cannot be imported (RuntimeError: operator")
    assert "`pip uninstall torchvision`" in seen["message"]
    assert f"matches torch {torch}" in seen["message"]
    assert "\n" not in seen["message"]
    assert seen["left"] == []


def test_torchvision_without_metadata_is_found_all_the_same(tmp_path: Path) -> None:
    # transformers looks for the module, not for its metadata.
    plant(tmp_path, "torchvision", MISMATCH, distribution_version=None)
    seen = json.loads(run(REQUIRE, tmp_path))
    assert seen["message"].startswith("torchvision is installed but cannot be imported")


def test_torchvision_that_works_is_no_fault(tmp_path: Path) -> None:
    plant(tmp_path, "torchvision", "import warnings\nwarnings.warn('no image codecs')\n")
    code = "import warnings; warnings.simplefilter('error')\n"
    code += "from vestige.dependencies import torchvision_fault; print(torchvision_fault())"
    assert run(code, tmp_path) == "None"


def test_absent_torchvision_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None)
    torchvision_fault.cache_clear()
    before = set(sys.modules)
    assert torchvision_fault() is None
    assert set(sys.modules) == before
    torchvision_fault.cache_clear()


def test_torch_that_fails_is_not_blamed_on_torchvision(tmp_path: Path, broken_torchvision: Path) -> None:
    plant(broken_torchvision, "torch", 'raise OSError("libtorch.so: undefined\\nsymbol")\n', "9.9")
    seen = json.loads(run(REQUIRE, broken_torchvision))
    assert seen["message"].startswith(
        "torch 9.9 is installed but cannot be imported (OSError: libtorch.so: undefined symbol)."
    )
    assert seen["faults"] == [None, None]


def test_working_dependencies_pass() -> None:
    require_working_dependencies()
    assert "diffusers" in sys.modules


@pytest.mark.slow
def test_diffusers_still_needs_the_guard(broken_torchvision: Path) -> None:
    code = "try:\n    from diffusers import UNet2DModel\nexcept RuntimeError as error:\n    print(error)"
    assert run(code, broken_torchvision).startswith("Failed to import diffusers.models.unets.unet_2d")


def test_need_returns_the_module() -> None:
    assert need("test", "json.decoder") is json.decoder
    assert isinstance(need("test", "json"), ModuleType)


@pytest.mark.parametrize("module", ["absent_package", "absent_package.part"])
def test_need_names_the_extra_to_install(module: str) -> None:
    with pytest.raises(MissingExtra, match=r"absent_package is not installed.*`pip install 'vestige\[datasets\]'`"):
        need("datasets", module)


def test_need_tells_a_blocked_package_from_a_working_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(MissingExtra):
        need("datasets", "json")


def test_need_tells_broken_from_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "half_installed", "import no_such_dependency\n", "1.2")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BrokenDependency, match=r"half_installed 1\.2 .*No module named 'no_such_dependency'") as caught:
        need("datasets", "half_installed")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_long_reasons_are_cut() -> None:
    assert len(dependencies._one_line(RuntimeError("x " * 5000))) == 200


def test_installed_reports_versions_without_importing(broken_torchvision: Path) -> None:
    code = "import json, sys; from vestige.dependencies import installed\n"
    code += "print(json.dumps([installed(), [m for m in ('torch', 'numpy', 'torchvision') if m in sys.modules]]))"
    versions, imported = json.loads(run(code, broken_torchvision))
    assert imported == []
    assert versions["torchvision"] == "0.0.1"
    for name in REQUIRED:
        assert versions[name] == importlib.metadata.version(name)


def test_installed_lists_the_absent_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(dependencies, "version", absent)
    assert installed() == dict.fromkeys(("vestige", *REQUIRED, *OPTIONAL))


def test_required_is_what_the_package_declares() -> None:
    declared = {re.split(r"[<>=!~; \[]", line, maxsplit=1)[0] for line in PROJECT["dependencies"]}
    assert declared - {"tomli"} == set(REQUIRED)  # tomli stands in for tomllib of Python 3.11


def test_every_extra_asked_for_exists() -> None:
    asked = set[str]()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "need":
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}: name the extra literally"
                asked.add(str(node.args[0].value))
    assert asked <= set(PROJECT["optional-dependencies"])
