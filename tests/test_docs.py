"""What the documents say about commands, settings and files is true, and the code in them runs."""

from __future__ import annotations

import dataclasses
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import vestige.audit
import vestige.audit.geometry
import vestige.erase
from vestige.audit.attack import Attack
from vestige.audit.geometry.estimator import DataEstimator, ModelEstimator
from vestige.audit.geometry.generated_neighbourhood import GeneratedNeighbourhood
from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum
from vestige.cli.main import app
from vestige.discover import method, methods
from vestige.erase.eraser import Eraser
from vestige.erase.loop import Loop
from vestige.jobs.policy import Policy, load_policy

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
TEXT = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _lines(text):
    return [line for block in _blocks(text, "bash") for line in block.splitlines() if line.startswith("vestige ")]


def _command(words):
    """The command that the words name, and the words left for it."""
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("name", TEXT)
def test_commands_are_accepted(name):
    whole = _lines(TEXT[name])
    for line in whole:
        command, words = _command(shlex.split(line, comments=True)[1:])
        command.make_context("vestige", words)  # raises on an unknown option or a missing argument
    for line in re.findall(r"`(vestige [^`]+)`", TEXT[name]):
        command, words = _command(shlex.split(line)[1:])
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= known, line
    assert whole or name != "README.md"


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_somewhere(name):
    for target in re.findall(r"(?<!\!)\[[^\]]*\]\(([^)#]+)[^)]*\)", TEXT[name]):
        assert target.startswith("https://") or ((ROOT / name).parent / target).exists(), target


def _shown(value):
    return str(getattr(value, "value", value))


EVERY = {
    **methods(vestige.audit, Attack),
    **methods(vestige.audit.geometry, ModelEstimator),
    **methods(vestige.audit.geometry, DataEstimator),
    **{kind.__name__: kind for kind in (GeneratorSpectrum, GeneratedNeighbourhood)},
    **methods(vestige.erase, Eraser),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_method_has_a_page_with_its_settings(name):
    page = next(text for path, text in TEXT.items() if path.startswith("docs/methods/") and f"`{name}`, `src/" in text)
    table = page.partition("## Settings")[2].partition("## Cost")[0]
    stated = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, flags=re.MULTILINE))
    assert stated == {field.name: _shown(field.default) for field in dataclasses.fields(EVERY[name])}


def test_the_page_of_the_loop_states_its_settings():
    stated = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", TEXT["docs/loop.md"], flags=re.MULTILINE))
    assert stated == {field.name: _shown(field.default) for field in dataclasses.fields(Loop)}
    for name in methods(vestige.erase, Eraser):
        assert name in TEXT["README.md"] + TEXT["CHANGELOG.md"]


def test_the_policy_in_the_readme_is_the_default(tmp_path):
    (block,) = _blocks(TEXT["README.md"], "toml")
    path = tmp_path / "limits.toml"
    path.write_text(block)
    assert load_policy(path) == Policy()
    keys = set(re.findall(r"^(\w+) =", block, flags=re.MULTILINE))
    assert keys == {key for table in Policy().model_dump().values() for key in table}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The files that CONTRIBUTING.md writes, those below src/ importable from where they would lie."""
    found = re.findall(r"^`([\w/]+\.py)`.*?\n\n```python\n(.*?)```", TEXT["CONTRIBUTING.md"], flags=re.DOTALL | re.M)
    files = {tmp_path / name: text for name, text in found}
    added = []
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.is_relative_to(tmp_path / "src"):
            package = ".".join(path.relative_to(tmp_path / "src").parent.parts)
            added.append((importlib.import_module(package), path.stem))
            monkeypatch.setattr(added[-1][0], "__path__", [*added[-1][0].__path__, str(path.parent)])
    yield list(files)
    for package, name in added:
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


def test_the_methods_in_contributing_are_found_and_pass_their_tests(written, tmp_path):
    assert method(vestige.audit, Attack, "noisenorm").__name__ == "NoiseNorm"
    assert method(vestige.erase, Eraser, "replay").__name__ == "Replay"
    run = 0
    for path in written:
        for name, item in runpy.run_path(str(path)).items() if "tests" in path.parts else ():
            if name.startswith("test_"):
                item(tmp_path / name)
                run += 1
    assert run == 2
