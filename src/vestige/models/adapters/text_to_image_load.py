"""Folders of text-to-image pipelines, read part by part: safetensors alone, no code of the folder's, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel

from vestige.dependencies import need
from vestige.errors import BadWeights, CorruptFile, Unsupported
from vestige.models.adapters.diffusers import first_line, is_pipeline_folder, load_scheduler, read_json
from vestige.models.adapters.text_to_image import TextToImage

_INDEX = "model_index.json"
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
_NETWORKS: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "SD3Transformer2DModel": getattr(diffusers, "SD3Transformer2DModel", None),
    "AutoencoderKL": AutoencoderKL,
}
_TEXT = (
    *("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"),
    *("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast"),
)
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that neither draw nor read prompts; they are copied on saving and not loaded."""


def is_text_to_image(folder: Path) -> bool:
    """Whether a folder holds a pipeline of diffusers that has a tokenizer."""
    return is_pipeline_folder(folder) and "tokenizer" in read_json(folder / _INDEX)


def load_text_to_image(folder: Path) -> TextToImage:
    """Read a folder written by ``save_pretrained``.

    Raises
    ------
    Unsupported : another pipeline, quantised weights, or weights that are no safetensors.
    CorruptFile, BadWeights : a part cannot be read, or its weights do not fit it.
    InvalidInput : the text encoder's width is not the network's.
    MissingExtra : transformers is not installed.
    """
    index = read_json(folder / _INDEX)
    name = str(index.get("_class_name", ""))
    if name not in _PIPELINES:
        raise Unsupported(
            f"{folder / _INDEX} names the pipeline {name!r}.",
            expected=f"one of {', '.join(_PIPELINES)}.",
            remedy="save the model as one of these, or build TextToImage from a pipeline object.",
        )
    named = {part: about[1] for part, about in index.items() if isinstance(about, list) and len(about) == 2}
    parts: dict[str, Any] = {
        part: None if kind is None or part in _LEFT_OUT else _part(folder / part, str(kind))
        for part, kind in named.items()
    }
    settings = {key: index[key] for key in ("force_zeros_for_empty_prompt",) if key in index}
    if "safety_checker" in parts:
        settings["requires_safety_checker"] = False
    kind: Any = getattr(diffusers, name)
    pipeline: DiffusionPipeline = kind(**parts, **settings)
    return TextToImage(pipeline, folder)


def _part(folder: Path, kind: str) -> Any:
    if folder.name == "scheduler":
        return load_scheduler(folder)
    if _NETWORKS.get(kind) is not None:
        return _weights(_NETWORKS[kind], folder, {"low_cpu_mem_usage": False})
    if kind not in _TEXT:
        raise Unsupported(
            f"The pipeline's part {folder.name} is a {kind}.",
            expected=f"one of {', '.join((*_NETWORKS, *_TEXT))}.",
            remedy="use a Stable Diffusion 1.x, 2.x, XL or 3 pipeline.",
        )
    transformers: Any = need("text", "transformers")
    if "Tokenizer" in kind:
        try:
            return getattr(transformers, kind).from_pretrained(folder, local_files_only=True)
        except Exception as error:  # tokenizers fail in their own ways on files that make no sense
            raise _unreadable(folder, error) from error
    return _weights(getattr(transformers, kind), folder, {})


def _weights(kind: Any, folder: Path, more: dict[str, Any]) -> Any:
    if read_json(folder / "config.json").get("quantization_config"):
        raise Unsupported(
            f"The weights in {folder} are quantised.",
            expected="floating-point weights.",
            remedy="load the pipeline from its original checkpoint.",
        )
    if not any(folder.glob("*.safetensors")):
        raise Unsupported(
            f"{folder} holds no safetensors file.",
            expected="weights saved as safetensors; pickles are not read.",
            remedy="save the pipeline with save_pretrained(FOLDER, safe_serialization=True).",
        )
    try:
        part, report = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **more,
        )
    except Exception as error:  # torch, safetensors and the networks share no base for what they raise
        raise _unreadable(folder, error) from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *(m[0] for m in report["mismatched_keys"])]
    wrong = [key for key in wrong if not key.endswith("position_ids")]  # a buffer that older files hold
    if wrong:
        raise BadWeights(
            f"{len(wrong)} weights in {folder} do not fit its config.json, {wrong[0]} among them.",
            expected="exactly the weights that the configuration describes, attention not fused.",
            remedy="check that config.json and the weights come from the same model.",
        )
    return part.float()


def _unreadable(folder: Path, error: Exception) -> CorruptFile:
    return CorruptFile(
        f"The part of the pipeline in {folder} could not be read ({first_line(error)}).",
        expected="the files that save_pretrained wrote.",
        remedy="copy or save the pipeline again.",
    )
