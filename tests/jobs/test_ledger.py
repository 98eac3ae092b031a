"""Requests in sequence: each starts from those before it, none is done twice, all can be repeated bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vestige.data.load import load_images
from vestige.data.split import split
from vestige.erase.applied import applied, open_base
from vestige.erase.data.fine_tune import FineTune
from vestige.erase.increment import Increment
from vestige.erase.ledger import Ledger
from vestige.erase.ledger_entry import Erased
from vestige.erase.loop import Loop
from vestige.erase.workers import Workers
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, EmptySet, InvalidInput, NotFound, Unsupported
from vestige.execute import Context
from vestige.jobs.erase import Erasure, erase
from vestige.jobs.forget import request_for, rows_of
from vestige.jobs.ledger import apply_ledger, describe_ledger, replay_ledger, withdraw_increment
from vestige.jobs.run import environment
from vestige.models.adapters.diffusers import load_folder
from vestige.store import Store

QUICK = FineTune(steps=2, batch_size=4, learning_rate=1e-3)


class Desk:
    """A base, its training data and a ledger; rows are named by their number in the data."""

    def __init__(self, world: Any, root: Path) -> None:
        self.world, self.root, self.ledger = world, root, root / "requests.jsonl"
        self.ids = split(load_images(world.train)[0]).members.ids

    def forget(self, *rows: int, out: str = "one", **changed: Any) -> Erasure:
        given: dict[str, Any] = {
            "forget": "rows:" + ",".join(self.ids[row] for row in rows),
            "retain": self.world.train,
            "out": self.root / out,
            "method": QUICK,
            "ledger": self.ledger,
            "who": "Ada",
        }
        return erase(changed.pop("model", self.world.plain), **{**given, **changed})

    def replay(self, out: str = "again", **changed: Any) -> Any:
        return replay_ledger(
            self.ledger, changed.pop("model", self.world.plain), out=self.root / out, retain=self.world.train, **changed
        )

    @property
    def read(self) -> Ledger:
        return Ledger.read(self.ledger)


@pytest.fixture
def desk(world: Any, tmp_path: Path) -> Desk:
    return Desk(world, tmp_path)


def test_a_request_is_recorded_with_all_that_repeats_it(desk: Desk) -> None:
    done = desk.forget(1, 2, out="made/one", seed=3, loop=Loop(micro_batch=2), name="first")
    (entry,) = desk.read.entries
    assert isinstance(entry, Erased)
    assert entry == done.entry
    assert (entry.who, entry.method, entry.seed, entry.name, entry.folder) == (
        "Ada",
        "FineTune",
        3,
        "first",
        "made/one",
    )
    assert (
        entry.rows == list(done.increment.manifest.forgotten) == sorted([desk.ids[1], desk.ids[2]], key=desk.ids.index)
    )
    assert (entry.settings["steps"], entry.settings["learning_rate"], entry.loop["micro_batch"]) == (2, 1e-3, 2)
    assert (entry.increment, entry.delta) == (done.increment.digest, done.increment.manifest.delta)
    assert (entry.base, entry.after) == (load_folder(desk.world.plain).digest, [])
    assert (entry.environment, entry.workers) == (environment(), 1)
    assert desk.read.increment(entry).digest == done.increment.digest


def test_two_requests_in_sequence_equal_training_on_top(desk: Desk) -> None:
    first, second = desk.forget(1, out="one"), desk.forget(2, 3, out="two")
    assert second.increment.manifest.after == [first.increment.digest]
    assert second.increment.manifest.base == first.increment.manifest.base
    data = split(load_images(desk.world.train)[0])
    request = request_for(data, rows_of([desk.ids[2], desk.ids[3]], data), rows_of([desk.ids[1]], data))
    assert set(request.retain.ids) == set(desk.ids) - {desk.ids[1], desk.ids[2], desk.ids[3]}
    base = load_folder(desk.world.plain)
    on_top = QUICK.erase(applied(base, [(first.increment, 1.0)]), request, Context(Store(desk.root / "direct")))
    assert on_top.manifest.delta == second.increment.manifest.delta
    alone = QUICK.erase(base, request, Context(Store(desk.root / "alone")))
    assert alone.manifest.delta != second.increment.manifest.delta
    digest = apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "model")
    assert digest == applied(base, [(first.increment, 1.0), (second.increment, 1.0)]).digest
    back, layers = open_base(desk.root / "model")
    assert back.digest == base.digest
    assert [layer.digest for layer, _ in layers] == [first.increment.digest, second.increment.digest]
    # The applied model carries the ledger's increments; its base is found again.
    assert apply_ledger(desk.ledger, desk.root / "model", out=desk.root / "other") == digest


def test_a_request_in_the_ledger_is_refused_before_work(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.forget(1, 2)

    def work(*_: Any, **__: Any) -> Increment:
        raise AssertionError("work was done")

    monkeypatch.setattr(FineTune, "erase", work)
    before = desk.ledger.read_bytes()
    with pytest.raises(AlreadyExists, match=r"already in the ledger .* entry 1, 20.* by Ada \('one'\)"):
        desk.forget(2, out="two")
    with pytest.raises(AlreadyExists, match="is called 'one' as well"):
        desk.forget(3, out="deeper/one")
    with pytest.raises(AlreadyExists, match="is the folder of entry 1"):
        desk.forget(3, out="one", name="other", overwrite=True)
    with pytest.raises(DigestMismatch, match="of the model"):
        desk.forget(3, out="two", model=desk.world.flat)
    with pytest.raises(DigestMismatch, match="of the training data"):
        desk.forget(3, out="two", retain=load_images(desk.world.train)[0].take(range(1, 12)))
    with pytest.raises(InvalidInput, match="is no name"):
        desk.forget(3, out="two", who="two\nlines")
    with pytest.raises(InvalidInput, match="no ledger was named"):
        desk.forget(3, out="two", ledger=None)
    with pytest.raises(NotFound, match="has no class"):
        desk.forget(3, out="two", forget="class:0")
    assert desk.ledger.read_bytes() == before
    assert not (desk.root / "two").exists()


def test_of_rows_that_partly_overlap_only_the_new_are_erased(desk: Desk) -> None:
    desk.forget(1, 2)
    done = desk.forget(2, 3, 1, 5, out="two")
    assert done.forgotten_before == (desk.ids[1], desk.ids[2])
    assert done.increment.manifest.forgotten == [desk.ids[3], desk.ids[5]]
    assert desk.read.active[1].rows == [desk.ids[3], desk.ids[5]]


def test_near_duplicates_are_forgotten_once(desk: Desk) -> None:
    pixels = load_images(desk.world.train)[0].pixels.copy()
    pixels[7] = pixels[6]
    pixels[7, 0, 0, 0] ^= 1
    train = desk.world.save_images(desk.root / "near", pixels)
    desk.ids = split(load_images(train)[0]).members.ids
    assert len(desk.forget(3, retain=train).increment.manifest.forgotten) == 2
    with pytest.raises(AlreadyExists, match="its 2 rows are forgotten by entry 1"):
        desk.forget(4, retain=train, out="two")


def test_withdrawn_rows_may_be_requested_again(desk: Desk) -> None:
    first, second = desk.forget(1, out="one"), desk.forget(2, out="two")
    withdrawn = withdraw_increment(desk.ledger, "one", who="Bob")
    assert (withdrawn.entry, withdrawn.who, withdrawn.increment) == (1, "Bob", first.increment.digest)
    base = load_folder(desk.world.plain)
    digest = apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "model")
    assert digest == applied(base, [(second.increment, 1.0)]).digest
    third = desk.forget(1, 2, out="three")
    assert third.forgotten_before == (desk.ids[2],)
    assert third.increment.manifest.after == [second.increment.digest]
    assert [row[0] for row in describe_ledger(desk.ledger).rows if row[-1] == "yes"] == [2, 4]
    for name in ("two", third.increment.digest[:12]):
        withdraw_increment(desk.ledger, name)
    assert apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "bare") == base.digest


def test_an_increment_that_is_not_the_recorded_one_stops_the_next_request(desk: Desk) -> None:
    desk.forget(1, out="one")
    erase(
        desk.world.plain,
        forget=f"rows:{desk.ids[1]}",
        retain=desk.world.train,
        out=desk.root / "one",
        method=QUICK,
        seed=1,
        overwrite=True,
    )
    for work in (
        lambda: desk.forget(2, out="two"),
        lambda: apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "model"),
    ):
        with pytest.raises(DigestMismatch, match="as entry 1 of"):
            work()


def test_an_applied_model_is_no_base_of_a_ledger(desk: Desk) -> None:
    desk.forget(1, out="one")
    apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "model")
    with pytest.raises(InvalidInput, match="increments applied"):
        desk.forget(2, out="two", model=desk.root / "model", ledger=desk.root / "other.jsonl")


def results(replay: Any) -> list[tuple[Any, ...]]:
    return [(row[0], row[3], row[4], row[5]) for row in replay.table.rows]


def test_a_replay_agrees_bit_for_bit_withdrawn_ones_included(desk: Desk) -> None:
    for row, seed in ((1, 0), (2, 5)):
        desk.forget(row, out=f"request-{row}", seed=seed, loop=Loop(average=0.5) if seed == 5 else None)
    withdraw_increment(desk.ledger, "request-1")
    desk.forget(1, 4, out="request-3")
    done = desk.replay()
    assert results(done) == [(number, "same", "same", "the same") for number in (1, 2, 4)]
    assert done.same
    assert done.written
    for entry in desk.read.requests:
        folder = desk.root / "again" / f"entry-{entry.number:03d}"
        assert Increment.load(folder).digest == entry.increment
        assert not (folder / "store").exists()
    with pytest.raises(AlreadyExists, match="entry-001 already holds"):
        desk.replay()
    with pytest.raises(DigestMismatch, match="of the model"):
        desk.replay("other", model=desk.world.flat)


def rewrite(desk: Desk, **changed: Any) -> None:
    """Write the one entry of the ledger anew, chain and all."""
    (entry,) = desk.read.requests
    desk.ledger.write_text(entry.model_copy(update=changed).line + "\n")


def test_a_replay_notices_a_changed_increment(desk: Desk) -> None:
    done = desk.forget(1, out="one")
    weights = dict(done.increment.delta)
    key = next(iter(weights))
    weights[key] = weights[key] + 1e-3
    forged = Increment(replace_delta(done.increment, weights), weights)
    forged.save(desk.root / "one", overwrite=True)
    replay = desk.replay()
    assert not replay.same
    assert results(replay) == [(1, "same", "different", "the same")]
    # A ledger written anew to match the forged increment still does not repeat.
    rewrite(desk, increment=forged.digest, delta=forged.manifest.delta)
    replay = desk.replay("once more")
    assert not replay.same
    assert results(replay) == [(1, "different", "same", "the same")]
    (desk.root / "one" / "increment.safetensors").write_bytes(b"")
    assert results(desk.replay("thrice")) == [(1, "different", "damaged", "the same")]


def replace_delta(increment: Increment, delta: Any) -> Any:
    from vestige.digest import digest_tensors

    return increment.manifest.model_copy(update={"delta": digest_tensors(delta)})


def test_a_missing_increment_matters_while_it_is_active(desk: Desk) -> None:
    desk.forget(1, out="one")
    (desk.root / "one" / "increment.json").unlink()
    replay = desk.replay()
    assert (replay.same, results(replay)) == (False, [(1, "same", "missing", "the same")])
    withdraw_increment(desk.ledger, "one")
    assert desk.replay("again without").same


def test_a_replay_names_other_circumstances(desk: Desk) -> None:
    desk.forget(1, out="one")
    (entry,) = desk.read.requests
    elsewhere = entry.environment.model_copy(update={"threads": 64, "versions": {"torch": "1.0"}})
    rewrite(desk, environment=elsewhere, workers=2)
    replay = desk.replay()
    assert replay.same
    words = results(replay)[0][3]
    threads = torch.get_num_threads()
    for part in ("torch 1.0, now ", f"threads 64, now {threads}", "processes 2, now 1", "numpy none, now"):
        assert part in words


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "Oblivion"}, "the method Oblivion"),
        ({"settings": {"steps": 2, "zeal": 1}}, "the setting zeal of FineTune"),
        ({"settings": {"steps": "many"}}, "that value of the setting steps of FineTune"),
        ({"loop": {"precision": "float8"}}, "that value of the setting precision of Loop"),
    ],
)
def test_what_this_version_does_not_know_is_not_replayed(desk: Desk, changed: dict[str, Any], words: str) -> None:
    desk.forget(1, out="one")
    rewrite(desk, **changed)
    with pytest.raises(Unsupported, match=words):
        desk.replay()
    assert not (desk.root / "again").exists()


def test_non_members_are_the_unseen_images_of_a_request(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    whole = FineTune.erase

    def erase_and_keep(self: FineTune, base: Any, request: Any, context: Any, **rest: Any) -> Increment:
        asked.append(request)
        return whole(self, base, request, context, **rest)

    monkeypatch.setattr(FineTune, "erase", erase_and_keep)
    others, train = load_images(desk.world.others)[0], load_images(desk.world.train)[0]
    mixed = desk.world.save_images(desk.root / "mixed", [*others.pixels, *train.pixels[:6]])
    desk.forget(1, out="one", non_members=mixed)
    assert set(asked[-1].unseen.ids) == set(others.ids)
    desk.forget(2, out="two")
    assert asked[-1].unseen is None
    with pytest.raises(EmptySet, match="near-duplicates of training images"):
        desk.forget(3, out="three", non_members=desk.world.train)
    with pytest.raises(DigestMismatch, match="none are given"):
        desk.replay()
    with pytest.raises(DigestMismatch, match="these are"):
        desk.replay(non_members=others.take(range(5)))
    asked.clear()
    assert desk.replay(non_members=mixed).same
    assert [request.unseen is None for request in asked] == [False, True]


def test_only_the_first_of_several_processes_writes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.forget(1, out="one")
    before = desk.ledger.read_bytes()

    class Second(Workers):
        def add(self, tensors: Any) -> None:
            """Alone in this test."""

        def total(self, value: int) -> int:
            return value

    monkeypatch.setattr(Workers, "of_process", staticmethod(lambda: Second(1, 1)))
    done = desk.forget(2, out="two")
    assert not done.written
    assert done.entry is None
    assert not (desk.root / "two").exists()
    assert desk.ledger.read_bytes() == before
    assert not desk.replay().written
    assert not (desk.root / "again").exists()


def test_a_damaged_ledger_stops_every_command(desk: Desk) -> None:
    desk.forget(1, out="one")
    line = json.loads(desk.ledger.read_text())
    desk.ledger.write_text(json.dumps({**line, "who": "Eve"}, sort_keys=True, separators=(",", ":")) + "\n")
    for work in (
        lambda: desk.forget(2, out="two"),
        lambda: describe_ledger(desk.ledger),
        lambda: withdraw_increment(desk.ledger, "one"),
        lambda: apply_ledger(desk.ledger, desk.world.plain, out=desk.root / "model"),
        desk.replay,
    ):
        with pytest.raises(CorruptFile, match=r"^Line 1 of the ledger"):
            work()
    assert sorted(path.name for path in desk.root.iterdir()) == ["one", "requests.jsonl"]


def test_without_a_ledger_nothing_is_recorded(desk: Desk) -> None:
    done = desk.forget(1, ledger=None, who=None)
    assert (done.entry, done.forgotten_before, done.written) == (None, (), True)
    assert not desk.ledger.exists()
    assert replace(done, written=False) != done
