"""`fl-server models`: look at a registry, and check it. `fl_server.cli` mounts these commands.

All but `prune` read only. The signature of whatever they show was verified first.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.console import command_line, err, out, print_json
from common.errors import ConfigError, IntegrityError
from common.identity import PublicKey, grouped, parse_fingerprint
from fl_server.hub import check_registry, prune
from models.class_counts import PREFIX, counts_in
from models.manifest import Manifest
from models.published import (
    VERSIONS,
    latest_name,
    of_latest,
    read_manifest,
    read_registered,
    registry_key,
    trusted,
    version_names,
)

models = command_line("Look at published models, check their signatures, remove old ones.")

RegistryFolder = Annotated[Path, typer.Argument(help="The registry folder.", show_default=False)]
Publisher = Annotated[
    str | None,
    typer.Option(
        "--publisher",
        metavar="FINGERPRINT|FILE",
        help="The key you trust. Without it, the registry's own publisher.pub is taken and its fingerprint shown.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]


@models.command("list")
def list_versions(registry: RegistryFolder, publisher: Publisher = None, as_json: AsJson = False) -> None:
    """List every version, oldest first, with its round, privacy and metrics.

    The signature of each manifest is verified; the model files are left to [bold]verify[/].
    """
    latest, key = latest_name(registry), _key(registry, publisher)
    names = version_names(registry)
    found: dict[str, tuple[Manifest, str]] = {}
    refused: dict[str, IntegrityError] = {}
    for name in names:
        try:
            found[name] = read_manifest(registry / VERSIONS / name, key)
        except IntegrityError as error:
            if name in version_names(registry):
                refused[name] = error
    names = [name for name in names if name in found or name in refused]
    if as_json:
        print_json([_as_json(name, *found[name], latest) for name in names if name in found])
    else:
        out.print(_table(names, found, latest))
        out.print(f"Signed by {grouped(key.fingerprint)}", style="dim")
    for name, why in refused.items():
        raise IntegrityError(f"{registry / VERSIONS / name} is refused: {why}")


@models.command("show")
def show_version(
    registry: RegistryFolder,
    version: Annotated[str | None, typer.Argument(help="Its name or number; without it, the latest.")] = None,
    publisher: Publisher = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known about one version, once its signature and files are verified."""
    latest, key = latest_name(registry), _key(registry, publisher)
    if version is None:
        model = of_latest(registry, lambda name: read_registered(registry, name, key))
        latest = model.manifest.version
    else:
        model = read_registered(registry, _find(registry, version), key)
    name = model.manifest.version
    if as_json:
        print_json(_as_json(name, model.manifest, model.manifest_sha256, latest))
    else:
        out.print(_sheet(model.manifest, model.manifest_sha256, key, is_latest=name == latest))


@models.command("verify")
def verify_registry(registry: RegistryFolder, publisher: Publisher = None, as_json: AsJson = False) -> None:
    """Check every version: signature, each file's hash and size, and the chain from one version to the next.

    Ends with exit code 5 and names the first version that does not hold.
    """
    latest, key = latest_name(registry), _key(registry, publisher)
    held: dict[str, int] = {}
    for model in check_registry(registry, key):
        manifest = model.manifest
        link = f"follows {manifest.sequence - 1:06d}" if held else "the first one here"
        held[manifest.version] = sum(entry.bytes for entry in manifest.files.values())
        if not as_json:
            out.print(f"[green]✓[/] {manifest.version}  signature, {len(manifest.files)} files, {link}")
    if as_json:
        versions = [{"version": version, "bytes": size} for version, size in held.items()]
        print_json({"holds": True, "latest": latest, "publisher": key.fingerprint, "versions": versions})
        return
    count, size = len(held), sum(held.values())
    out.print(f"[bold green]{count} version{' holds' if count == 1 else 's hold'}[/], {_size(size)} in all; latest is {latest}.")
    out.print(f"Signed by {grouped(key.fingerprint)}")
    if publisher is None:
        err.print(
            "This key came from the registry itself: compare the fingerprint with the one that the publisher gave you.",
            style="yellow",
            soft_wrap=True,
        )


@models.command("prune")
def prune_registry(
    registry: RegistryFolder,
    keep: Annotated[int, typer.Option(metavar="N", help="So many of the newest stay, 1 or more; the latest always does.")],
    publisher: Publisher = None,
    as_json: AsJson = False,
) -> None:
    """Remove old versions from the disk, for good, whichever run they are of. A server may go on publishing meanwhile.

    Devices that have them keep theirs. To keep a server's registry short: [bold]fl-server start --keep-models N[/].
    """
    removed = prune(registry, keep, _key(registry, publisher))
    count, freed, left = len(removed), sum(removed.values()), version_names(registry)
    if as_json:
        print_json({"removed": list(removed), "bytes": freed, "left": left})
        return
    stay = f"{left[-1]} stays" if len(left) == 1 else f"{left[0]} to {left[-1]} stay"
    out.print(f"[bold green]{count} version{'' if count == 1 else 's'} removed[/], {_size(freed)}; {stay}.")


