"""Vision networks of transformers, read from a local folder: DINOv2, CLIP, ViT and their like."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vestige.dependencies import need
from vestige.errors import BadWeights, CorruptFile, NotFound, Unsupported
from vestige.features.module import ModuleFeatures
from vestige.features.preprocessing import Preprocessing

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"


def _class_token(output: Any) -> Tensor:
    """The class token after the last normalization."""
    return output.last_hidden_state[:, 0]


def _projection(output: Any) -> Tensor:
    """The image embedding in the space shared with text."""
    return output.image_embeds


_TOWERS: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
    "clip": ("CLIPVisionModelWithProjection", _projection),
    "clip_vision_model": ("CLIPVisionModelWithProjection", _projection),
    "deit": ("DeiTModel", _class_token),
    "dinov2": ("Dinov2Model", _class_token),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", _class_token),
    "vit": ("ViTModel", _class_token),
}
"""Class of transformers by model type, and what of its output is the features."""


class _Tower(nn.Module):
    """A vision model and the part of its output that is kept."""

    def __init__(self, model: nn.Module, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self._read = model, read

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, d] of preprocessed images [n, 3, h, w]."""
        return self._read(self.model(pixel_values=images))


def is_vision_folder(folder: Path) -> bool:
    """Whether the folder holds the configuration of a transformers model."""
    return (folder / _CONFIG).is_file()


def vision_features(folder: Path, *, batch_size: int = 32) -> ModuleFeatures:
    """Features of the vision model that ``save_pretrained`` left in ``folder``, with its own preprocessing.

    Of ViT, DeiT and DINOv2 the class token after the last normalization, of CLIP the projected image embedding. Weights
    are read from safetensors alone; nothing is looked up on a hub and no code in the folder runs. Preprocessing follows
    ``preprocessor_config.json``, with Pillow; both files are part of the digest.

    Raises
    ------
    NotFound : no configuration, preprocessing or safetensors there. Unsupported : another kind of model.
    CorruptFile, BadWeights : files that cannot be read, or lack weights of the model.
    MissingExtra : transformers is not installed.
    """
    config, processing = _json(folder, _CONFIG), _json(folder, _PREPROCESSOR)
    kind = str(config.get("model_type"))
    if kind not in _TOWERS:
        raise Unsupported(
            f"{folder} holds a model of type {kind!r}.",
            expected=f"one of {', '.join(_TOWERS)}.",
            remedy="wrap its network as ModuleFeatures and pass that from Python.",
        )
    preprocessing = Preprocessing.from_config(processing, str(folder / _PREPROCESSOR))
    name, read = _TOWERS[kind]
    model = _load(folder, name)
    tower = _Tower(model, read).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k != "transformers_version"}
    return ModuleFeatures(
        tower, preprocessing, known_as=f"{folder.name} ({name})", batch_size=batch_size, settings={"config": kept}
    )


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise NotFound(
            f"There is no {path}.",
            expected="a folder with config.json, preprocessor_config.json and model.safetensors.",
            remedy="save model and image processor with save_pretrained, or copy the file from the model's source.",
        )
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _broken(path, "holds no object")
    return cast("dict[str, Any]", value)


def _broken(path: Path, what: str) -> CorruptFile:
    return CorruptFile(f"{path} {what}.", expected="a JSON object.", remedy="copy it again from the model's source.")


@contextmanager
def _quiet(logging: Any) -> Generator[None]:
    """No progress bars and no warnings of transformers, which do not know what is a terminal."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load(folder: Path, name: str) -> nn.Module:
    if not any(folder.glob("*.safetensors")):
        raise NotFound(
            f"{folder} holds no safetensors file.",
            expected="weights as safetensors, which cannot carry code.",
            remedy="load the model once in a place you trust and save it with save_pretrained.",
        )
    transformers: Any = need("vision", "transformers")
    try:
        with _quiet(transformers.utils.logging):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if hasattr(config, "vision_config"):
                # The part's own width of the projection may be a default that the whole does not have.
                config.vision_config.projection_dim = config.projection_dim
                config = config.vision_config
            model, told = getattr(transformers, name).from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorruptFile(
            f"{folder} cannot be read as {name} ({first}).",
            expected="what save_pretrained of transformers writes.",
            remedy="save it again.",
        ) from error
    # A pooler that the features do not pass through may be absent.
    missing = sorted(k for k in told["missing_keys"] if not k.startswith("pooler."))
    if missing or told["mismatched_keys"]:
        raise BadWeights(
            f"{folder} lacks weights of {name}, or has them in other shapes "
            f"({', '.join(map(str, [*missing, *told['mismatched_keys']][:3]))}).",
            expected="all weights of the model in its configuration.",
            remedy="save the model again; weights drawn at random would pass for features otherwise.",
        )
    return model.float()
