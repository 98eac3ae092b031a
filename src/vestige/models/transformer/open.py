"""From a path or a module to a transformer: its settings say which family reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from vestige.discover import methods
from vestige.errors import CorruptFile, InvalidInput, NotFound, Unsupported, VestigeError
from vestige.models.transformer import families
from vestige.models.transformer.block import Transformer
from vestige.models.transformer.checkpoint import Checkpoint
from vestige.models.transformer.family import Family
from vestige.models.transformer.gguf import Gguf, gguf_settings, gguf_tokens, is_gguf
from vestige.models.transformer.settings import Settings
from vestige.models.transformer.stored import StoredTransformer
from vestige.models.transformer.tokens import tokens_of_folder
from vestige.models.weights import WeightSource, open_weights

if TYPE_CHECKING:
    from torch import nn

    Model: TypeAlias = str | Path | nn.Module

CONFIGURATION = "config.json"
_LARGEST = 16 << 20

Tokens = Callable[[int], "tuple[str, ...] | None"]


def open_transformer(model: Model) -> Transformer:
    """A language model by its matrices. Headers are read now, matrices when they are asked for.

    Parameters
    ----------
    model : a transformers folder (``config.json`` beside safetensors; ``tokenizer.json`` or ``vocab.json`` for the
        tokens), one of its files of weights, a GGUF file or a folder with one, or a module of transformers.

    Raises
    ------
    NotFound : there is nothing at the path, or no ``config.json`` beside the weights.
    CorruptFile : a file is damaged. BadWeights : tensors are missing, have other shapes or other numbers of layers.
    Unsupported : an architecture or a packing that is not known; the message lists those that are.
    InvalidInput : a folder holds several models, or the module has no configuration.
    """
    if isinstance(model, (str, Path)):
        return _from_path(Path(model))
    configuration = getattr(model, "config", None)
    if configuration is None or not hasattr(configuration, "to_dict"):
        raise InvalidInput(
            f"A {type(model).__name__} has no configuration that says what its weights are.",
            expected="a module of transformers, with its config.",
            remedy="use describe(open_weights(module), settings) with the settings of its config.json.",
        )
    return describe(open_weights(model), cast("Mapping[str, Any]", configuration.to_dict()), type(model).__name__)


def describe(
    source: WeightSource,
    settings: Mapping[str, Any],
    origin: str = CONFIGURATION,
    tokens: Tokens | None = None,
) -> Transformer:
    """Weights from anywhere as a transformer.

    Parameters
    ----------
    source : tensors under the names that transformers saves them by.
    settings : the values of ``config.json``; ``model_type`` says which family reads them.
    origin : what error messages call the settings.
    tokens : from the number of rows to their tokens.

    Raises
    ------
    CorruptFile, BadWeights, Unsupported : see :func:`open_transformer`.
    """
    given = Settings(settings, origin)
    if given.has("quantization_config"):
        method = (given.part("quantization_config") or given).text("quant_method", default="an unnamed method")
        raise Unsupported(
            f"The weights of {origin} are packed by {method[:60]!r}.",
            expected="weights as plain numbers.",
            remedy="take the model as it was before, or load and .dequantize() it in transformers and save it again.",
        )
    name = given.text("model_type", default="nothing")
    family = _families().get(name)
    if family is None:
        raise Unsupported(
            f"{origin} names the architecture {name[:60]!r}.",
            expected=f"one of {', '.join(known_architectures())}.",
            remedy="open a model of a known architecture.",
        )
    checkpoint = Checkpoint(source, given)
    return StoredTransformer(checkpoint, family, family.outline(checkpoint), tokens or (lambda _: None))


def known_architectures() -> tuple[str, ...]:
    """Every ``model_type`` that can be read, sorted."""
    return tuple(sorted(_families()))


@cache
def _families() -> dict[str, Family]:
    found = cast("dict[str, Callable[[], Family]]", methods(families, Family))
    return {name: family for family in (make() for make in found.values()) for name in family.names()}


def _from_path(path: Path) -> Transformer:
    folder = path if path.is_dir() else path.parent
    configuration = folder / CONFIGURATION
    source = open_weights(path)
    if is_gguf(source):
        settings = gguf_settings(source, path.name)
        checkpoint = Checkpoint(source, settings)
        family = Gguf()
        return StoredTransformer(checkpoint, family, family.outline(checkpoint), partial(gguf_tokens, source))
    if not configuration.is_file():
        raise _without_settings(folder)
    return describe(source, _read(configuration), str(configuration), partial(tokens_of_folder, folder))


def _without_settings(folder: Path) -> VestigeError:
    if (folder / "adapter_config.json").is_file():
        return Unsupported(
            f"{folder} holds an adapter, not a model.",
            expected="a whole model.",
            remedy="merge the adapter into its model first (peft's merge_and_unload) and save that.",
        )
    return NotFound(
        f"There is no {CONFIGURATION} beside the weights in {folder}.",
        expected="a folder of transformers, or a GGUF file.",
        remedy="fetch the whole folder; a bare file of weights does not say how many heads it has.",
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a table")
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFile(
            f"{path} cannot be read ({str(error)[:200]}).",
            expected="the settings of a model as JSON.",
            remedy="fetch the file again.",
        ) from error
    return cast("Mapping[str, Any]", content)
