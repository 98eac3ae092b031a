"""The comparison of erasers: budgets, resumption, refusals, and what the distances say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.fine_tune import FineTune
from vestige.erase.data.salun import SalUn
from vestige.erase.driver import Driver
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, NotFound, Unsupported
from vestige.features.extractor import Classifier
from vestige.jobs import bench_erase as room
from vestige.jobs.bench_erase import Plan, bench_erase, named_erasers
from vestige.jobs.bench_erase_plan import Bench, Price, Regime
from vestige.jobs.bench_erase_score import QUANTITIES, Trial, Yardstick
from vestige.jobs.forget import forgotten_rows, request_for
from vestige.jobs.traces import Probe
from vestige.metrics.interval import Interval
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.sampler import DDIM
from vestige.models.schedule import Cosine
from vestige.progress import Silent

CLASSES = 3


class Tiny(nn.Module):
    """One hidden layer over 4x4 pixels, time and class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CLASSES, 4)
        self.body = nn.Sequential(nn.Linear(16 + 4 + 1, 24), nn.SiLU(), nn.Linear(24, 16))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        label = torch.zeros(len(x), dtype=torch.long) if condition is None else condition
        return self.body(torch.cat([x.flatten(1), self.embed(label), t[:, None]], 1)).view_as(x)


