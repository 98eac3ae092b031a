"""A killed, repeated or changed run: nothing is computed twice, nothing stale is taken up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vestige.errors import AlreadyExists
from vestige.jobs.audit import audit
from vestige.jobs.erase import erase
from vestige.record import Estimate, Record

GENERATIONS, STEPS = 150, 2

# Stops for good once the first shard lies on disk, so that the kill always falls in the middle.
KILLED = """
import sys, time
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.jobs.audit import audit
from vestige.models.sampler import DDIM
from vestige.progress import Silent

class Halting(Silent):
    def advance(self, task, amount, note):
        time.sleep(600)

model, train, others, out = sys.argv[1:]
attacks = [GenerateAndFilter(generations=150), DenoisingLoss(rows=6, draws=1)]
audit(model, train, non_members=others, out=out, attacks=attacks, sampler=DDIM(steps=2), progress=Halting())
"""


def numbers(record: Record) -> list[Estimate]:
    return [line for line in record.summary if not line.name.startswith("cost/")]


def run(world: Any, out: Path, **changed: Any) -> Record:
    settings = {**world.settings(GENERATIONS), **changed}
    return audit(world.plain, world.train, non_members=world.others, out=out, **settings).record


@pytest.fixture(scope="module")
def whole(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(world, out)


def test_a_killed_run_ends_as_one_that_was_not(world: Any, whole: tuple[Path, Record], tmp_path: Path) -> None:
    paths = [str(path) for path in (world.plain, world.train, world.others, tmp_path)]
    source = str(Path(__file__).parents[2] / "src")
    job = subprocess.Popen([sys.executable, "-c", KILLED, *paths], env={**os.environ, "PYTHONPATH": source})
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("store/generations-*/*.npy")):
            assert job.poll() is None, "the job ended before its first shard"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert not (tmp_path / "report.json").exists()
    assert len(list(tmp_path.glob("store/generations-*/*.npy"))) == 1
    resumed = run(world, tmp_path)
    assert numbers(resumed) == numbers(whole[1])
    assert resumed.cost.network_evaluations == whole[1].cost.network_evaluations - 64 * STEPS


def test_the_same_run_again_evaluates_nothing(world: Any, whole: tuple[Path, Record]) -> None:
    out, first = whole
    again = run(world, out)
    assert first.cost.network_evaluations == GENERATIONS * STEPS + 12
    assert again.cost.network_evaluations == 0
    assert numbers(again) == numbers(first)


def test_a_longer_run_takes_up_the_whole_shards_of_a_shorter_one(world: Any, tmp_path: Path) -> None:
    run(world, tmp_path, **world.settings(128))
    longer = run(world, tmp_path, overwrite=True)
    assert longer.cost.network_evaluations == (GENERATIONS - 128) * STEPS


def test_other_settings_need_another_folder_and_another_seed_other_shards(
    world: Any, whole: tuple[Path, Record], tmp_path: Path
) -> None:
    settings = world.settings(20)
    first = run(world, tmp_path, **settings)
    for changed, named in (({"seed": 1}, "seed"), ({"skip_corrupt": True}, "skip_corrupt")):
        with pytest.raises(AlreadyExists, match=rf"other settings \({named}\)"):
            run(world, tmp_path, **settings, **changed)
    assert Record.model_validate_json((tmp_path / "report.json").read_text()) == first
    other = run(world, tmp_path, **settings, seed=1, overwrite=True)
    assert other.cost.network_evaluations == first.cost.network_evaluations
    assert numbers(other) != numbers(first)


def test_batch_size_is_no_setting(world: Any, whole: tuple[Path, Record]) -> None:
    out, first = whole
    again = run(world, out, batch_size=7)
    assert again.cost.network_evaluations == 0
    assert again.config == first.config


def test_a_damaged_shard_is_computed_again(world: Any, tmp_path: Path) -> None:
    first = run(world, tmp_path, **world.settings(20))
    (shard,) = tmp_path.glob("store/generations-*/*.npy")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    again = run(world, tmp_path, **world.settings(20))
    assert numbers(again) == numbers(first)
    assert again.cost.network_evaluations == 20 * STEPS


def test_an_increment_is_not_replaced_unasked(world: Any, tmp_path: Path) -> None:
    from vestige.data.load import load_images
    from vestige.erase.data.erasediff import EraseDiff

    rows = load_images(world.train)[0].ids
    quick = EraseDiff(steps=1, batch_size=2)
    made = erase(world.plain, forget=f"rows:{rows[5]}", retain=world.train, out=tmp_path, method=quick)
    with pytest.raises(AlreadyExists, match="--overwrite"):
        erase(world.plain, forget=f"rows:{rows[6]}", retain=world.train, out=tmp_path, method=quick)
    other = erase(world.plain, forget=f"rows:{rows[6]}", retain=world.train, out=tmp_path, method=quick, overwrite=True)
    assert other.increment.digest != made.increment.digest
