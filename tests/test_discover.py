from __future__ import annotations

import importlib
import sys

import pytest

from vestige.discover import method, methods
from vestige.errors import NotFound

BASE = """
from abc import ABC, abstractmethod
from dataclasses import dataclass

@dataclass(frozen=True)
class Base(ABC):
    @abstractmethod
    def run(self): ...
"""
METHOD = """
from dataclasses import dataclass
from {room}.base import Base

Rows = list[int]

@dataclass(frozen=True)
class {name}(Base):
    size: int = 3
    def run(self): return self.size
"""


@pytest.fixture
def room(tmp_path, monkeypatch, request):
    """A function that writes a package of modules and returns it with its base class."""
    name = "room_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    monkeypatch.syspath_prepend(str(tmp_path))

    def build(**modules: str):
        for path, source in {"__init__": "", "base": BASE, **modules}.items():
            file = tmp_path / name / f"{path.replace('__in__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            (file.parent / "__init__.py").touch()
            file.write_text(source.replace("{room}", name))
        package = importlib.import_module(name)
        return package, importlib.import_module(f"{name}.base").Base

    yield build
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def test_methods_are_found_in_every_folder_and_listed_once(room):
    borrowed = "from {room}.one import Zeta\nfrom {room}.base import Base\nclass Half(Base):\n    pass\n"
    package, base = room(
        one=METHOD.replace("{name}", "Zeta"), deep__in__two=METHOD.replace("{name}", "Alpha"), three=borrowed
    )
    found = methods(package, base)
    assert list(found) == ["Alpha", "Zeta"]
    assert found["Alpha"](size=5).run() == 5
    assert method(package, base, "zETA") is found["Zeta"]
    with pytest.raises(NotFound, match=r"'nope'.*one of Alpha, Zeta"):
        method(package, base, "nope")


def test_a_method_that_is_no_dataclass_of_its_own_is_refused(room):
    # Its base is one, so it looks like a dataclass; yet its `size` would be no field.
    package, base = room(plain=METHOD.replace("@dataclass(frozen=True)\n", "").replace("{name}", "Odd"))
    with pytest.raises(TypeError, match=r"plain\.Odd must be a frozen dataclass"):
        methods(package, base)


def test_two_methods_of_one_name_are_refused(room):
    package, base = room(one=METHOD.replace("{name}", "Same"), two=METHOD.replace("{name}", "Same"))
    with pytest.raises(TypeError, match=r"two methods are called Same"):
        methods(package, base)
