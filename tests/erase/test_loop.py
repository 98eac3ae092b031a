from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vestige.erase.applied import applied
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.fine_tune import FineTune
from vestige.erase.data.gradient_ascent import GradientAscent
from vestige.erase.data.munba import MUNBa
from vestige.erase.data.random_label import RandomLabel
from vestige.erase.data.retrain import Retrain
from vestige.erase.data.salun import SalUn
from vestige.erase.data.selective_amnesia import SelectiveAmnesia
from vestige.erase.data.sfr_on import SFRon
from vestige.erase.data.siss import SISS
from vestige.erase.driver import check_resolution
from vestige.erase.eraser import Eraser
from vestige.erase.increment import Increment
from vestige.erase.loop import Loop, Precision
from vestige.erase.workers import Workers
from vestige.errors import InvalidInput, Unsupported

METHODS: list[Eraser] = [
    EraseDiff(steps=4, batch_size=7),
    FineTune(steps=4, batch_size=7),
    GradientAscent(steps=4, batch_size=7),
    MUNBa(steps=4, batch_size=7),
    RandomLabel(steps=4, batch_size=7),
    Retrain(steps=4, batch_size=7),
    SalUn(steps=4, batch_size=7, mask_samples=16),
    SelectiveAmnesia(steps=4, batch_size=7, fisher_images=4, fisher_times=2),
    SFRon(steps=4, batch_size=7, fisher_batches=2),
    SISS(steps=4, batch_size=7),
]
NAMED = [pytest.param(method, id=type(method).__name__) for method in METHODS]


def close(one: Increment, two: Increment) -> bool:
    """Equal changes up to what a different order of sums does to Adam's steps."""
    assert one.delta.keys() == two.delta.keys()
    return all(
        float((one.delta[k] - two.delta[k]).norm()) <= 2e-3 * float(one.delta[k].norm()) + 1e-7 for k in one.delta
    )


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_memory_budget_changes_nothing_but_rounding(shop: Any, tmp_path: Path, method: Eraser, size: int) -> None:
    whole = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "whole"))
    parts = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "parts"), loop=Loop(micro_batch=size))
    assert close(whole, parts)
    assert parts.manifest.cost == whole.manifest.cost
    other = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "other", seed=1))
    assert not close(whole, other)


def test_no_more_images_than_the_budget_pass_together(shop: Any, tmp_path: Path) -> None:
    base, seen = shop.denoiser(), []
    base.module.register_forward_hook(lambda module, given, answer: seen.append(len(answer)))
    EraseDiff(steps=2, batch_size=8).erase(base, shop.request(), shop.context(tmp_path), loop=Loop(micro_batch=3))
    assert max(seen) == 3


@pytest.mark.parametrize("method", [EraseDiff(steps=40, batch_size=5), MUNBa(steps=40, batch_size=5)])
def test_a_bank_saves_the_teachers_passes(shop: Any, tmp_path: Path, method: Eraser) -> None:
    base, seen = shop.denoiser(), []
    base.module.register_forward_hook(lambda module, given, answer: seen.append(len(answer)))
    made = method.erase(base, shop.request(), shop.context(tmp_path), loop=Loop(bank=4))
    assert made.manifest.cost["forwards_per_step"] == pytest.approx(6 + 4 / 40)
    assert sum(seen) == 40 * 2 * 5 + 4 * 5
    again = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "again"), loop=Loop(bank=4))
    fresh = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "fresh"))
    assert again.digest == made.digest
    assert fresh.manifest.delta != made.manifest.delta
    assert fresh.manifest.cost["forwards_per_step"] == 7


def test_the_targets_of_a_bank_are_those_of_the_frozen_model(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vestige.erase.driver import Driver

    kept: list[Any] = []

    def watched(driver: Driver, *arguments: Any) -> Any:
        kept.append(taught(driver, *arguments))
        return kept[-1]

    taught = Driver.taught
    monkeypatch.setattr(Driver, "taught", watched)
    base = shop.denoiser()
    EraseDiff(steps=6, batch_size=5).erase(base, shop.request(), shop.context(tmp_path), loop=Loop(bank=3))
    assert all(kept[i] is kept[i + 3] for i in range(3))
    for batch in kept:
        assert not batch.target.requires_grad
        torch.testing.assert_close(batch.target, base.noise(batch.x_t, batch.t, batch.other).detach())
    assert len({batch.x_t.sum().item() for batch in kept}) == 3


@pytest.mark.parametrize("loop", [Loop(average=0.9), Loop(bank=3), Loop(micro_batch=2, average=0.5, bank=2)])
def test_an_interrupted_run_ends_alike_with_every_option(shop: Any, tmp_path: Path, loop: Loop) -> None:
    from vestige.erase.driver import Driver

    method = EraseDiff(steps=60, batch_size=4)
    whole = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "whole"), loop=loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "_advance", cut_after(Driver._advance, 40))
        with pytest.raises(InterruptedError):
            method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "cut"), loop=loop)
    assert (
        method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "cut"), loop=loop).digest == whole.digest
    )


def cut_after(advance: Any, steps: int) -> Any:
    def limited(driver: Any, index: int, step: Any) -> int:
        if index == steps:
            raise InterruptedError
        return advance(driver, index, step)

    return limited


def test_the_average_lies_between_the_base_and_the_last_weights(shop: Any, tmp_path: Path) -> None:
    method = EraseDiff(steps=10, batch_size=4)
    last = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "last"))
    mean = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "mean"), loop=Loop(average=0.9))
    assert 0 < mean.norm() < last.norm()


