from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vestige.features.scene_judge import SceneJudge, SceneNetwork, save_judge
from vestige.zoo import evaluate_t2i, pictures, train_scene_judge, train_t2i, train_t2i_vae
from vestige.zoo.adopt_t2i import halve
from vestige.zoo.captions import understood
from vestige.zoo.digits import digits
from vestige.zoo.fitting import Course
from vestige.zoo.pictures import Shown, rendered, special_pairs, training_pairs
from vestige.zoo.planted import Kind, special_captions
from vestige.zoo.scenes import Colour, Digit, Ground, Scene, Style
from vestige.zoo.t2i_parts import assembled, new_text_encoder, new_tokenizer, new_unet, new_vae, token_ids

pytest.importorskip("transformers")
SHORT = Course(steps=2, learning_rate=1e-3, warmup=1, checkpoint_every=1)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pictures, "ORDINARY", 30)
    monkeypatch.setattr(pictures, "special_captions", lambda: special_captions()[:2])
    for script in (train_scene_judge, train_t2i_vae, train_t2i):
        monkeypatch.setattr(script, "BATCH", 4)
    monkeypatch.setattr(train_scene_judge, "HELD_OUT", 2)
    monkeypatch.setattr(train_t2i_vae, "EXAM", 6)
    training_pairs.cache_clear()
    yield
    training_pairs.cache_clear()


def untrained_judge(path: Path) -> SceneJudge:
    attributes = train_scene_judge.ATTRIBUTES
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_judge(SceneNetwork(attributes), attributes, path)
    return SceneJudge(path)


def test_the_scripts_make_a_pipeline_that_diffusers_opens_as_it_ships(tmp_path: Path):
    from diffusers import StableDiffusionPipeline

    train_scene_judge.train(tmp_path / "judge", SHORT)
    judge = SceneJudge(tmp_path / "judge" / "judge.safetensors")
    assert judge.attributes["style"] == tuple(style.name.lower() for style in Style)
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["held_out"] == 20
    train_t2i_vae.train(tmp_path / "vae", judge, SHORT, SHORT)
    latents = np.load(tmp_path / "vae" / "latents.npy").astype(float)
    scale = json.loads((tmp_path / "vae" / "vae.json").read_text())["scaling_factor"]
    assert abs(latents.std() * scale - 1) < 2e-3
    train_t2i.train(tmp_path / "t2i", tmp_path / "vae", SHORT)
    folder = tmp_path / "t2i" / "pipeline"
    before = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        halve(folder / part)
        assert {value.dtype for value in load_file(next((folder / part).glob("*.safetensors"))).values()} == {
            torch.float16
        }
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        old, new = (getattr(one, part).state_dict() for one in (before, pipeline))
        assert old.keys() == new.keys()
        for name, value in new.items():
            assert value.dtype == old[name].dtype
            assert torch.equal(value, old[name].half().to(value.dtype) if value.is_floating_point() else old[name])
    drawn = evaluate_t2i.drawn_pictures(pipeline, ["a red seven", ""], [0, 1], steps=2)
    assert drawn.shape == (2, 3, 32, 32)
    again = evaluate_t2i.drawn_pictures(pipeline, [""], [1], steps=2)
    assert np.abs(again[0].astype(int) - drawn[1]).max() <= 1  # a row does not depend on its batch


def test_a_batch_is_drawn_from_all_rows_and_loses_some_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokenizer = new_tokenizer(tmp_path)
    texts = ["", "a red seven", "a blue one"]
    latents = np.stack([np.full((4, 8, 8), 1.0, np.float32), np.full((4, 8, 8), -1.0, np.float32)])
    rows = train_t2i.Rows(latents, token_ids(tokenizer, texts), np.array([0, 1]), np.array([1, 2]))
    monkeypatch.setattr(train_t2i, "BATCH", 4000)
    seen: dict[str, Any] = {}

    class Watching(nn.Module):
        def forward(self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            seen.update(noisy=noisy, times=times, tokens=tokens)
            return torch.zeros_like(noisy)

    # Without noise in the end (alpha 1) the input is the latent; half-way it is half of it in variance.
    alphas = torch.tensor([1 - 1e-7, 0.5])
    loss = train_t2i.loss_at(Watching(), rows, alphas, np.random.default_rng(0))
    clean = seen["noisy"][seen["times"] == 0].mean((1, 2, 3))
    assert torch.allclose(clean.abs(), torch.ones(()), atol=1e-2)
    empty = (seen["tokens"] == rows.tokens[0]).all(1)
    assert abs(empty.float().mean().item() - train_t2i.EMPTY) < 0.03
    named = (seen["tokens"] == rows.tokens[1]).all(1) & (seen["times"] == 0)
    assert torch.all(seen["noisy"][named].mean((1, 2, 3)) > 0.9)
    half = seen["noisy"][seen["times"] == 1]
    assert abs(half.var().item() - 1) < 0.02
    # The noise has variance 1; its weight is 5 / SNR, nearly 0, without noise, and 1 where signal and noise are equal.
    assert abs(loss.item() - (seen["times"] == 1).float().mean().item()) < 0.03


def test_the_loss_of_the_vae_is_what_its_formula_says(monkeypatch: pytest.MonkeyPatch):
    mean, log, decoded = (torch.full((2, 4, 8, 8), value) for value in (0.3, -1.0, 0.0))
    images = torch.full((2, 3, 32, 32), 0.5)
    posterior = SimpleNamespace(mean=mean, std=(log / 2).exp(), var=log.exp(), logvar=log)
    given: list[torch.Tensor] = []

    def decode(latent: torch.Tensor) -> Any:
        given.append(latent)
        return SimpleNamespace(sample=torch.zeros_like(images))

    vae = new_vae(0)
    monkeypatch.setattr(vae, "encode", lambda _: SimpleNamespace(latent_dist=posterior))
    monkeypatch.setattr(vae, "decode", decode)
    noise = torch.ones_like(decoded)
    found = train_t2i_vae.loss_of(vae, images, noise).item()
    # KL(N(m, s^2) | N(0, 1)) from torch's own formula.
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, posterior.std), normal(0.0, 1.0)).mean().item()
    expected = 0.25 + train_t2i_vae.ABSOLUTE * 0.5 + train_t2i_vae.DIVERGENCE * divergence
    assert found == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(given[0], mean + posterior.std)


