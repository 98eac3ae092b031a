"""The commands that erase, verify an erasure, and handle the increments that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.concepts import Asked, erase_named
from vestige.cli.concepts import register as register_concepts
from vestige.cli.options import NullCondition, Out, Overwrite, Seed, ShowImages, SkipCorrupt
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput

increments = typer.Typer(help="Show, apply, remove and compose increments.", no_args_is_help=True)

_ERASE = (
    "Examples: vestige erase my-ddpm/ --forget run --retain train/ --out increment"
    "  |  vestige erase my-ddpm/ --forget rows.txt --retain train/ --ledger requests.jsonl --out request-2"
    "  |  vestige erase my-sd/ --concept outlined --concept red --captions prompts.txt --out inc"
)
_VERIFY = (
    "Examples: vestige verify my-ddpm/ --increment increment --against run --out check"
    "  |  vestige verify my-ddpm/ --increment request-2 --ledger requests.jsonl --against run --out check"
)


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command(epilog=_ERASE)(erase)
    app.command(epilog=_VERIFY)(verify)
    app.add_typer(increments, name="increments")
    register_concepts(increments)


def erase(
    model: Annotated[str, typer.Argument(help="diffusers folder or zoo name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the increment, or of those of the concepts.")],
    forget: Annotated[
        str | None, typer.Option(help="Audit run, rows:ID,ID, class:LABEL, images, or a text file of ids.")
    ] = None,
    concept: Annotated[
        list[str] | None, typer.Option(help="Of a text-to-image model: a concept to erase; again for more.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="With --concept: prompts that name one, {} in its place; again for more.")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            help="With --concept: file of sentences, one a line. Erases a concept in those that name it, and holds the "
            "others; or ZOO:captions."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="With --concept: a prompt to keep exactly as it is; again for more.")
    ] = None,
    guard: Annotated[
        list[str] | None, typer.Option(help="With --concept: a prompt to keep up to a small leak; again for more.")
    ] = None,
    anchor: Annotated[
        list[str] | None, typer.Option(help="With --concept: what takes its place, for methods that replace it.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Erase more concepts beside those in --out.")] = False,
    retain: Annotated[str | None, typer.Option(help="Training data; the forgotten rows are taken out of it.")] = None,
    non_members: Annotated[
        str | None, typer.Option(help="Images from the same source, never trained on, for methods that need some.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Eraser, as `vestige ls` names it; if not given erasediff, for concepts sepme, with --captions "
            "guardedsepme."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, e.g. --set steps=300 --set target=noise."),
    ] = None,
    loop: Annotated[
        list[str] | None,
        typer.Option("--loop", help="A setting of its loop, e.g. --loop micro_batch=8 --loop precision=bfloat16."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the increment; its folder's if not given.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="File of requests: start from its active increments, and add this request.")
    ] = None,
    who: Annotated[str | None, typer.Option(help="Who makes the request; the system's user name if not given.")] = None,
    null_condition: NullCondition = None,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a model forget training images or concepts, as increments that can be taken off again."""
    if concept:
        if (
            forget is not None
            or retain
            or non_members
            or loop
            or name
            or ledger
            or who
            or null_condition
            or skip_corrupt
        ):
            raise InvalidInput(
                "Options for forgetting images were given together with --concept.",
                expected="either --forget and its options, or --concept.",
                remedy="drop --forget, --retain, --non-members, --loop, --name, --ledger, --who and the like.",
            )
        asked = Asked(concept, template or [], captions, keep or [], guard or [], anchor or [], add)
        erase_named(model, out, asked, method, setting or [], seed, overwrite)
        return
    if forget is None or template or captions or keep or guard or anchor or add:
        raise InvalidInput(
            "Neither --forget nor --concept was given."
            if forget is None
            else "Options for erasing concepts were given without --concept.",
            expected="--forget with images or rows, or --concept with a word of a text-to-image model's prompts.",
            remedy="pass one of them; `vestige erase --help` shows examples.",
        )
    require_working_dependencies()
    import vestige.erase
    from vestige.cli.display import bars, say, show_table
    from vestige.cli.settings import with_settings
    from vestige.discover import method as find
    from vestige.erase.eraser import Eraser
    from vestige.erase.loop import Loop
    from vestige.jobs.erase import erase as run
    from vestige.jobs.increments import describe_increments

    eraser = with_settings(find(vestige.erase, Eraser, method or "erasediff"), setting or [])
    with bars() as progress:
        done = run(
            model,
            forget=forget,
            retain=retain,
            non_members=non_members,
            out=out,
            method=eraser,
            loop=with_settings(Loop, loop or [], option="--loop"),
            name=name,
            ledger=ledger,
            who=who,
            seed=seed,
            null_condition=null_condition,
            skip_corrupt=skip_corrupt,
            overwrite=overwrite,
            progress=progress,
        )
    if not done.written:
        return
    if done.forgotten_before:
        new = len(done.increment.manifest.forgotten)
        before = len(done.forgotten_before)
        say(f"{before} of the {before + new} rows were forgotten by earlier requests; the other {new} were erased now.")
    follow = f"vestige verify {model} --increment {out} --against RUN --out check"
    show_table(
        describe_increments([out]),
        follow if ledger is None else f"vestige ledger apply {ledger} {model} --out erased-model",
    )


