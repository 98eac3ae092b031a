"""Find the methods of a room by walking its folder: the file is the registration."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import GenericAlias, ModuleType
from typing import TypeVar

from vestige.errors import NotFound

Base = TypeVar("Base")


def methods(room: ModuleType, base: type[Base]) -> dict[str, type[Base]]:
    """All final, frozen dataclasses below ``room`` that implement ``base``, by class name.

    Raises
    ------
    TypeError : a method is not a frozen dataclass, or two methods share a name.
    """
    found: dict[str, type[Base]] = {}
    for info in sorted(pkgutil.walk_packages(room.__path__, room.__name__ + "."), key=lambda info: info.name):
        module = importlib.import_module(info.name)
        for name, item in vars(module).items():
            # On Python 3.10 an alias such as list[int] passes for a class, but not with issubclass.
            if isinstance(item, GenericAlias) or not (inspect.isclass(item) and issubclass(item, base)):
                continue
            if item.__module__ != module.__name__:
                continue
            if inspect.isabstract(item):
                continue
            # Its own parameters: those of a base that is a dataclass say nothing about its fields.
            parameters = vars(item).get("__dataclass_params__")
            if parameters is None or not parameters.frozen:
                raise TypeError(f"{module.__name__}.{name} must be a frozen dataclass")
            if name in found:
                raise TypeError(f"two methods are called {name}: {found[name].__module__} and {module.__name__}")
            found[name] = item
    return dict(sorted(found.items()))


def method(room: ModuleType, base: type[Base], name: str) -> type[Base]:
    """The method of that name, whatever its case.

    Raises
    ------
    NotFound : no such method; the message lists those there are.
    """
    every = methods(room, base)
    for key, item in every.items():
        if key.lower() == name.lower():
            return item
    raise NotFound(
        f"No method is called '{name}'.",
        expected=f"one of {', '.join(every)}.",
        remedy="run `vestige ls` to see what each one does.",
    )
