from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vestige.erase.applied import applied
from vestige.erase.data.random_label import RandomLabel
from vestige.erase.data.saliency import saliency_mask
from vestige.erase.data.salun import SalUn
from vestige.erase.data.teacher import Target
from vestige.errors import InvalidInput, NothingChanged, Unsupported
from vestige.models.denoiser import Prediction

SHORT = SalUn(steps=30, batch_size=4, mask_samples=32, learning_rate=1e-2)
CPU = torch.device("cpu")


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.int32)


def trained(method: SalUn, base: Any, shop: Any, folder: Path) -> nn.Module:
    return applied(base, [(method.erase(base, shop.request(), shop.context(folder)), 1.0)]).module


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.CLEAN])
def test_weights_outside_the_mask_keep_their_bits(
    shop: Any, tmp_path: Path, share: float, prediction: Prediction
) -> None:
    base = shop.denoiser(prediction=prediction)
    with torch.no_grad():  # a zero of either sign would show an addition of nothing
        for parameter in base.module.parameters():
            parameter.view(-1)[::3] = -0.0
            parameter.view(-1)[1::3] = 0.0
    module = trained(dataclasses.replace(SHORT, share=share), base, shop, tmp_path)
    mask, _ = saliency_mask(base, base.module, shop.request().forget, share, 32, shop.context(tmp_path / "other"))
    assert mask.count == round(share * mask.total)
    moved = 0
    for free, before, after in zip(mask.unpacked(CPU), base.module.parameters(), module.parameters(), strict=True):
        assert torch.equal(bits(before)[~free], bits(after)[~free])
        moved += int((bits(before) != bits(after)).sum())
    assert 0.9 * mask.count < moved <= mask.count


def test_the_optimizer_remembers_nothing_of_masked_weights(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    trained(SHORT, base, shop, tmp_path)
    (path,) = tmp_path.glob("erase-*/checkpoint.pt")
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)["optimizer"]["state"]
    mask, _ = saliency_mask(base, base.module, shop.request().forget, SHORT.share, 32, shop.context(tmp_path))
    for index, free in enumerate(mask.unpacked(CPU)):
        for name in ("exp_avg", "exp_avg_sq"):
            assert not bits(state[index][name])[~free].any()
        assert bits(state[index]["exp_avg"])[free].any() or not free.any()


def test_a_resumed_run_keeps_the_mask(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, method = shop.denoiser(), dataclasses.replace(SHORT, steps=30)
    whole = trained(method, base, shop, tmp_path / "whole")
    step = torch.optim.Adam.step
    seen: list[int] = []

    def stopping(self: Any, *arguments: Any) -> Any:
        seen.append(0)
        if len(seen) == 28:
            raise InterruptedError
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", stopping)
    with pytest.raises(InterruptedError):
        trained(method, base, shop, tmp_path / "cut")
    resumed = trained(method, base, shop, tmp_path / "cut")
    assert len(seen) == 28 + 5
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(bits(one), bits(two))


def test_a_mask_of_everything_is_random_labels(shop: Any, tmp_path: Path) -> None:
    base, plain = shop.denoiser(), {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "retain_weight": 0.5}
    masked = SalUn(share=1.0, mask_samples=4, **plain).erase(base, shop.request(), shop.context(tmp_path))
    random = RandomLabel(**plain).erase(base, shop.request(), shop.context(tmp_path))
    assert masked.manifest.delta == random.manifest.delta


@pytest.mark.parametrize(("target", "cost"), [(Target.AUTO, 7), (Target.NOISE, 6)])
def test_steps_and_mask_cost_what_is_counted(shop: Any, tmp_path: Path, target: Target, cost: float) -> None:
    base = shop.denoiser()
    forwards: list[int] = []
    base.module.register_forward_hook(lambda module, given, answer: forwards.append(len(answer)))
    method = dataclasses.replace(SHORT, target=target, steps=3)
    found = method.erase(base, shop.request(), shop.context(tmp_path)).manifest.cost
    samples = 3 * 11  # 32 samples of 3 images are 11 each
    assert found["forwards_per_step"] == cost
    assert found["mask_forward_equivalents"] == 3 * samples
    assert found["forward_equivalents"] == cost * 3 * 4 + 3 * samples
    assert sum(forwards) + 2 * samples + 4 * 3 * 4 == found["forward_equivalents"]


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"mask_samples": 0}, {"retain_weight": -1.0}])
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong)


def test_a_share_below_one_weight_is_refused(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 of"):
        dataclasses.replace(SHORT, share=1e-9).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))


def test_what_cannot_be_done_is_refused_before_anything_is_computed(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser(0)
    with pytest.raises(Unsupported, match="class-conditional"):
        dataclasses.replace(SHORT, target=Target.MISMATCHED).erase(base, shop.request(), shop.context(tmp_path))
    assert base.evaluations == 0
    base.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        SHORT.erase(base, shop.request(), shop.context(tmp_path))