def verify(
    model: Annotated[str, typer.Argument(help="The base that was audited, without the increment.")],
    increment: Annotated[Path, typer.Option(help="Folder that `vestige erase` wrote.")],
    against: Annotated[Path, typer.Option(help="Folder of the audit that preceded the erasure.")],
    out: Out,
    below: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier increment that this one was made on top of; again for more, in order."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="File of requests to take the earlier increments from, instead of --below.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Training data, if it moved since the audit.")] = None,
    non_members: Annotated[str | None, typer.Option(help="Non-members, if they moved since the audit.")] = None,
    reference: Annotated[str | None, typer.Option(help="A model retrained without the forgotten images.")] = None,
    recover: Annotated[
        list[str] | None,
        typer.Option(help="Try to bring the images back with this attack, as `vestige ls` names it; or all."),
    ] = None,
    recover_set: Annotated[
        list[str] | None, typer.Option(help="A setting of a recovery attack, e.g. --recover-set relearn.steps=128.")
    ] = None,
    shadows: Annotated[
        Path | None, typer.Option(help="Folder that `vestige shadow` wrote, for membership with shadow models.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="TOML file with limits.")] = None,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Repeat the audit on the erased model; measure what was kept, what trace remains and what attacks get back."""
    from vestige.jobs.policy import load_policy

    rules = load_policy(policy)
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.cli.recoveries import recoveries
    from vestige.jobs.verify import verify as run

    attacks = recoveries(recover or [], recover_set or [])
    with bars() as progress:
        done = run(
            model,
            increment=increment,
            against=against,
            out=out,
            below=below or (),
            ledger=ledger,
            data=data,
            non_members=non_members,
            reference=reference,
            recover=attacks,
            shadows=shadows,
            policy=rules,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    applied = " ".join(map(str, [*(below or []), increment]))
    finish(
        done,
        f"vestige increments apply {model} {applied} --out erased-model"
        if ledger is None
        else f"vestige ledger apply {ledger} {model} --out erased-model",
    )


@increments.command("list", epilog="Example: vestige increments list increment erased-model")
def list_increments(
    paths: Annotated[list[Path], typer.Argument(help="Increments, or models with some applied.")],
) -> None:
    """Say what increments are, or which a model carries."""
    require_working_dependencies()
    from vestige.cli.display import show_table
    from vestige.jobs.increments import describe_increments

    show_table(describe_increments(paths))


@increments.command("apply", epilog="Example: vestige increments apply my-ddpm/ increment --out erased-model")
def apply(
    model: Annotated[str, typer.Argument(help="diffusers folder or zoo name.")],
    increment: Annotated[list[Path], typer.Argument(help="Increments, in order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new model.")],
    scale: Annotated[float, typer.Option(help="Strength; 1 as trained, 0 the base.")] = 1.0,
    null_condition: NullCondition = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a diffusers folder with increments added."""
    require_working_dependencies()
    from vestige.cli.display import say
    from vestige.jobs.increments import apply_increments

    digest = apply_increments(
        model, increment, out=out, scale=scale, null_condition=null_condition, overwrite=overwrite
    )
    say(f"{out} is {digest[:12]}.", f"vestige increments remove {out} --out restored-model")


@increments.command("remove", epilog="Example: vestige increments remove erased-model forget-cats --out restored-model")
def remove(
    model: Annotated[Path, typer.Argument(help="A model with increments applied.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new model.")],
    names: Annotated[list[str] | None, typer.Argument(help="Increments to take off; all if none is named.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the model without some or all of its increments."""
    require_working_dependencies()
    from vestige.cli.display import say
    from vestige.jobs.increments import remove_increments

    digest, is_base = remove_increments(model, names or [], out=out, overwrite=overwrite)
    say(f"{out} is {digest[:12]}" + (", the base bit for bit." if is_base else "; other increments remain."))


@increments.command("compose", epilog="Example: vestige increments compose forget-cats forget-dogs --out forget-both")
def compose(
    increment: Annotated[list[Path], typer.Argument(help="Increments of one base, in order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new increment.")],
    name: Annotated[str | None, typer.Option(help="Name of the new increment.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one increment that does what several do together."""
    require_working_dependencies()
    from vestige.cli.display import show_table
    from vestige.jobs.increments import compose_increments, describe_increments

    compose_increments(increment, out=out, name=name, overwrite=overwrite)
    show_table(describe_increments([out]))
