"""Verifying an increment that was made on top of earlier ones: these are applied first, by name or from a ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vestige.data.load import load_images
from vestige.data.split import split
from vestige.erase.applied import applied
from vestige.erase.data.fine_tune import FineTune
from vestige.errors import CorruptFile, DigestMismatch, InvalidInput, NotFound
from vestige.jobs.audit import audit
from vestige.jobs.erase import Erasure, erase
from vestige.jobs.ledger import withdraw_increment
from vestige.jobs.run import Run
from vestige.jobs.stack import Stack
from vestige.jobs.traces import Probe
from vestige.jobs.verify import _retrained, verify
from vestige.models.adapters.diffusers import load_folder
from vestige.models.denoiser import Denoiser
from vestige.record import Record
from vestige.zoo import zoo_model

QUICK = FineTune(steps=2, batch_size=4, learning_rate=1e-3)
PROBE = Probe(draws=1, rows=20)


@dataclass(frozen=True)
class Requests:
    """A model that was audited, and three requests of one row each, every one on top of those before it."""

    world: Any
    root: Path
    run: Run
    made: tuple[Erasure, Erasure, Erasure]
    ids: list[str]

    @property
    def ledger(self) -> Path:
        return self.root / "requests.jsonl"

    @property
    def base(self) -> Denoiser:
        return load_folder(self.world.flat)

    def digest(self, *chosen: int) -> str:
        return applied(self.base, [(self.made[i].increment, 1.0) for i in chosen]).digest

    def stack(self, number: int, **given: Any) -> Stack:
        return Stack.of(self.made[number], self.base.digest, **given)

    def verify(self, number: int, out: Path, **given: Any) -> Record:
        return verify(
            self.world.flat, increment=self.made[number], against=self.run, out=out, probe=PROBE, **given
        ).record


@pytest.fixture
def requests(world: Any, tmp_path: Path) -> Requests:
    run = audit(world.flat, world.train, non_members=world.others, out=tmp_path / "run", **world.settings())
    ids = list(split(load_images(world.train)[0]).members.ids)
    given: dict[str, Any] = {"retain": world.train, "method": QUICK, "ledger": tmp_path / "requests.jsonl"}
    first, second, third = (
        erase(world.flat, forget=f"rows:{ids[row]}", out=tmp_path / name, **given)
        for row, name in ((0, "one"), (1, "two"), (2, "three"))
    )
    return Requests(world, tmp_path, run, (first, second, third), ids)


def test_those_below_are_applied_first(requests: Requests, tmp_path: Path) -> None:
    one, two, three = requests.made
    record = requests.verify(2, tmp_path / "check", below=[one, two.folder])
    assert record.digests["erased"] == requests.digest(0, 1, 2) != requests.digest(2)
    assert record.digests["base"] == requests.base.digest
    assert record.digests["increment"] == three.increment.digest
    assert record.config["below"] == [one.increment.digest, two.increment.digest]
    assert record.estimate("restore/bit_exact").value == 1
    # Before is the base without any of them, and only the row of the third request is judged: the memorized image is
    # of the first.
    before = record.estimate("erase/extracted_before")
    assert (before.value, before.n) == (0, 1)
    sections = {section.name: section for section in record.sections}
    assert "Below the increment, on the base, lie 'one'" in sections["forgetting"].text[-1]
    # Of nine distinct images three are forgotten in all.
    assert sections["retention"].tables[0].caption.startswith("6 members")
    assert requests.verify(2, tmp_path / "again", ledger=requests.ledger).digests == record.digests


def test_without_those_below_the_remedy_names_the_option(requests: Requests) -> None:
    one, two, _ = requests.made
    for below in ([], [one], [two], [two, one]):
        with pytest.raises(InvalidInput, match="was trained on top of") as caught:
            requests.stack(2, below=below)
        assert "--below" in caught.value.remedy
        assert "--ledger" in caught.value.remedy
    assert requests.stack(2, below=[one, two]).below == (one.increment, two.increment)
    assert requests.stack(0).below == ()
    with pytest.raises(InvalidInput, match="2 increments below were given"):
        requests.stack(2, below=[one, two], ledger=requests.ledger)


def test_a_ledger_gives_what_is_active_up_to_the_increment(requests: Requests) -> None:
    one, two, _ = requests.made
    assert [each.digest for each in requests.stack(1, ledger=requests.ledger).below] == [one.increment.digest]
    assert requests.stack(1, ledger=requests.ledger).words.endswith("neither retained nor counted.")
    withdraw_increment(requests.ledger, "one")
    stack = requests.stack(2, ledger=requests.ledger)
    assert stack.below[0].digest == two.increment.digest
    assert stack.withdrawn == (one.increment.digest,)
    assert stack.on(requests.base).digest == requests.digest(1, 2)
    assert f"{one.increment.digest[:12]}, which the ledger has withdrawn since" in stack.words
    with pytest.raises(NotFound, match="No active increment"):
        requests.stack(0, ledger=requests.ledger)


def test_what_lies_below_must_be_sound(requests: Requests, tmp_path: Path) -> None:
    world, one = requests.world, requests.made[0]
    other = erase(
        world.plain, forget=f"rows:{requests.ids[0]}", retain=world.train, out=tmp_path / "other", method=QUICK
    )
    with pytest.raises(DigestMismatch):
        requests.stack(0, below=[other])
    with pytest.raises(DigestMismatch):
        Stack.of(one, load_folder(world.plain).digest)
    with pytest.raises(DigestMismatch, match="of the model"):
        Stack.of(other, load_folder(world.plain).digest, ledger=requests.ledger)
    with pytest.raises(NotFound, match="cannot be read"):
        requests.stack(0, ledger=tmp_path / "absent")
    (one.folder / "increment.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFile):
        requests.stack(1, ledger=requests.ledger)


def test_the_command_takes_them_by_folder_or_from_a_ledger(
    requests: Requests, cli: Callable[..., Any], tmp_path: Path
) -> None:
    given = ["--increment", tmp_path / "two", "--against", requests.run.folder]
    answer = cli("verify", requests.world.flat, *given, "--out", tmp_path / "refused")
    assert (answer.code, answer.out) == (2, "")
    assert "pass --below FOLDER" in answer.err
    below = ("--below", tmp_path / "one")
    answer = cli("verify", requests.world.flat, *given, *below, "--out", tmp_path / "check")
    assert answer.code in (1, 3)
    assert f"apply {requests.world.flat} {tmp_path / 'one'} {tmp_path / 'two'} --out" in answer.out
    ledger = ("--ledger", requests.ledger)
    answer = cli("verify", requests.world.flat, *given, *ledger, "--out", tmp_path / "check")
    assert answer.code in (1, 3)
    assert f"vestige ledger apply {requests.ledger}" in answer.out


def test_the_zoos_reference_is_taken_where_it_hardly_saw_the_forgotten() -> None:
    entry = zoo_model("digits-ddpm")
    who = split(entry.training_data())
    reference = entry.reference
    assert reference is not None
    seen = np.isin(who.members.ids, reference.training_data().ids)
    planted, others = np.flatnonzero(~seen), np.flatnonzero(seen)
    none = np.empty(0, np.int64)
    assert _retrained(entry, who, planted, none) == ("digits-ddpm-retrained", "")
    assert _retrained(entry, who, planted[:5], planted[5:]) == ("digits-ddpm-retrained", "")
    name, words = _retrained(entry, who, np.array([*planted[:19], others[0]]), none)
    assert name == "digits-ddpm-retrained"
    assert "saw 1 of the 20" in words
    assert _retrained(entry, who, np.array([*planted[:8], others[0]]), none) == (None, "")
    assert _retrained(entry, who, others, none) == _retrained(None, who, others, none) == (None, "")
