"""What the pages for people say: their templates, and the words made of facts. `fl_server.pages` renders them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.identity import grouped
from fl_server.addresses import with_port
from fl_server.web.facts import STATES, Facts
from fl_server.web.plot import draw
from models.manifest import NOT_PRIVATE

LONGEST_TABLE = 50
UNITS = {"record": "one face", "client": "all faces of a device"}
"""Whom a promise of privacy protects."""


def words_of(facts: Facts) -> dict[str, Any]:
    """What the templates say beside the facts."""
    run, endpoint = facts.run, facts.endpoint
    manifest = facts.newest.manifest if facts.newest else None
    promises = [one for one in (manifest.privacy, manifest.client_privacy) if one and one.private] if manifest else []
    warning = ""
    if run is not None and not run.private:
        warning = "This run trains without differential privacy; its models may reveal faces they were trained on."
    elif manifest is not None and not promises:
        warning = f"The newest model was {manifest.privacy.statement.removeprefix(f'{NOT_PRIVATE}: ')}"
    epsilon, unit, delta = "–", "", None
    if promises:
        epsilon, unit, delta = promises[0].stated_epsilon, promises[0].unit, promises[0].delta
    elif run is not None and run.config.privacy.private:
        epsilon, unit, delta = f"{run.config.privacy.epsilon:g}", "record", run.config.privacy.delta
    elif run is not None and run.private:
        epsilon, unit, delta = f"{run.config.client_level.epsilon:g}", "client", run.config.client_level.delta
    note = f"at most, for {UNITS[unit]}, at delta {delta:g}".replace("-", "\u2011") if unit in UNITS else ""
    measured = [point for point in run.points if point.accuracy is not None] if run else []
    return {
        "run": run,
        "done": run.last.round if run and run.last else 0,
        "state": STATES[run.state] if run else STATES["no-run"],
        "address": with_port(endpoint.address, endpoint.fleet_port) if endpoint else "this address",
        "epsilon": epsilon,
        "epsilon_note": note,
        "warning": warning,
        "statements": [one.statement for one in promises],
        "plot": draw(run.points, run.rounds, len(run.config.model.classes)) if run else None,
        "table": measured[-LONGEST_TABLE:][::-1],
        "measured": len(measured),
    }


def templates() -> Environment:
    """The pages for people, with filters for figures and times."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )
    environment.filters |= {
        "percent": lambda part: "–" if part is None else f"{100 * part:.1f} %",
        "grouped": grouped,
        "when": lambda stamp: stamp[:16].replace("T", " "),
        "size": lambda size: f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB",
    }
    return environment