class Rows(Classifier):
    """Tells classes by the mean of the upper rows of an image; four features."""

    def features(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return pixels.reshape(len(pixels), 4, -1).mean(2) / 255.0

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        logits = np.exp(4 * self.features(pixels)[:, :CLASSES])
        return logits / logits.sum(1, keepdims=True)

    @property
    def digest(self) -> str:
        return "rows"

    @property
    def name(self) -> str:
        return "row means"


@dataclass(frozen=True)
class Refusing(Eraser):
    """Never runs."""

    claim: ClassVar[str] = "nothing"
    source: ClassVar[str] = "none"

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        raise Unsupported("This method refuses.", expected="another method.", remedy="leave it out.")


def model(seed: int = 0) -> FunctionDenoiser:
    torch.manual_seed(seed)
    return FunctionDenoiser(Tiny(), Cosine(), Prediction.NOISE, (1, 4, 4), identity="tiny", classes=CLASSES)


def images(seed: int, count: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % CLASSES, f"images {seed}")


QUICK: dict[str, Any] = {"batch_size": 4}
SETTINGS: dict[str, Any] = {"generations": 81, "probe": Probe(draws=1, rows=12)}


def run(out: Path, *erasers: Eraser, **options: Any) -> Any:
    plan = {**SETTINGS, **{k: options.pop(k) for k in ("seeds", "budget", "regimes") if k in options}}
    given: dict[str, Any] = {"forget": "class:0", "retain": images(0, 30 * CLASSES), "judge": Rows()}
    given |= {"non_members": images(1, 30), "sampler": DDIM(steps=2), **options}
    return bench_erase(model(), out=out, plan=Plan(tuple(erasers), **plan), **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("bench")
    erasers = (EraseDiff(steps=3, **QUICK), SalUn(steps=2, mask_samples=8, **QUICK), Refusing())
    return run(out, *erasers, seeds=2, budget=150.0, reference=model(7))


def test_methods_share_one_budget_and_keep_their_own_steps(done: Any) -> None:
    numbers = json.loads((done.folder / "measurements.json").read_text())
    trials = {(t["method"], r): t for t in numbers["trials"] for r in t["regimes"]}
    assert set(trials) == {(m, r) for m in ("EraseDiff", "SalUn") for r in ("equal", "default")}
    for (_, regime), trial in trials.items():
        price = trial["price"]
        for erasure in trial["erasures"]:
            spent = erasure["cost"]["forward_equivalents"]
            assert spent == pytest.approx(price["fixed"] + price["step"] * trial["steps"])
            if regime == "equal":
                assert spent <= 150 < spent + price["step"]
    assert trials["EraseDiff", "equal"]["steps"] == 5  # 28 forward-equivalents a step
    assert trials["EraseDiff", "default"]["steps"] == 3
    assert trials["SalUn", "default"]["steps"] == 2
    assert trials["SalUn", "equal"]["price"]["parts"] == {"mask": 24.0}
    assert [e["seed"] for e in trials["SalUn", "equal"]["erasures"]] == [0, 1]


def test_every_quantity_is_measured_with_n_and_interval_and_compared_with_the_retrained(done: Any) -> None:
    numbers = json.loads((done.folder / "measurements.json").read_text())
    for name in QUANTITIES:
        assert name in numbers["original"], name
        value, low, high, n = numbers["retrained"][name]
        assert low <= value <= high
        assert n >= 1
    for name in ("frechet_original", "pixel_distance", "feature_distance", "weight_distance"):
        assert numbers["original"][f"retention/{name}"][0] == pytest.approx(0, abs=1e-6)
        assert numbers["retrained"][f"retention/{name}"][0] > 0
    assert numbers["original"]["retention/loss_ratio"][0] == 1
    line = done.record.estimate("EraseDiff@equal/forgetting/class_probability")
    assert line.n == 2
    assert line.low <= line.value <= line.high
    tables = {t.name: t for s in done.record.sections for t in s.tables}
    assert {"comparison", "forgetting", "forgetting-difference", "retention", "retention-difference", "cost"} <= {
        *tables
    }
    distances = [t["distance"]["overall"][0] for t in numbers["trials"] if t["distance"]["overall"]]
    assert distances == sorted(distances)
    assert [row[0] for row in tables["comparison"].rows[:4]] == [t["method"] for t in numbers["trials"]]
    page = (done.folder / "report.html").read_text()
    assert "Forgetting against retention" in page


def test_a_method_that_cannot_be_run_is_listed_and_the_others_go_on(done: Any) -> None:
    refused = [item for item in done.record.not_done if item.what.startswith("Refusing")]
    assert len(refused) == 2
    assert all(item.reason == "This method refuses." for item in refused)
    assert sum(row[0] == "Refusing" for row in done.record.sections[0].tables[0].rows) == 2


def test_nothing_is_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eraser = FineTune(steps=2, **QUICK)
    first = run(tmp_path, eraser, seeds=1, regimes=(Regime.DEFAULT,))
    assert not list(tmp_path.glob("erased/*/*/store"))
    monkeypatch.setattr(Eraser, "erase", lambda *_, **__: pytest.fail("erased again"))
    monkeypatch.setattr(FunctionDenoiser, "forward", lambda *_, **__: pytest.fail("measured again"))
    again = run(tmp_path, eraser, seeds=1, regimes=(Regime.DEFAULT,))
    assert again.record.summary == first.record.summary
    assert again.record.sections == first.record.sections


def test_steps_that_are_the_same_in_both_regimes_are_run_once(tmp_path: Path) -> None:
    found = run(tmp_path, FineTune(steps=2, **QUICK), seeds=1, budget=2.5 * 12)
    numbers = json.loads((tmp_path / "measurements.json").read_text())
    assert [t["regimes"] for t in numbers["trials"]] == [["equal", "default"]]
    assert len(list((tmp_path / "erased").iterdir())) == 1
    assert found.record.estimate("FineTune@both/cost/steps").value == 2
    assert found.record.estimate("FineTune@both/forgetting/residue").low is None  # one erasure bounds nothing


def test_without_a_retrained_model_stand_ins_are_named(tmp_path: Path) -> None:
    found = run(tmp_path, FineTune(steps=2, **QUICK), seeds=1, regimes=(Regime.DEFAULT,), forget="class:1")
    assert any(item.what == "distance from a retrained model" for item in found.record.not_done)
    assert "stand-ins" in found.record.sections[0].text[1]
    assert "retrained" not in {row[0] for row in found.record.sections[0].tables[0].rows}


def test_the_default_budget_is_what_erasediff_costs_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EraseDiff", lambda: EraseDiff(steps=6, **QUICK))
    run(tmp_path, FineTune(steps=2, **QUICK), seeds=1, regimes=(Regime.EQUAL,))
    numbers = json.loads((tmp_path / "measurements.json").read_text())
    assert numbers["budget"] == 6 * 7 * 4
    assert numbers["trials"][0]["steps"] == 6 * 7 // 3


def test_single_images_are_forgotten_by_duplicate_group(tmp_path: Path) -> None:
    data = images(0, 60)
    twice = ImageSet(np.concatenate([data.pixels, data.pixels[:1]]), np.append(data.labels, data.labels[0]), "twice")  # type: ignore[arg-type]
    gone = ",".join(data.ids[:3])
    eraser = FineTune(steps=2, **QUICK)
    found = run(tmp_path, eraser, seeds=1, regimes=(Regime.DEFAULT,), forget=f"rows:{gone}", retain=twice)
    names = [line.name for line in found.record.summary]
    assert "original/forgetting/residue@copies=1" in names
    assert "original/forgetting/residue@copies=2-3" in names
    assert not any("class_probability" in name for name in names)
    assert found.record.sections[0].figures[0].x_label.startswith("residue")


def test_bad_requests_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="EraseDiff"):
        named_erasers(["erasedif"])
    with pytest.raises(InvalidInput, match="itself"):
        named_erasers(["SalUn", "salun"])
    with pytest.raises(InvalidInput, match="--seeds"):
        Plan(seeds=0)
    with pytest.raises(InvalidInput, match="positive budget"):
        Plan(budget=0.0)
    with pytest.raises(InvalidInput, match="does not pay for one step of FineTune"):
        run(tmp_path, FineTune(**QUICK), seeds=1, budget=11.0, regimes=(Regime.EQUAL,))
    assert not (tmp_path / "report.json").exists()


def test_prices_are_the_difference_of_two_erasures(tmp_path: Path) -> None:
    who = split(images(0, 30))
    bench = Bench(model(), request_for(who, forgotten_rows("class:0", who)), tmp_path, 8, Silent())
    for eraser in (EraseDiff(steps=9, **QUICK), SalUn(steps=9, mask_samples=8, **QUICK)):
        one, two = (bench.make(type(eraser)(**{**eraser.__dict__, "steps": n}), 0).spent for n in (1, 2))
        price = bench.price(eraser, 0)
        assert (price.step, price.fixed) == pytest.approx((two - one, 2 * one - two))
        assert bench.make(eraser, 0).spent == pytest.approx(price.total(9))


def test_a_method_whose_later_steps_cost_more_stays_within_the_budget(tmp_path: Path) -> None:
    who = split(images(0, 30))
    bench = Bench(model(), request_for(who, forgotten_rows("class:0", who)), tmp_path, 8, Silent())
    chosen = bench.within(Dearer(**QUICK), 100.0, 0)
    assert bench.make(chosen, 0).spent <= 100
    assert chosen.steps > 1


@dataclass(frozen=True)
class Dearer(FineTune):
    """Fine-tuning that says its steps cost more the more there are."""

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        cost = super().train(driver, request)
        return {**cost, "forward_equivalents": cost["forward_equivalents"] * (1 + self.steps / 10)}


def test_steps_within_a_budget() -> None:
    price = Price(100.0, 28.0, {})
    assert price.steps_within(128.0, "m") == 1
    assert price.steps_within(156.0, "m") == 2
    assert price.steps_within(155.9, "m") == 1
    with pytest.raises(InvalidInput, match=r"at least 128"):
        price.steps_within(127.0, "m")


def exact(value: float, half: float = 0.0) -> Interval:
    return Interval(value, value - half, value + half, 9)


def test_distances_count_from_the_retrained_on_either_side() -> None:
    original = {"forgetting/residue": exact(10, 1), "forgetting/membership": exact(0.6, 0.2)}
    original |= {"retention/loss_ratio": exact(1.0), "retention/frechet_data": exact(4)}
    retrained = {"forgetting/residue": exact(50, 1), "forgetting/membership": exact(0.5, 0.1)}
    retrained |= {"retention/loss_ratio": exact(1.0), "retention/frechet_data": exact(5)}
    yard = Yardstick.of(original, retrained)
    assert yard.telling == ("forgetting/residue",)  # the AUCs' intervals meet
    assert yard.forgetting(original) == 1
    assert yard.forgetting(retrained) == 0
    assert yard.forgetting({"forgetting/residue": exact(90)}) == 1  # forgotten too far
    assert yard.retention({"retention/loss_ratio": exact(1.1), "retention/frechet_data": exact(6)}) == pytest.approx(
        0.15
    )
    assert yard.overall({**retrained, "retention/frechet_data": exact(6)}) == pytest.approx(0.05)
    assert math.isnan(yard.forgetting({}))
    assert math.isnan(yard.overall({"retention/loss_ratio": exact(1.0)}))  # doing nothing must not win


def test_stand_ins_take_the_unseen_level() -> None:
    original = {"forgetting/residue": exact(10, 1), "forgetting/residue_unseen": exact(50, 1)}
    original |= {"forgetting/extracted": Interval(3.0, 1.0, 5.0, 9), "retention/loss_ratio": exact(1.0)}
    yard = Yardstick.of(original, None)
    assert set(yard.telling) == {"forgetting/residue"}  # 3 of 9 does not tell from 0 of 9
    assert yard.forgetting({"forgetting/residue": exact(30), "forgetting/extracted": exact(0)}) == pytest.approx(0.5)
    many = Yardstick.of({**original, "forgetting/extracted": Interval(8.0, 6.0, 9.0, 9)}, None)
    assert set(many.telling) == {"forgetting/residue", "forgetting/extracted"}
    assert many.forgetting({"forgetting/residue": exact(30), "forgetting/extracted": exact(0)}) == pytest.approx(0.25)


def test_trials_average_over_seeds() -> None:
    made = [{"retention/loss_ratio": exact(v)} for v in (1.0, 1.2)]
    trial = Trial("m", (Regime.EQUAL,), 1, Price(0, 1, {}), [], made)
    found = trial.value("retention/loss_ratio")
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(1.1), 2)
    assert found.high - found.value == pytest.approx(12.706 * 0.1, rel=1e-3)
    assert trial.value("forgetting/residue") is None


def test_the_command_line_names_what_is_wrong(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ("bench", "erase", "digits-ddpm", "--forget", "class:0", "--out", tmp_path / "out")
    unknown = cli(*command, "--methods", "erasediff,nope")
    assert unknown.code == 2
    assert "No eraser is called 'nope'" in unknown.err
    assert "SalUn" in unknown.err
    assert "at least 1" in cli(*command, "--seeds", 0).err
    assert "No regime" in cli(*command, "--regime", "fair").err
    assert "names no method of this comparison" in cli(*command, "--methods", "salun", "--set", "erasediff.steps=3").err
    assert "does not name a setting" in cli(*command, "--methods", "salun", "--set", "salun.stepps=3").err
