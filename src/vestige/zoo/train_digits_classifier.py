"""Train the digit classifier that judges ``digits-ddpm``.

    python -m vestige.zoo.train_digits_classifier --out DIR

Trains on 4,500 of the 5,000 digits with small random shifts, states its accuracy on the
other 500, and writes safetensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from vestige.features.digit_classifier import DigitNetwork
from vestige.zoo.digits import digits

SEED, EPOCHS, BATCH, HELD_OUT = 11, 30, 64, 500


def train(images: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64], out: Path) -> None:
    """Train on images uint8 [n, 28, 28] of classes [n], judge on held-out ones, write weights and card to ``out``."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(classes))
    pixels = torch.from_numpy(images).unsqueeze(1).float() / 127.5 - 1
    labels = torch.from_numpy(classes)
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    network = DigitNetwork()
    steps = EPOCHS * (len(kept) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(EPOCHS):
        shuffled = rng.permutation(kept)
        for start in range(0, len(kept) - BATCH + 1, BATCH):
            rows = shuffled[start : start + BATCH]
            right, down = rng.integers(-2, 3, size=2)
            shifted = torch.roll(pixels[rows], (int(down), int(right)), (2, 3))
            loss = torch.nn.functional.cross_entropy(network(shifted), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        correct = int((network(pixels[held]).argmax(1) == labels[held]).sum())
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / "classifier.safetensors")
    card = {"trained_on": len(kept), "held_out": len(held), "held_out_correct": correct, "seed": SEED}
    (out / "classifier.json").write_text(json.dumps(card, indent=2) + "\n")
    print(card)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    data = digits()
    train(data.pixels, data.labels, parser.parse_args().out)
