from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vestige.erase.applied import applied
from vestige.erase.concept.closed_form import edit, last_places, layer_gram
from vestige.erase.concept.mace import MACE, fused
from vestige.erase.concept.rece import RECE, adversary
from vestige.erase.concept.replaced import Replaced, kept_tokens
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.concept.uce import UCE
from vestige.errors import InvalidInput
from vestige.models.adapters.text_to_image import TextToImage

REQUEST = ConceptRequest(("red", "outlined"), ("a {}", "the {} digit"), keep=("a blue two",), anchors=("blue", ""))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def one_layer(
    weight: Tensor, erased: Tensor, become: Tensor, kept: Tensor, s_e: float, s_p: float, lam: float
) -> Tensor:
    """The formula of one layer, a sum over tokens at a time, as the paper writes it."""
    first, second = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for c, g in zip(erased, become, strict=True):
        first = first + s_e * (weight @ g)[:, None] * c[None]
        second = second + s_e * c[:, None] * c[None]
    for p in kept:
        first = first + s_p * (weight @ p)[:, None] * p[None]
        second = second + s_p * p[:, None] * p[None]
    return first @ torch.linalg.inv(second)


@given(
    st.integers(1, 5), st.integers(0, 8), st.floats(0.1, 3), st.floats(0, 3), st.floats(0.01, 2), st.integers(0, 999)
)
def test_one_map_equals_the_formula_of_every_layer(n: int, m: int, s_e: float, s_p: float, lam: float, seed: int):
    erased, become, kept = normal(seed, n, 12), normal(seed + 1, n, 12), normal(seed + 2, m, 12)
    found = edit(erased, become, kept, erase_scale=s_e, keep_scale=s_p, ridge=lam)
    assert found.left.shape == (12, n)
    for rows in (5, 20):
        weight = normal(seed + rows, rows, 12)
        wanted = one_layer(weight, erased, become, kept, s_e, s_p, lam)
        torch.testing.assert_close(weight @ found.whole(), wanted, rtol=1e-7, atol=1e-8)


def test_the_edit_is_the_minimum_of_its_objective():
    weight, c, g, p = normal(0, 6, 9).requires_grad_(), normal(1, 2, 9), normal(2, 2, 9), normal(3, 4, 9)
    old = weight.detach()
    new = (old @ edit(c, g, p, erase_scale=0.7, keep_scale=1.3, ridge=0.2).whole()).requires_grad_()
    loss = 0.7 * (c @ new.mT - g @ old.mT).square().sum() + 1.3 * (p @ (new - old).mT).square().sum()
    (loss + 0.2 * (new - old).square().sum()).backward()
    assert new.grad is not None
    assert float(new.grad.abs().max()) < 1e-9


def test_two_edits_after_one_another_are_one_map():
    first = edit(normal(0, 2, 9), normal(1, 2, 9), normal(2, 3, 9), erase_scale=1, keep_scale=1, ridge=0.5)
    second = edit(normal(3, 3, 9), normal(4, 3, 9), normal(5, 3, 9), erase_scale=1, keep_scale=1, ridge=0.5)
    torch.testing.assert_close(first.then(second).whole(), first.whole() @ second.whole())


def test_uce_on_the_model_equals_a_loop_over_its_layers_and_a_patch_of_the_embeddings(base: TextToImage):
    method = UCE()
    (increment,) = method.erase(base, REQUEST)
    erased, become = Replaced.LAST.pairs(base, REQUEST)
    kept = kept_tokens(base, REQUEST)
    assert len(erased) == 4
    for name, layer in base.readers().items():
        weight = layer.weight.detach().double()
        wanted = one_layer(weight, erased.double(), become.double(), kept.double(), 1, 1, 0.5)
        found = weight + increment.delta[f"{name}.weight"].double()
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4
    edited = applied(base, [(increment, 1.0)])
    x, t = base.starts([0, 1], 0), torch.tensor([0.5, 0.9])
    rows = base.embeddings(["a red two", "a thick one"])
    with torch.no_grad():
        by_weights = edited.denoiser().predict_embedded(x, t, rows)
        by_embeddings = base.denoiser().predict_embedded(x, t, method.map(base, REQUEST).of(rows))
    torch.testing.assert_close(by_weights, by_embeddings, rtol=1e-3, atol=1e-4)


