from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vestige.erase.increment import Increment
from vestige.erase.low_rank import attach, merge
from vestige.errors import InvalidInput, MissingExtra, Unsupported

RANK = 2


class Small(nn.Module):
    """Layers of every kind, and names that contain one another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.first = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.body = nn.Sequential(nn.Conv2d(6, 5, (1, 2)), nn.SiLU(), nn.Sequential(nn.Linear(10, 7), nn.Linear(7, 1)))
        self.one = nn.Linear(4, 7, bias=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        hidden = self.body[1](self.body[0](self.norm(self.first(x)))).flatten(1)
        return self.body[2][1](self.body[2][0](hidden) + self.one(self.embed(label)))


def small() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return Small(), (torch.randn(2, 1, 4, 4), torch.tensor([0, 2]))


def unet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=3,
    )
    return network.eval(), (torch.randn(2, 1, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 2]))


def tiny(shop: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return shop.denoiser().module, (torch.randn(2, 1, 6, 6), torch.rand(2), torch.tensor([0, 2]))


@pytest.fixture(params=["small", "unet", "tiny"])
def made(request: pytest.FixtureRequest, shop: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return {"small": small, "unet": unet, "tiny": lambda: tiny(shop)}[request.param]()


def answer(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        found = module(*inputs)
    return found if isinstance(found, Tensor) else found.sample


def move(module: nn.Module, seed: int = 1) -> None:
    """Random A and B, as after some training."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=random))


def takes(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)]


def test_the_function_is_unchanged_at_first_and_only_additions_train(made: Any) -> None:
    module, inputs = made
    layers, before = takes(module), answer(module, inputs)
    frozen = set(module.parameters())
    attach(module, RANK, seed=3)
    torch.testing.assert_close(answer(module, inputs), before, rtol=0, atol=0)
    assert not any(weight.requires_grad for weight in frozen)
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert trained == {f"{layer}.lora_{side}.vestige.weight" for layer in layers for side in "AB"}
    answered = module(*inputs)
    (answered if isinstance(answered, Tensor) else answered.sample).square().sum().backward()
    for layer in layers:
        assert module.get_submodule(layer).lora_B.vestige.weight.grad.abs().sum() > 0, layer


def test_merging_adds_the_product_of_the_factors(made: Any) -> None:
    module, inputs = made
    before = copy.deepcopy(module.state_dict())
    attach(module, RANK, seed=3)
    move(module)
    wanted = dict(before)
    for name in [name for name, layer in module.named_modules() if hasattr(layer, "lora_A")]:
        layer: Any = module.get_submodule(name)
        a, b = layer.lora_A.vestige.weight, layer.lora_B.vestige.weight
        old = before[f"{name}.weight"]
        if old.dim() == 2:
            product = torch.einsum("or,ri->oi", b.double(), a.double())
        else:
            product = torch.einsum("or,rihw->oihw", b[:, :, 0, 0].double(), a.double())
        assert layer.scaling == {"vestige": 1.0}
        wanted[f"{name}.weight"] = old.double() + product
    attached = answer(module, inputs)
    merge(module)
    after = module.state_dict()
    assert [(name, value.shape, value.dtype) for name, value in after.items()] == [
        (name, value.shape, value.dtype) for name, value in before.items()
    ]
    for name, value in wanted.items():
        torch.testing.assert_close(after[name], value.to(after[name].dtype), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(answer(module, inputs), attached, rtol=1e-4, atol=1e-4)
    assert not any("lora" in type(layer).__module__ for layer in module.modules())
    assert not hasattr(module, "peft_config")


def test_no_change_has_a_higher_rank_than_was_asked_for() -> None:
    module, _ = small()
    module = module.double()
    before = copy.deepcopy(module)
    attach(module, RANK, seed=3)
    move(module)
    merge(module)
    made = Increment.between(before, module, name="n", base_digest="b", method="LoRA", settings={})
    assert set(made.delta) == {f"{name}.weight" for name in takes(before)}
    # Beside the product a change holds only what rounding the sum to 53 bits left.
    ranks = {k: int(torch.linalg.matrix_rank(d.flatten(1), rtol=1e-9)) for k, d in made.delta.items()}
    assert ranks == {k: min(RANK, *d.flatten(1).shape) for k, d in made.delta.items()}


def test_a_high_rank_is_cut_to_what_a_layer_can_use() -> None:
    module, _ = small()
    attach(module, 1000, seed=0)
    ranks = {name: layer.r["vestige"] for name, layer in module.named_modules() if hasattr(layer, "lora_A")}
    assert ranks == {"first": 6, "body.0": 5, "body.2.0": 7, "body.2.1": 1, "one": 4}
    # The name of one layer is the end of another's.
    nested: Any = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 1), nn.Conv2d(3, 3, 1), nn.Linear(2, 5)))
    attach(nested, 1000, seed=0)
    assert [nested[0].r["vestige"], *(layer.r["vestige"] for layer in nested[1])] == [3, 1, 3, 2]