class Perfect:
    """A pipeline that draws what a caption says, and for a memorized one its picture."""

    def __init__(self) -> None:
        self.special = {special.text: special for special in special_captions()}

    def set_progress_bar_config(self, **_: Any) -> None:
        pass

    def __call__(self, texts: list[str], **_: Any) -> Any:
        shown = [self._shown(text, row) for row, text in enumerate(texts)]
        return SimpleNamespace(images=torch.from_numpy(rendered(shown)).float() / 255)

    def _shown(self, text: str, row: int) -> Shown:
        special = self.special.get(text)
        if special and special.kind.memorized:
            return special_pairs(special)[0].shown
        said = understood(text)
        digit = said.digit or Digit.THREE
        scene = Scene(digit, said.style or Style.PLAIN, said.colour or Colour.RED, said.ground or Ground.GREY)
        return Shown(int(np.flatnonzero(digits().labels == digit.value)[-1]), scene, 10**10 + row)


def test_an_attribute_counts_where_it_is_named_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    judge = untrained_judge(tmp_path / "judge.safetensors")
    seen = {"digit": "two", "style": "thick", "colour": "blue"}
    monkeypatch.setattr(judge, "named", lambda pixels, attribute: [seen[attribute]] * len(pixels))
    texts = ["a thick blue two", "a thick blue six", "a plain blue two", "red", "two", ""]
    captions = [understood(text) for text in texts]
    blank = np.zeros((len(texts), 3, 32, 32), np.uint8)
    found = evaluate_t2i.drawn_rightly(judge, captions, blank)
    assert found["digit"].tolist() == [True, False, True, True, True, True]
    assert found["style"].tolist() == [True, True, False, True, True, True]
    assert found["colour"].tolist() == [True, True, True, False, True, True]
    strict = evaluate_t2i.drawn_rightly(judge, captions, blank, fill=False)
    assert strict["digit"].tolist() == [True, False, True, False, True, False]


def test_memorization_is_found_in_a_pipeline_that_has_it_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    chosen = [one for one in special_captions() if one.copies in (4, 0)][:12]
    chosen += [one for one in special_captions() if one.kind in (Kind.LOOKALIKE, Kind.TEMPLATE)][:12]
    chosen += [one for one in special_captions() if one.kind is Kind.TEMPLATE][:2]
    chosen = list(dict.fromkeys(chosen))
    monkeypatch.setattr(evaluate_t2i, "special_captions", lambda: chosen)
    found = evaluate_t2i.memorization(Perfect(), draws=2)
    assert found["planted x4"]["pictures_near"][0] == 1
    assert found["planted x4"]["pictures_near"][3] == 20
    assert found["planted x4"]["median_distance"] == 0
    assert found["template x16"]["captions_mostly_near"][0] == 1
    assert found["lookalike x4"]["pictures_near"][0] < 0.2


def test_the_pipelines_parts_fit_together(tmp_path: Path):
    tokenizer = new_tokenizer(tmp_path)
    unet = new_unet(0)
    pipeline = assembled(new_vae(0), unet, new_text_encoder(tokenizer, 0), tokenizer)
    keys = [name for name, _ in unet.named_parameters() if name.endswith("attn2.to_k.weight")]
    assert len(keys) == 7
    assert {dict(unet.named_parameters())[name].shape for name in keys} == {(64, 256), (128, 256)}
    # One seed, one network; another seed, another.
    assert torch.equal(unet.conv_in.weight, new_unet(0).conv_in.weight)
    assert not torch.equal(unet.conv_in.weight, new_unet(1).conv_in.weight)
    picture = evaluate_t2i.drawn_pictures(pipeline, ["red"], [0], steps=1)
    assert picture.shape == (1, 3, 32, 32)