def test_erased_tokens_read_as_the_anchors_and_kept_ones_as_before(base: TextToImage):
    found = UCE(erase_scale=1e4, keep_scale=1e4).map(base, REQUEST)
    place = last_places(base, "a red", "red")[0]
    red, blue, kept = base.tokens(["a red"])[0, place], base.tokens(["a blue"])[0, place], kept_tokens(base, REQUEST)
    assert place == 2
    assert float((found.of(red) - blue).norm() / (red - blue).norm()) < 0.05
    assert float((found.of(kept) - kept).norm() / kept.norm()) < 0.01


def test_the_adversary_minimizes_its_objective_over_all_layers(base: TextToImage):
    found = RECE(epochs=0).map(base, REQUEST)
    tokens = base.tokens(["a red"])[0, :3].double()
    again = adversary(found, layer_gram(base), tokens, 0.1).requires_grad_()
    loss = 0.1 * again.square().sum()
    for layer in base.readers().values():
        weight = layer.weight.detach().double()
        loss = loss + (again @ (weight @ found.whole()).mT - tokens @ weight.mT).square().sum()
    loss.backward()
    assert again.grad is not None
    assert float(again.grad.abs().max()) < 1e-6 * float(loss.detach())


def test_rece_leaves_less_to_find_than_one_edit(base: TextToImage):
    gram, tokens = layer_gram(base), base.tokens(["a red"])[0, 2:3].double()

    def distance(epochs: int) -> float:
        found = RECE(epochs=epochs, replaced=Replaced.LAST).map(base, REQUEST)
        gap = adversary(found, gram, tokens, 0.1) @ found.whole().mT - tokens
        return float(torch.einsum("nd,de,ne->", gap, gram, gap))

    assert distance(2) > 1.5 * distance(0)


def test_mace_maps_every_token_and_fusing_keeps_each_increment_on_its_own_prompts(base: TextToImage):
    (refined,) = MACE(prior=0.5).erase(base, REQUEST)
    erased, become = Replaced.ALL.pairs(base, REQUEST)
    name, layer = next(iter(base.readers().items()))
    kept = kept_tokens(base, REQUEST).double()
    wanted = one_layer(layer.weight.detach().double(), erased.double(), become.double(), kept, 1, 0.5, 1e-2)
    torch.testing.assert_close(
        layer.weight.detach().double() + refined.delta[f"{name}.weight"], wanted, rtol=1e-3, atol=1e-4
    )
    method = SepME(steps=3, batch_size=1, rank=4, trajectories=1, sampling_steps=3, learning_rate=0.05)
    request = ConceptRequest(("red", "outlined"), ("{}",))
    parts = method.erase(base, request)
    whole = fused(base, parts, [["red"], ["outlined"]], ["a blue two"], "both", prior=1e3, ridge=1e-6)
    for part, prompt in zip(parts, ("red", "outlined"), strict=True):
        own = base.tokens([prompt])[0].double()
        for key, change in part.delta.items():
            gap = own @ (whole.delta[key] - change).double().mT
            assert float(gap.norm() / (own @ change.double().mT).norm()) < 0.1
    blue = base.tokens(["a blue two"])[0].double()
    key = next(iter(whole.delta))
    assert float((blue @ whole.delta[key].double().mT).norm()) < 0.05 * float(whole.delta[key].norm() * blue.norm())
    with pytest.raises(InvalidInput):
        fused(base, parts, [["red"]], [], "both")
