"""The command that tries to draw erased concepts again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import Out, Overwrite, Seed
from vestige.dependencies import require_working_dependencies


def register(increments: typer.Typer) -> None:
    """Put it among the commands for increments."""
    increments.command("attack", epilog="Example: vestige increments attack my-sd/ inc --out attacked")(attack)


def attack(
    model: Annotated[str, typer.Argument(help="Text-to-image folder or zoo name.")],
    increment: Annotated[list[Path], typer.Argument(help="Increments of concepts, or folders that gather some.")],
    out: Out,
    attack: Annotated[
        list[str] | None, typer.Option(help="Try this attack, as `vestige ls` names it; again for more. All, if none.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of an attack, e.g. --set tokensearch.tokens=5.")
    ] = None,
    trials: Annotated[int, typer.Option(min=4, help="Prompts and starts a concept.")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Scale of guidance.")] = 4.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Try to draw erased concepts again: success against evaluations spent. Exit code: 0, 1 brought back, 3."""
    require_working_dependencies()
    import vestige.erase.recover
    from vestige.cli.display import bars, finish
    from vestige.cli.settings import by_method, with_settings
    from vestige.discover import method, methods
    from vestige.erase.recover.concept.attack import ConceptAttack
    from vestige.jobs.concept_recovery import attack_concepts
    from vestige.models.adapters.text_to_image import Drawing
    from vestige.models.sampler import DDIM

    every = methods(vestige.erase.recover, ConceptAttack)
    kinds = [method(vestige.erase.recover, ConceptAttack, name) for name in attack or []] or list(every.values())
    given = by_method(setting or [], list(every), what="attack on concepts")
    chosen = [with_settings(kind, given[kind.__name__.lower()]) for kind in kinds]
    with bars() as progress:
        done = attack_concepts(
            model,
            increment,
            out=out,
            attacks=chosen,
            trials=trials,
            drawing=Drawing(DDIM(steps, clip=False), guidance),
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done)
