"""Generators out of the pickles of StyleGAN2-ADA for PyTorch, which store the source code of their own classes.

Such a file asks to execute that source. Here the request is only recorded: class name, arguments and state are kept,
the source is never looked at. What is read is checked against the sizes that the file itself declares.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from vestige.errors import CorruptFile, InvalidInput, Unsupported
from vestige.models.adapters.stylegan2.files import StyleGan2Weights
from vestige.models.adapters.stylegan2.form import StyleGan2Form, config_f
from vestige.models.adapters.stylegan2.names import official_names
from vestige.models.unpickle.archive import Archive
from vestige.models.unpickle.machine import Called, printable

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_DEEPEST, _MOST_MODULES = 8, 2000
_FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMBERS = {"f8": "<f8", "f4": "<f4", "i8": "<i8", "i4": "<i4"}

_ONLY: Final[dict[str, object]] = {"activation": "lrelu", "architecture": "skip", "use_noise": True}
"""Settings that this implementation has in one way only."""

_RATE, _CLAMP = re.compile(r"mapping\.fc\d+\.bias_gain"), re.compile(r"synthesis\.b\d+\.\w+\.conv_clamp")

_LINEAR = ("affine", "embed")
"""Layers without a rectifier."""

_SIZES = {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"}
_DRAWING = {"channel_base", "channel_max", "conv_clamp", "resample_filter", *_ONLY}
_MAPPING = {"num_layers", "lr_multiplier", "embed_features", "layer_features", "activation", "w_avg_beta"}
_SPEED = {"num_fp16_res", "fp16_channels_last", "fused_modconv_default", "force_fp32", "fp16_max"}
"""Settings of the program, none of which changes what the network computes in float32."""

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Recorded:
    """An object that a pickle asks to rebuild from source: its class's name, arguments and state."""

    kind: str
    arguments: Values
    state: Values

    @staticmethod
    def read(node: object, what: str) -> Recorded | None:
        """From the recorded call; None if it is another one."""
        if not isinstance(node, Called) or node.dotted != PERSISTENT:
            return None
        about = _dictionary(node.args[0] if len(node.args) == 1 else None)
        kind, state = about.get("class_name"), _dictionary(about.get("state"))
        if type(kind) is not str or not state:
            raise _incomplete(what, "an object without a class name or a state")
        return Recorded(kind, _dictionary(state.get("_init_kwargs")), state)


@dataclass(eq=False)
class Contents:
    """The modules of a generator: recorded tensors by name, and plain attributes by ``module.attribute``."""

    what: str
    tensors: Values = field(default_factory=dict[str, Any])
    attributes: Values = field(default_factory=dict[str, Any])
    modules: int = 0

    def add(self, node: object, prefix: str = "", depth: int = 0) -> None:
        """Take over a module and those below it."""
        recorded, self.modules = Recorded.read(node, self.what), self.modules + 1
        if recorded is None or depth > _DEEPEST or self.modules > _MOST_MODULES:
            raise _incomplete(self.what, f"a part {printable(prefix)!r} that is none, or too many of them")
        for group in ("_parameters", "_buffers"):
            for name, value in _dictionary(recorded.state.get(group)).items():
                if value is not None:
                    self.tensors[f"{prefix}{name}"] = value
        self.attributes |= {f"{prefix}{name}": value for name, value in recorded.state.items()}
        for name, child in _dictionary(recorded.state.get("_modules")).items():
            if child is not None:
                self.add(child, f"{prefix}{name}.", depth + 1)


def official_weights(archive: Archive) -> StyleGan2Weights | None:
    """The averaged generator of an official pickle, or the one that it consists of; None if there is none.

    Raises
    ------
    Unsupported : it is another architecture, or set otherwise than the skip StyleGAN2. CorruptFile : parts are absent.
    BadWeights : the tensors are not those of the declared sizes.
    """
    held = _dictionary(archive.value).get("G_ema", archive.value)
    generator = Recorded.read(held, archive.what)
    if generator is None:
        return None
    contents = Contents(archive.what)
    contents.add(held)
    form = _form(generator, contents)
    tensors = _tensors(archive, contents, official_names(form))
    return StyleGan2Weights(form, tensors)


def _tensors(archive: Archive, contents: Contents, names: dict[str, str]) -> dict[str, Tensor]:
    """Tensors under our names; those without a counterpart keep theirs, so that they are reported."""
    ours, found = {its: name for name, its in names.items()}, dict[str, Tensor]()
    for its, node in contents.tensors.items():
        value = archive.tensor(node)
        if its.rpartition(".")[2] == "resample_filter":
            if value.shape != _FILTER.shape or not np.allclose(value, _FILTER, atol=1e-6):
                raise _other(archive.what, "resamples with other taps than [1, 3, 3, 1]")
        else:
            found[ours.get(its, printable(its))] = torch.from_numpy(value.astype(np.float32))
    return found


