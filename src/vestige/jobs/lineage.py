"""``vestige lineage scan``: which models of a folder belong together, as a matrix and a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vestige.digest import digest_json
from vestige.errors import EmptySet, NotFound, VestigeError
from vestige.fingerprint.card import Fingerprint, Plan
from vestige.fingerprint.compare import Judge, compare_cards
from vestige.fingerprint.publish import card_json
from vestige.jobs.fingerprint_open import is_card, open_side, read_card_file
from vestige.jobs.lineage_report import Relation, matrix, matrix_csv, not_read, sections, summary, words
from vestige.jobs.lineage_tree import Branch, grown
from vestige.jobs.run import Desk, Run, environment, now
from vestige.models.transformer.open import CONFIGURATION
from vestige.progress import Progress, Silent
from vestige.record import Record, Verdict
from vestige.store.write import write_text

_CARDS, _MATRIX = "cards", "matrix.csv"
_MOST_FILES = 1 << 16


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scan found: names in order, their cards, the relation of every two, and the tree."""

    run: Run
    names: tuple[str, ...]
    cards: tuple[Fingerprint, ...]
    relations: tuple[Relation, ...]
    tree: Branch


def scan_lineage(
    folder: str | Path,
    *,
    out: str | Path,
    judge: Judge | None = None,
    plan: Plan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scan:
    """Fingerprint every model below a folder, compare every two by their cards, and draw the tree.

    Cards are kept in ``out/cards``. One is used again while no file of its model has another size or another time of
    change, so a scan that was interrupted, or to which models were added, reads only what is new. A model that
    cannot be read is named in the report and left out. The level of the judge is divided by the number of pairs.

    Parameters
    ----------
    folder : holds transformers folders, GGUF files and cards, at any depth.
    out : folder for report, record and cards.

    Raises
    ------
    NotFound : there is no such folder. EmptySet : fewer than two models in it can be read.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.", expected="a folder with models.", remedy="check the path.")
    found = [path for path in find_models(folder) if not path.resolve().is_relative_to(out.resolve())]
    named = {path.relative_to(folder).as_posix(): path for path in found}
    config: dict[str, Any] = {"folder": str(folder), "models": {name: _stamp(path) for name, path in named.items()}}
    # New models in the folder are no other settings: the report is drawn again.
    desk = Desk(out, config, overwrite=overwrite or _same_folder(out, folder))
    listens = progress or Silent()
    cards, failed = _cards(named, out / _CARDS, plan, listens)
    if len(cards) < 2:
        raise EmptySet(
            f"{folder} holds {len(cards)} models that can be read, and {len(failed)} that cannot"
            + (f" ({failed[0][0]}: {failed[0][1].found})" if failed else "")
            + ".",
            expected="two or more transformers folders, GGUF files or cards.",
            remedy="check the path; `vestige fingerprint MODEL` says what is wrong with one of them.",
        )
    names = tuple(cards)
    relations = _relations(cards, judge or Judge(), listens)
    tree = grown(names, matrix(names, relations))
    record = Record(
        command="lineage scan",
        title=f"Lineage of {len(names)} models",
        created=now(),
        subject={
            "name": str(folder),
            "digest": digest_json({name: card.digest for name, card in cards.items()}),
            "kind": "language models",
        },
        access="cards",
        config=config,
        digests={name: card.digest for name, card in cards.items()},
        seeds={},
        environment=environment(),
        cost=desk.cost(0),
        verdict=Verdict.NONE,
        reasons=words(names, relations),
        summary=summary(names, relations),
        sections=sections(names, cards, relations, tree),
        not_done=not_read(failed),
    )
    write_text(out / _MATRIX, matrix_csv(tree.leaves, names, relations))
    return Scan(desk.finish(record, None, False), names, tuple(cards.values()), relations, tree)


def find_models(folder: Path) -> Iterator[Path]:
    """Models and cards below a folder, in order of names: folders with ``config.json``, GGUF files, cards.

    A model's folder is not looked into; hidden ones and links to folders are passed over.
    """
    if (folder / CONFIGURATION).is_file():
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from find_models(path)
        elif path.suffix == ".gguf" or (is_card(path) and _reads_as_card(path)):
            yield path


def _reads_as_card(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"vestige-fingerprint"' in file.read(256)


def _same_folder(out: Path, folder: Path) -> bool:
    """Whether ``out`` holds an earlier scan of the same folder."""
    if not (out / "report.json").exists():
        return False
    record = Run.open(out).record
    return record.command == "lineage scan" and record.config.get("folder") == str(folder)


def _stamp(path: Path) -> str:
    """Changes with the size or the time of change of any of the model's files."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())[:_MOST_FILES]
    stats = [(file.name, file.stat()) for file in files]
    return digest_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _cards(
    named: dict[str, Path], kept: Path, plan: Plan | None, progress: Progress
) -> tuple[dict[str, Fingerprint], list[tuple[str, VestigeError]]]:
    """A card for every model that can be read, and why the others cannot."""
    cards: dict[str, Fingerprint] = {}
    failed: list[tuple[str, VestigeError]] = []
    recipe = digest_json(repr(plan or Plan()))
    with progress.task("Models", len(named)) as task:
        for name, path in named.items():
            key = digest_json([name, _stamp(path), recipe])[:16]
            try:
                cards[name] = _card(path, kept / f"{Path(name).stem}-{key}.json", plan, progress)
            except VestigeError as error:
                failed.append((name, error))
            task.advance()
    return cards, failed


def _card(path: Path, kept: Path, plan: Plan | None, progress: Progress) -> Fingerprint:
    if is_card(path):
        return read_card_file(path)
    if kept.is_file():
        try:
            return read_card_file(kept)
        except VestigeError:
            kept.unlink()  # damaged, or of another version: made again
    card = open_side(path).fingerprint(plan, progress)
    write_text(kept, card_json(card) + "\n")
    return card


def _relations(cards: dict[str, Fingerprint], judge: Judge, progress: Progress) -> tuple[Relation, ...]:
    names = list(cards)
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    stricter = replace(judge, alpha=judge.alpha / len(pairs))
    found: list[Relation] = []
    with progress.task("Comparing pairs", len(pairs)) as task:
        for a, b in pairs:
            found.append(Relation(a, b, compare_cards(cards[a], cards[b], stricter)))
            task.advance()
    return tuple(found)