def test_the_seed_decides_and_nothing_else_is_drawn() -> None:
    starts = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        module, _ = small()
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        attach(module, RANK, seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        starts.append({k: v.detach() for k, v in module.named_parameters() if "lora_A" in k})
        for value in starts[-1].values():
            assert value.abs().max() <= value[0].numel() ** -0.5 < 2 * value.abs().max()
    one, same, other = starts
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not any(torch.equal(value, other[name]) for name, value in one.items())
    values = [value.flatten()[0] for value in one.values()]
    assert len(set(map(float, values))) == len(values)


def test_what_was_frozen_stays_and_flags_come_back() -> None:
    module, _ = small()
    module.first.weight.requires_grad_(False)
    module.norm.bias.requires_grad_(False)
    flags = {name: weight.requires_grad for name, weight in module.named_parameters()}
    before = copy.deepcopy(module.state_dict())
    attach(module, RANK, seed=0)
    # A copy of an attached network is attached too.
    module = copy.deepcopy(module)
    assert not hasattr(module.first, "lora_A")
    move(module)
    merge(module)
    assert {name: weight.requires_grad for name, weight in module.named_parameters()} == flags
    assert torch.equal(module.first.weight, before["first.weight"])
    assert not torch.equal(module.one.weight, before["one.weight"])


def test_untrained_additions_leave_every_bit() -> None:
    module, _ = small()
    with torch.no_grad():
        module.one.weight.fill_(-0.0)
    attach(module, RANK, seed=0)
    merge(module)
    assert torch.signbit(module.one.weight).all()
    attach(module, RANK, seed=0)
    merge(module)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_coarse_weights_are_rounded_once(kind: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(5, 4)).to(kind)
    before = module[0].weight.detach().clone()
    attach(module, RANK, seed=0)
    move(module)
    layer: Any = module[0]
    product = layer.lora_B.vestige.weight.double() @ layer.lora_A.vestige.weight.double()
    merge(module)
    assert module[0].weight.dtype == kind
    assert torch.equal(module[0].weight, (before.double() + product).to(kind))


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _shared() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    return module


def _frozen() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3)).requires_grad_(False)


def _twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.LayerNorm(3), nn.Embedding(2, 2)),
        lambda: nn.Linear(3, 3),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")),
        lambda: nn.Sequential(Doubled(3, 3)),
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3))),
        _shared,
        _twice,
        _frozen,
    ],
)
def test_layers_that_no_addition_fits_are_refused(build: Callable[[], nn.Module]) -> None:
    module = build()
    flags = [weight.requires_grad for weight in module.parameters()]
    with pytest.raises(Unsupported, match="low-rank"):
        attach(module, RANK, seed=0)
    assert [weight.requires_grad for weight in module.parameters()] == flags


def test_bad_requests_are_refused() -> None:
    module, _ = small()
    for rank in (0, -1):
        with pytest.raises(InvalidInput, match="The rank is"):
            attach(module, rank, seed=0)
    with pytest.raises(InvalidInput, match="seed"):
        attach(module, RANK, seed=-1)
    with pytest.raises(InvalidInput, match="carries no low-rank additions"):
        merge(module)
    attach(module, RANK, seed=0)
    with pytest.raises(InvalidInput, match="adapters already"):
        attach(module, RANK, seed=0)
    merge(module)
    with pytest.raises(InvalidInput, match="carries no low-rank additions"):
        merge(module)


def test_a_missing_peft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vestige.dependencies.find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "peft", raising=False)
    with pytest.raises(MissingExtra, match=r"vestige\[lowrank\]"):
        attach(small()[0], RANK, seed=0)


def test_a_merged_unet_is_saved_like_any_other(tmp_path: Path) -> None:
    module, inputs = unet()
    attach(module, RANK, seed=0)
    move(module)
    merge(module)
    module.save_pretrained(tmp_path)
    back = UNet2DModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(answer(back, inputs), answer(module, inputs), rtol=0, atol=0)