def _key(registry: Path, publisher: str | None) -> PublicKey:
    trust = trusted(publisher)
    if isinstance(trust, Path):
        return PublicKey.read(trust)
    key = registry_key(registry)
    if publisher is not None and key.fingerprint != parse_fingerprint(publisher):
        raise IntegrityError(f"{registry} belongs to the key {grouped(key.fingerprint)}, not to the one you trust.")
    return key


def _find(registry: Path, version: str) -> str:
    names = version_names(registry)
    for name in names:
        if version == name or (version.isdecimal() and int(version) == int(name.split("-")[0])):
            return name
    there = f"it has {names[0]} to {names[-1]}" if names else "it has none"
    raise ConfigError(f"{registry} has no version {version!r}; {there}.")


def _as_json(name: str, manifest: Manifest, digest: str, latest: str) -> dict[str, Any]:
    facts = manifest.model_dump(mode="json")
    return {"version": name, "latest": name == latest, "manifest_sha256": digest, "manifest": facts}


def _table(names: list[str], found: dict[str, tuple[Manifest, str]], latest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Version", "Created (UTC)", "Replies", "Privacy", "Accuracy", "Run"):
        table.add_column(title, justify="right" if title in ("Replies", "Accuracy") else "left", no_wrap=title != "Run")
    for name in names:
        title = f"[bold]{name}[/] [green]latest[/]" if name == latest else name
        if name not in found:
            table.add_row(title, "", "", "", "[bold red]refused[/]", "")
            continue
        manifest, _ = found[name]
        accuracy = manifest.metrics.get("accuracy")
        table.add_row(
            title,
            manifest.created[:16].replace("T", " "),
            f"{manifest.cohort.accepted}/{manifest.cohort.asked}",
            _privacy(manifest),
            "" if accuracy is None else f"{accuracy:.1%}",
            escape(manifest.run),
        )
    return table


def _privacy(manifest: Manifest) -> str:
    kept = {p.unit: p for p in (manifest.privacy, manifest.client_privacy) if p is not None and p.private}
    if not kept:
        return "[bold red]NOT PRIVATE[/]"
    whom = {"record": "face", "client": "device"}
    return ", ".join(f"[green]ε {promise.stated_epsilon}[/] per {whom[unit]}" for unit, promise in kept.items())


def _sheet(manifest: Manifest, digest: str, key: PublicKey, *, is_latest: bool) -> Table:
    sheet = Table(box=None, show_header=False, pad_edge=False)
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    privacy, preprocessing, model = manifest.privacy, manifest.preprocessing, manifest.model
    rows = [
        ("Version", f"[bold]{manifest.version}[/]" + (" [green]latest[/]" if is_latest else "")),
        ("Created", escape(manifest.created)),
        ("Run", f"{escape(manifest.run)}, round {manifest.round}"),
        (
            "Replies",
            f"{manifest.cohort.accepted} of {manifest.cohort.asked} devices"
            + (", added up so that the server saw their sum alone" if manifest.cohort.secure else ""),
        ),
        ("Model", f"{escape(model.name)}, trained {model.trainable}, from {escape(manifest.init)}"),
        ("Input", f"{preprocessing.size}x{preprocessing.size} {preprocessing.colour}"),
        ("Classes", escape(", ".join(model.classes))),
        ("Privacy", f"[{'green' if privacy.private else 'bold red'}]{escape(privacy.statement)}[/]"),
    ]
    if privacy.private:
        rows.append(("", f"accountant {privacy.accountant}, clipping norm {privacy.clipping_norm:g}"))
        rows.append(("", escape(f"noise: {privacy.noise_source}")))
    if (client := manifest.client_privacy) is not None:
        rows.append(("Per device", f"[{'green' if client.private else 'bold red'}]{escape(client.statement)}[/]"))
        rows += [("", escape(f"noise: {client.noise_source}"))] if client.private else []
    rows += [("Not private" if i == 0 else "", escape(what)) for i, what in enumerate(privacy.non_private)]
    if (counts := counts_in(manifest.metrics, model.classes)) is not None:
        told = (f"{name} {count:,.0f}" for name, count in zip(model.classes, counts, strict=True))
        rows.append(("Faces by class", escape(", ".join(told))))
    metrics = [(name, value) for name, value in manifest.metrics.items() if not name.startswith(PREFIX)]
    rows += [("Metrics" if i == 0 else "", escape(f"{k} {v:.4g}")) for i, (k, v) in enumerate(metrics)]
    for i, (name, entry) in enumerate(sorted(manifest.files.items())):
        rows.append(("Files" if i == 0 else "", f"{name}, {_size(entry.bytes)}, SHA-256 {entry.sha256[:16]}…"))
    rows += [
        ("Manifest", f"SHA-256 {digest}"),
        ("Previous", f"SHA-256 {manifest.previous}" if manifest.previous else "none, this is the first"),
        ("Signed by", grouped(key.fingerprint)),
    ]
    for row in rows:
        sheet.add_row(*row)
    return sheet


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
