"""`fl-server export`: a model as the file that a phone or another program reads, compared with torch. `fl_server.cli` mounts it.

The converters are looked for when they are needed; a missing one is one sentence with its pip command.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from common.console import err, out, print_json
from common.errors import ConfigError, DependencyError

FACES = 1000
Choice = Literal["onnx", "onnx-int8", "executorch", "tflite", "coreml", "ncnn", "all"]
Labels = Literal["fer2013", "ferplus-majority"]


def export(
    to: Annotated[
        Choice, typer.Option("--format", help="What to write; [bold]all[/] writes every format that this machine can.")
    ],
    target: Annotated[
        Path, typer.Option("--out", help="The file, or with --format all the folder, to write.", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="base|DIR",
            help="The shipped base model, a registry (its latest version), or one version's folder.",
        ),
    ] = "base",
    publisher: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT|FILE", help="The key you trust. Without it, the one that lies beside the model is taken."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Faces to compare on: fer2013.csv (its PrivateTest rows), or a folder of pictures per emotion.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[Labels, typer.Option(help="Whose labels a CSV gets.")] = "fer2013",
    faces: Annotated[int, typer.Option(min=1, help="How many faces are compared.")] = FACES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a model for phones and other programs, and say how far it is from torch on the same faces.

    Beside each file stands FILE.json: input, outputs, classes, how a face is prepared, what the model promises about privacy.
    [bold]onnx-int8[/] has a quarter of the size and needs nothing more. Core ML cannot be run here, so it is not compared.
    """
    from models.exported import NAMES, describe, suffix
    from models.exported import export as write

    source = _source(model, publisher)
    pictures, truth, what = _faces(data, labels, faces, source)
    if to == "all":
        target.mkdir(parents=True, exist_ok=True)
        places = {name: target / f"emofl{suffix(name)}" for name in NAMES}
    else:
        places = {to: target}
    done, missing = [], {}
    for name, place in places.items():
        if name not in ("onnx", "onnx-int8") and place.suffix != suffix(name):
            raise ConfigError(f"A {name} file ends in {suffix(name)}: write --out {place.with_suffix(suffix(name))}.")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = write(source, name, place, pictures, truth)
        except DependencyError as error:
            if to != "all":
                raise
            missing[name] = str(error)
            continue
        facts = describe(source, found) | {"compared_on": what}
        place.with_name(place.name + ".json").write_text(json.dumps(facts, indent=2) + "\n")
        done.append((found, facts))
    if as_json:
        print_json({"written": [facts for _, facts in done], "missing": missing})
        return
    out.print(_table([found for found, _ in done]))
    written = ", ".join(str(file) for found, _ in done for file in found.files)
    out.print(f"Written: {escape(written)}, each with a .json beside it.", soft_wrap=True)
    out.print(f"{escape(source.name)}; Δ of logits against torch on {escape(what)}.", style="dim", soft_wrap=True)
    for name, why in missing.items():
        err.print(f"[yellow]{name} was left out.[/] {escape(why)}", soft_wrap=True)


def _source(model: str, publisher: str | None) -> Any:
    from common.emotions import EMOTIONS_7
    from models.exported import Source
    from models.pretrained import open_base
    from models.published import PUBLISHER, open_published, trusted

    if model == "base":
        base = open_base()
        config = base.manifest.config(EMOTIONS_7)
        name = f"base model of {base.manifest.created}"
        return Source(name, config, base.manifest.preprocessing, base.weights(config), base.manifest.privacy.statement)
    path = Path(model)
    beside = [folder / PUBLISHER for folder in (path, path.parent.parent) if (folder / PUBLISHER).exists()]
    published = open_published(path, beside[0] if beside and publisher is None else trusted(publisher))
    manifest = published.manifest
    name = f"{manifest.run} {manifest.version}"
    return Source(
        name, manifest.model, manifest.preprocessing, published.weights(), manifest.privacy.statement, published.onnx_bytes()
    )


def _faces(data: Path | None, labels: Labels, count: int, source: Any) -> tuple[Any, Any, str]:
    """Pictures, the index of each one's class or None, and what they are."""
    import numpy as np

    from models.exported import made_up_pictures
    from models.faces.source import open_faces

    if data is None:
        return made_up_pictures(count, source.preprocessing.size), None, f"{count} made-up pictures, no faces: give --data"
    found, sentence = open_faces(
        data, labels=labels, usage="PrivateTest", classes=source.config.classes, preprocessing=source.preprocessing
    )
    rows = np.sort(np.random.default_rng(0).permutation(len(found))[:count])
    some = found.take(rows)
    return some.images, some.labels, f"{len(some)} of these faces: {sentence.rstrip('.')}"


def _table(done: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Format", "Size", "Largest Δ", "Mean Δ", "Same class", "Accuracy", "torch"):
        table.add_column(title, justify="left" if title == "Format" else "right", no_wrap=True)
    for found in done:
        seen = found.agreement
        cells = ["not run here", "", "", "", ""]
        if seen is not None:
            cells = [f"{seen.largest:.2g}", f"{seen.mean:.2g}", f"{seen.same:.1%}"]
            cells += ["" if score is None else f"{score:.1%}" for score in (seen.accuracy, seen.torch_accuracy)]
        table.add_row(found.format, f"{found.bytes / 1e6:.2f} MB", *cells)
    return table
