"""`fl-client personalise`: fit the last layer of a published model to this device's own faces. `fl_client.cli` mounts it.

Faces and head stay in the folder; nothing is sent, published or debited.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from common.console import err, out, print_json
from common.errors import ConfigError, ModelError
from fl_client.node_settings import REGISTRY
from fl_client.own_head import FITTED, OwnHead, forget_heads, keep_head, personal_folder
from fl_client.own_home import home_of, remembered_homes
from fl_client.personal_settings import PersonalSettings
from fl_client.privacy_commands import existing_folder
from fl_client.wipes import since_now
from models.published import LATEST

if TYPE_CHECKING:
    from common.arrays import Arrays
    from common.config import ModelConfig
    from fl_client.personal import Personalised
    from models.preprocess import Preprocessing

Option = typer.Option
D = PersonalSettings()


@dataclass(frozen=True)
class Start:
    """The model that a head is fitted for.

    Attributes:
        name: for people.
    """

    config: "ModelConfig"
    weights: "Arrays"
    preprocessing: "Preprocessing"
    name: str


def personalise(
    data: Annotated[Path, Option(help="Your faces, as for taking part.", show_default=False)],
    registry: Annotated[
        Path | None,
        Option(help="Its newest model. Default: of the server this device takes part with, else the registry used last."),
    ] = None,
    model: Annotated[Path | None, Option(help="One published version's folder; or `base`, the one that ships.")] = None,
    trust: Annotated[str | None, Option(help="The publisher's key file or fingerprint. Default: the key met first.")] = None,
    pull: Annotated[float, Option(help="How strongly the head is held near the model's own; less for many faces.")] = D.pull,
    keep_anyway: Annotated[
        bool, Option("--keep-anyway", help="Keep the head even if it is worse on the faces set aside.")
    ] = False,
    wipe: Annotated[bool, Option("--forget", help="Delete this device's own heads, and end.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Fit the last layer of the newest published model to your own faces. It stays on this device, for you alone.

    A fifth of the faces is set aside to judge it by; a head that is worse on them is not kept. `fl-client webcam --personal DIR`
    uses it, --forget deletes it.
    """
    folder = existing_folder(data)
    if wipe:
        there = forget_heads(folder)
        if as_json:
            print_json({"forgotten": there}, indent=None)
        else:
            out.print("Your own heads are deleted; models are used as published." if there else "There was no head to delete.")
        return
    try:
        settings = PersonalSettings(pull=pull)
    except ValidationError as error:
        raise ConfigError(f"--pull is wrong: {error.errors()[0]['msg']}.") from error
    since = since_now(folder)
    start = _start(folder, registry, model, trust)
    found, fitted = _fit(folder, start, settings)
    if not found.finite:
        raise ModelError("The fitted head is not made of finite numbers and is not kept: try a larger --pull or another model.")
    better = found.after.accuracy >= found.before.accuracy
    path = personal_folder(folder) / FITTED
    wanted = better or keep_anyway
    kept = wanted and keep_head(path, _head(found, start, fitted), since)
    if wanted and not kept:
        err.print("These faces' heads were deleted meanwhile, so this one is not kept.", soft_wrap=True)
    if as_json:
        figures = {
            stage: {"accuracy": one.accuracy, "balanced_accuracy": one.balanced_accuracy, "loss": one.loss}
            for stage, one in (("before", found.before), ("shifted", found.shifted), ("after", found.after))
        }
        told = {"model": start.name, "fitted": fitted, "set_aside": found.before.examples, "kept": kept}
        print_json(told | figures, indent=None)
        return
    _show(found, start, fitted)
    if not wanted:
        out.print("The head is worse on the faces set aside, so it is not kept; more faces may help (--keep-anyway keeps it).")
    if not kept:
        return
    out.print(f"Kept in {escape(os.path.relpath(path))}, for you alone: who can read it may learn of your faces.", soft_wrap=True)
    out.print(f"[bold]fl-client webcam --personal {escape(os.path.relpath(folder))}[/] uses it.", soft_wrap=True)


def _start(folder: Path, registry: Path | None, model: Path | None, trust: str | None) -> Start:
    """The model that the options name, verified.

    Raises:
        ConfigError: the options contradict each other, or there is nobody to trust.
        IntegrityError: it is not what its publisher signed.
    """
    from common.places import state_home
    from fl_client.webcam.choice import BASE, NO_PUBLISHER
    from fl_client.webcam.remembered import remembered
    from models.published import open_published, trusted

    if registry is not None and model is not None:
        raise ConfigError("Give one of --registry and --model.")
    path = model or registry
    if path is None:
        own = next(iter(remembered_homes(folder)), home_of(folder, None)) / REGISTRY
        path = own if os.path.lexists(own / LATEST) else remembered()
    if path is None or path == BASE:
        if trust is not None:
            raise ConfigError(NO_PUBLISHER)
        return _base()
    published = open_published(path, trusted(trust), state=state_home())
    manifest = published.manifest
    name = f"{manifest.run} round {manifest.round} #{manifest.sequence}"
    return Start(manifest.model, published.weights(), manifest.preprocessing, name)


def _base() -> Start:
    from common.emotions import EMOTIONS_8
    from models.pretrained import open_base

    base = open_base()
    config = base.manifest.config(EMOTIONS_8)
    return Start(config, base.weights(config), base.manifest.preprocessing, f"base model {base.manifest.created[:10]}")


def _fit(folder: Path, start: Start, settings: PersonalSettings) -> tuple["Personalised", int]:
    from fl_client.personal import personalise as fit
    from fl_client.personal import split_aside
    from models.faces.folder import read_folder
    from models.mobilenet import build_model

    faces, report = read_folder(folder, start.preprocessing, start.config.classes)
    err.print(escape(report.sentence), soft_wrap=True)
    own, aside = split_aside(faces, settings.aside, seed=0)
    found = fit(build_model(start.config), start.weights, own, aside, start.preprocessing, settings)
    return found, len(own)


def _head(found: "Personalised", start: Start, fitted: int) -> OwnHead:
    from models.graft import trunk_digest

    return OwnHead(
        found.head,
        {
            "trunk": trunk_digest(start.weights),
            "classes": ",".join(start.config.classes),
            "model": start.name,
            "faces": str(fitted),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _show(found: "Personalised", start: Start, fitted: int) -> None:
    table = Table(title=f"On {found.before.examples:,} faces set aside; {fitted:,} were fitted", title_justify="left")
    for heading in ("", "accuracy", "balanced"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in ((start.name, found.before), ("class priors shifted alone", found.shifted), ("your own head", found.after)):
        table.add_row(escape(name), f"{one.accuracy:.1%}", f"{one.balanced_accuracy:.1%}")
    out.print(table)
