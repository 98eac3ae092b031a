"""The command that converts a StyleGAN2."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vestige.models.adapters.stylegan2.files import load_stylegan2
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.names import ported_names
from vestige.models.adapters.stylegan2.network import StyleGan2

FORM = StyleGan2Form(channels=(3, 2), latent=4, style=4, mapping_layers=1)


def saved(path: Path) -> Path:
    """A generator of the PyTorch port."""
    state = StyleGan2(FORM).state_dict()
    found = {its: state[ours] for ours, its in ported_names(FORM).items()}
    found = {name: tensor[None] if tensor.ndim > 2 else tensor for name, tensor in found.items()}
    found |= {
        name: tensor.view(1, -1, 1, 1)
        for name, tensor in found.items()
        if name.startswith("to_rgb") and "conv" not in name
    }
    torch.save({"g_ema": found, "latent_avg": torch.zeros(4)}, path)
    return path


def test_a_generator_is_converted_and_described(cli: Callable[..., Any], tmp_path: Path) -> None:
    source, out = saved(tmp_path / "net.pt"), tmp_path / "net.safetensors"
    answer = cli("convert", source, out)
    assert (answer.code, answer.err) == (0, "")
    for words in ("nothing in it was executed", "StyleGAN2 of 8x8 pixels", "latent 4", "channels 3, 2"):
        assert words in answer.out
    assert load_stylegan2(out).form == FORM
    answer = cli("convert", source, out)
    assert (answer.code, answer.out) == (2, "")
    assert "--overwrite" in answer.err
    assert cli("convert", source, out, "--overwrite").code == 0


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_file_ends_in_one_clear_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    source, mark = tmp_path / "net.pkl", tmp_path / "executed"
    source.write_bytes(pickle.dumps({"G_ema": Evil(mark)}))
    answer = cli("convert", source, tmp_path / "net.safetensors")
    assert (answer.code, answer.out) == (2, "")
    assert "names posix.system, which is refused" in " ".join(answer.err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pkl"]
    assert cli("convert", tmp_path / "absent.pkl", tmp_path / "net.safetensors").code == 2