def test_bfloat16_computes_coarsely_and_keeps_float32_weights(shop: Any, tmp_path: Path) -> None:
    method, loop = EraseDiff(steps=5, batch_size=6), Loop(precision=Precision.BFLOAT16)
    fine = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "fine"))
    coarse = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path / "coarse"), loop=loop)
    assert all(d.dtype == torch.float32 for d in coarse.delta.values())
    assert coarse.manifest.delta != fine.manifest.delta
    one = torch.cat([fine.delta[k].flatten() for k in fine.delta])
    two = torch.cat([coarse.delta[k].flatten() for k in fine.delta])
    assert float(torch.cosine_similarity(one, two, dim=0)) > 0.9
    assert coarse.manifest.settings["precision"] == "bfloat16"
    assert "precision" not in fine.manifest.settings


def test_weights_too_coarse_for_the_steps_are_refused(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    base.module.to(torch.bfloat16)
    with pytest.raises(InvalidInput, match="too coarsely to move by 1e-05"):
        EraseDiff(learning_rate=1e-5).erase(base, shop.request(), shop.context(tmp_path))
    weights = [nn.Parameter(torch.full((4,), 1.0, dtype=torch.bfloat16))]
    # The neighbours of 1 in bfloat16 lie 2^-7 above and 2^-8 below.
    check_resolution(weights, 2**-8)
    with pytest.raises(InvalidInput, match="100%"):
        check_resolution(weights, 2**-8.1)
    check_resolution([nn.Parameter(torch.full((4,), 1.0))], 1e-12)


def test_a_class_that_the_model_does_not_have_is_refused(shop: Any, tmp_path: Path) -> None:
    request = shop.request()
    labels = np.array([0, 1, 7])
    request = dataclasses.replace(request, forget=dataclasses.replace(request.forget, labels=labels))
    with pytest.raises(InvalidInput, match=r"class 7(.|\n)*0 to 2"):
        EraseDiff().erase(shop.denoiser(), request, shop.context(tmp_path))


def test_a_later_erasure_is_trained_on_top_of_earlier_ones(shop: Any, tmp_path: Path) -> None:
    base, method = shop.denoiser(), FineTune(steps=5, batch_size=4)
    first = method.erase(base, shop.request(), shop.context(tmp_path / "a"))
    second = method.erase(base, shop.request(forget=2), shop.context(tmp_path / "b"), after=[first])
    alone = method.erase(
        applied(base, [(first, 1.0)]), shop.request(forget=2), shop.context(tmp_path / "c"), name="alone"
    )
    assert second.manifest.after == [first.digest]
    assert second.manifest.base == base.digest
    assert second.manifest.delta == alone.manifest.delta


@pytest.mark.parametrize("method", [m for m in METHODS if not isinstance(m, Retrain)], ids=lambda m: type(m).__name__)
def test_every_method_can_be_held_to_a_low_rank(shop: Any, tmp_path: Path, method: Eraser) -> None:
    pytest.importorskip("peft")
    base = shop.denoiser()
    made = method.erase(base, shop.request(), shop.context(tmp_path), loop=Loop(rank=2, average=0.5))
    assert all(int(torch.linalg.matrix_rank(d, rtol=1e-3)) <= 2 for d in made.delta.values())
    assert set(made.delta) <= {name for name, p in base.module.named_parameters() if p.ndim == 2}
    assert all(p.requires_grad for p in base.module.parameters())
    assert applied(base, [(made, 1.0)]).digest != base.digest


def test_a_network_trained_anew_is_not_of_low_rank(shop: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(Unsupported, match="low-rank"):
        Retrain(steps=1).erase(shop.denoiser(), shop.request(), shop.context(tmp_path), loop=Loop(rank=2))


@pytest.mark.parametrize(
    "wrong", [{"micro_batch": -1}, {"average": 1.0}, {"bank": -2}, {"rank": -1}, {"stop_every": 0}]
)
def test_senseless_loops_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Loop(**wrong)


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import conftest
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.salun import SalUn
from vestige.erase.data.sfr_on import SFRon
from vestige.erase.loop import Loop
from vestige.erase.workers import Workers

shop, out = conftest.Workshop(conftest.denoiser, conftest.images), Path(sys.argv[1])
for method in (EraseDiff, SFRon, SalUn):
    made = method(steps=4, batch_size=7).erase(
        shop.denoiser(), shop.request(), shop.context(out / "work"), loop=Loop(bank=2)
    )
    if Workers.of_process().rank == 0:
        made.save(out / method.__name__)
"""


def test_two_processes_do_what_one_does(shop: Any, tmp_path: Path) -> None:
    script, here = tmp_path / "worker.py", Path(__file__).parent
    script.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path), str(here)], check=True, env=environment, timeout=300)
    for method in (EraseDiff, SFRon, SalUn):
        two = Increment.load(tmp_path / method.__name__)
        one = method(steps=4, batch_size=7).erase(
            shop.denoiser(), shop.request(), shop.context(tmp_path / "alone"), loop=Loop(bank=2)
        )
        assert close(one, two)
        assert one.manifest.cost == two.manifest.cost


def test_more_processes_than_images_are_refused(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "of_process", staticmethod(lambda: Workers(0, 5)))
    with pytest.raises(InvalidInput, match="5 processes share a batch of 4"):
        FineTune(steps=1, batch_size=4).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