def _form(generator: Recorded, contents: Contents) -> StyleGan2Form:
    """The sizes that the file declares."""
    given = generator.arguments
    mapping, nested = _dictionary(given.get("mapping_kwargs")), _dictionary(given.get("synthesis_kwargs"))
    _refuse_others(generator, contents, mapping, nested)
    drawing, style = {**given, **nested}, _whole(given, "w_dim", 512)
    if any(mapping.get(name) not in (None, style) for name in ("embed_features", "layer_features")):
        raise _other(contents.what, "has mapping layers of other widths than the style")
    try:
        return StyleGan2Form(
            channels=config_f(
                _whole(given, "img_resolution"),
                base=_whole(drawing, "channel_base", 32768),
                largest=_whole(drawing, "channel_max", 512),
            ),
            latent=_whole(given, "z_dim", 512),
            style=style,
            classes=_whole(given, "c_dim", 0),
            mapping_layers=_whole(mapping, "num_layers", 8),
            mapping_rate=_agreed(contents, _RATE, mapping.get("lr_multiplier", 0.01)) or 0.0,
            image_channels=_whole(given, "img_channels", 3),
            clamp=_agreed(contents, _CLAMP, drawing.get("conv_clamp")),
        )
    except InvalidInput as error:
        raise _incomplete(contents.what, error.found) from error


def _refuse_others(generator: Recorded, contents: Contents, mapping: Values, nested: Values) -> None:
    """Raise Unsupported for settings that are unknown here or otherwise than this implementation has them."""
    known = _SIZES | _DRAWING | _SPEED | {"mapping_kwargs", "synthesis_kwargs"}
    strange = {*(set(generator.arguments) - known), *(set(nested) - _DRAWING - _SPEED), *(set(mapping) - _MAPPING)}
    if strange or "synthesis.b4.const" not in contents.tensors:
        named = ", ".join(printable(name) for name in sorted(strange)[:5]) or "no synthesis.b4.const"
        raise _other(contents.what, f"({printable(generator.kind)}) is no StyleGAN2 as it is known here: {named}")
    for path, value in contents.attributes.items():
        module, _, name = path.rpartition(".")
        only = "linear" if name == "activation" and module.endswith(_LINEAR) else _ONLY.get(name)
        if only is not None and (type(value) is not type(only) or value != only):
            raise _other(contents.what, f"sets {printable(path)}")


def _agreed(contents: Contents, pattern: re.Pattern[str], otherwise: object) -> float | None:
    """The number, or None, that all attributes of that name hold: what a layer keeps is what it computes with."""
    held = [value for path, value in contents.attributes.items() if pattern.fullmatch(path)] or [otherwise]
    numbers = {None if value is None else _number(value) for value in held}
    if len(numbers) > 1:
        raise _other(contents.what, f"sets {pattern.pattern} differently from layer to layer")
    return numbers.pop()


def _dictionary(node: object) -> Values:
    """The entries of a recorded dictionary with text as keys; none if it is something else."""
    if not isinstance(node, dict):
        return {}
    return {key: value for key, value in cast("dict[Any, Any]", node).items() if type(key) is str}


def _whole(values: Values, name: str, otherwise: int = 0) -> int:
    value = values.get(name, otherwise)
    return value if type(value) is int else -1


def _number(node: object) -> float:
    """A recorded number, Python's or numpy's; not a number if it is something else."""
    if type(node) in (int, float):
        return float(cast(float, node))
    if isinstance(node, Called) and node.dotted in _SCALARS and len(node.args) == 2:
        kind, content = node.args
        code = _NUMBERS.get(str(kind.args[0])) if isinstance(kind, Called) and kind.args else None
        if code is not None and isinstance(content, bytes) and len(content) == np.dtype(code).itemsize:
            return float(np.frombuffer(content, code)[0])
    return math.nan


def _other(what: str, how: str) -> Unsupported:
    return Unsupported(
        f"The generator of {what} {how}.",
        expected="a StyleGAN2 with skip connections, leaky rectifiers and noise, as StyleGAN2-ADA trains it.",
        remedy="load it in the program that made it; StyleGAN3 and TensorFlow pickles are not read.",
    )


def _incomplete(what: str, reason: str) -> CorruptFile:
    return CorruptFile(
        f"{what} does not hold a whole generator: {reason.rstrip('.')}.",
        expected="a pickle of StyleGAN2-ADA for PyTorch with the networks G, D and G_ema.",
        remedy="download it again.",
    )
