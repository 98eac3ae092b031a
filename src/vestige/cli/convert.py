"""The command that turns somebody's StyleGAN2 into safetensors: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import Overwrite
from vestige.dependencies import require_working_dependencies


def register(app: typer.Typer) -> None:
    """Put the command on the command line."""
    app.command(epilog="Example: vestige convert ffhq.pkl ffhq.safetensors")(convert)


def convert(
    source: Annotated[Path, typer.Argument(help="Pickle of StyleGAN2-ADA for PyTorch, or .pt of its PyTorch port.")],
    out: Annotated[Path, typer.Argument(help="Safetensors file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Turn a StyleGAN2 pickle into safetensors, without executing anything in it."""
    require_working_dependencies()
    from vestige.jobs.convert import convert as run

    done = run(source, out, overwrite=overwrite)
    form, count = done.weights.form, sum(tensor.numel() for tensor in done.weights.tensors.values())
    typer.echo(f"{done.source}  SHA-256 {done.source_digest}")
    typer.echo("  nothing in it was executed")
    typer.echo(f"{done.out}  tensors {done.digest}")
    typer.echo(
        f"  StyleGAN2 of {form.resolution}x{form.resolution} pixels, {count:,} numbers, "
        f"latent {form.latent}, style {form.style}, {form.mapping_layers} mapping layers, "
        f"channels {', '.join(map(str, form.channels))}" + (f", {form.classes} classes" if form.classes else "")
    )
