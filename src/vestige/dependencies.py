"""What is installed, and whether it works.

diffusers and transformers conclude from the presence of torchvision alone
(``importlib.util.find_spec``) that it can be used, and import it deep inside modules
that have nothing to do with pictures. A torchvision built for another torch therefore
shows as "Could not import module 'PreTrainedModel'" on importing a plain ``UNet2DModel``.
vestige needs no torchvision; it tries the import first and names the package at fault.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from vestige.errors import BrokenDependency, MissingExtra

REQUIRED = (
    "torch",
    "diffusers",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
    "pydantic",
    "typer",
    "rich",
    "jinja2",
    "matplotlib",
    "jaxtyping",
)
"""Distributions that vestige cannot do without."""

OPTIONAL = (
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "opacus",
    "faiss-cpu",
    "zuko",
    "cma",
    "gguf",
    "py-arkworks-bls12381",
    "torchvision",
)
"""Distributions that vestige, or diffusers under it, takes up where they are present."""

_LONGEST_REASON = 200


def installed() -> dict[str, str | None]:
    """Versions of vestige, of all it requires and of all it can use; None where absent.

    Read from package metadata: nothing is imported, so a broken package is listed too.
    """
    return {name: _version(name) for name in ("vestige", *REQUIRED, *OPTIONAL)}


@cache
def torchvision_fault() -> str | None:
    """Why the installed torchvision cannot be imported, in one line.

    Returns
    -------
    None if torchvision works, is not installed (then nothing is imported at all), or
    cannot be judged because torch itself fails. A torchvision that fails leaves none of
    its modules in ``sys.modules``; torch stays imported. The answer is found once per process.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return None
    if _import_fault("torch") is not None:
        return None
    with warnings.catch_warnings():
        # torchvision warns about image codecs that nothing here uses.
        warnings.simplefilter("ignore")
        return _import_fault("torchvision")


def require_working_dependencies() -> None:
    """Make sure that torch and diffusers can be imported, before anything imports a class of theirs.

    Raises
    ------
    BrokenDependency : torch or diffusers fails on import, or a torchvision that they would pull in does.
    """
    fault = _import_fault("torch")
    if fault is not None:
        raise _broken("torch", fault)
    fault = torchvision_fault()
    if fault is not None:
        torch = _version("torch")
        raise BrokenDependency(
            f"{_named('torchvision')} is installed but cannot be imported ({fault}).",
            expected=f"no torchvision, which vestige does not need, or the one built for torch {torch}.",
            remedy=f"run `pip uninstall torchvision`, or install the torchvision build that matches torch {torch}.",
        )
    fault = _import_fault("diffusers")
    if fault is not None:
        raise _broken("diffusers", fault)


def need(extra: str, module: str) -> ModuleType:
    """Import an optional module, such as ``need("datasets", "datasets")``.

    Parameters
    ----------
    extra : the extra of vestige that brings the module.
    module : its dotted name.

    Raises
    ------
    MissingExtra : the package is not installed.
    BrokenDependency : it is, but importing it fails.
    """
    package = module.partition(".")[0]
    if sys.modules.get(package) is None and find_spec(package) is None:
        raise MissingExtra(
            f"The package {package} is not installed.",
            expected=f"the optional dependencies {extra!r}.",
            remedy=f"run `pip install 'vestige[{extra}]'`.",
        )
    try:
        return import_module(module)
    except Exception as error:
        raise _broken(package, _one_line(error)) from error


def _broken(package: str, fault: str) -> BrokenDependency:
    return BrokenDependency(
        f"{_named(package)} is installed but cannot be imported ({fault}).",
        expected=f"a working {package}.",
        remedy=f"run `pip install --force-reinstall {package}`, or start from a fresh virtual environment.",
    )


def _named(package: str) -> str:
    known = _version(package)
    return package if known is None else f"{package} {known}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _import_fault(package: str) -> str | None:
    """Import a package; on failure drop what it loaded of itself and return the reason."""
    before = set(sys.modules)
    try:
        import_module(package)
    except Exception as error:  # a foreign package may raise anything: RuntimeError, OSError, AttributeError, …
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
        return _one_line(error)
    return None


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"
