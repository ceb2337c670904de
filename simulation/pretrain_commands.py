"""The command `fl-sim pretrain`: the base model from public faces, in one command that may be stopped and typed again."""

import os
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from common.console import err, out
from common.errors import ConfigError
from common.processes import stopping_signals

Option = typer.Option

KEY = "publisher_key.pem"


def pretrain(
    folder: Annotated[Path, Option("--out", help="Where checkpoints and figures go; the same folder goes on.")],
    data: Annotated[Path | None, Option(help="fer2013.csv with fer2013new.csv beside it, or their folder.")] = None,
    recipe: Annotated[Path | None, Option(help="A TOML file of settings (default: the shipped model's).")] = None,
    images: Annotated[
        int | None,
        Option(
            min=1, help="Faces to see in all; may be changed between two calls (default: the folder's, at first the recipe's)."
        ),
    ] = None,
    variant: Annotated[str | None, Option(help="A variant of models.mobilenet instead of the recipe's.")] = None,
    threads: Annotated[int, Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    ship: Annotated[
        Path | None, Option(help="Do not train: write the finished model of --out, signed and with its card, to this folder.")
    ] = None,
    key: Annotated[
        Path | None, Option(help="With --ship: the Ed25519 key that signs; made if missing (default: in --out).")
    ] = None,
) -> None:
    """Train the base model on FER2013 with FER+'s votes, centrally and without privacy: both are public.

    Ctrl-C keeps what was learned; the same command goes on.
    """
    if ship is not None:
        return ship_base(folder, ship, key or folder / KEY)
    if key is not None:
        raise ConfigError("--key signs what --ship writes; give it with --ship.")
    if data is None:
        raise ConfigError("Name the faces to learn from: --data fer2013.csv, with fer2013new.csv beside it.")

    import torch

    from models.pretraining.data import load_splits
    from models.pretraining.recipe import DEFAULT_RECIPE, read_recipe
    from models.pretraining.trainer import pretrain as train
    from simulation.pretrain_progress import PretrainDisplay, result_table

    chosen = read_recipe(recipe or DEFAULT_RECIPE, variant=variant)
    if device != "cpu" and not (device.split(":")[0] == "cuda" and torch.cuda.is_available()):
        raise ConfigError(f"There is no device {device!r} here; give --device cpu, or cuda on a machine that has it.")
    torch.set_num_threads(threads)
    splits = load_splits(data, chosen.ferplus_rows)
    out.print(
        f"[bold]{chosen.variant}[/]: {len(splits.training):,} faces to learn from, {int(splits.training.voted.sum()):,} of them "
        f"with FER+ votes; {len(splits.validation):,} to choose by, {len(splits.test):,} to report on.",
        soft_wrap=True,
    )
    stop, display = threading.Event(), PretrainDisplay(out)
    result: dict[str, Any] | None
    with stopping_signals(stop), display.live():
        result = train(chosen, splits, folder, images, stop=stop, watch=display.watch(), device=device)
    if result is None:
        where = escape(os.path.relpath(folder))
        err.print(f"Stopped; what was learned is kept in {where}. The same command goes on.", soft_wrap=True)
        raise typer.Exit(130)
    out.print(result_table(result))


def ship_base(run: Path, folder: Path, key: Path) -> None:
    """Write and verify the base model's files, and say what they promise."""
    from common.identity import SigningKey, grouped
    from models.pretraining.result import read_result
    from models.pretraining.shipping import ship
    from simulation.pretrain_progress import result_table

    result = read_result(run)
    signing = SigningKey.load_or_create(key)
    manifest = ship(run, folder, signing)
    size = sum(entry.bytes for entry in manifest.files.values())
    out.print(result_table(result))
    out.print(f"Written to {escape(str(folder))}: {', '.join(manifest.files)}, {size:,} bytes, signed by", soft_wrap=True)
    out.print(grouped(signing.public.fingerprint), soft_wrap=True)
