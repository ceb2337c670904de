"""`fl-client privacy`: what was spent of the owner's privacy budget, for whom, and what is left. `fl_client.cli` mounts it.

It reads the ledger on this device and sends nothing.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.console import err, out, print_json
from common.errors import ConfigError, IntegrityError
from common.privacy.ledger import Entry, Ledger, LedgerPlace
from common.privacy.release import Accountant
from fl_client.client_spending import ClientSurvey, survey_promises
from fl_client.own_home import own_home
from fl_client.own_ledger import own_ledger
from fl_client.policy_file import read_policy
from fl_client.terminal import plain

ROWS = 20

Data = Annotated[Path, typer.Option(help="Your faces, as for taking part.", show_default=False)]
Home = Annotated[
    Path | None,
    typer.Option(
        help="Where keys and the privacy ledger live (default: the home this device takes part with, else .emofl in --data)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")]


def privacy(
    data: Data,
    home: Home = None,
    as_json: AsJson = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only check the ledger: exit code 0 if nothing is missing.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw it into this .png file.", show_default=False)] = None,
    accountant: Annotated[Accountant, typer.Option(help="How the total is added up; prv is tighter and takes seconds.")] = "rdp",
    every: Annotated[bool, typer.Option("--all", help=f"List every debit, not the last {ROWS} alone.")] = False,
) -> None:
    """Show what was spent of this device's privacy budget: when, for whom, how, and what is left.

    For each face by itself (record level), and for all faces of the device together (client level): two promises, never added.
    """
    faces = existing_folder(data)
    where = own_home(faces, home)
    place = own_ledger(where.path, faces)
    if where.elsewhere:
        err.print(escape(where.objection or f"Ledger and rules are in {where.path}."), soft_wrap=True)
    if verify:
        check(place)
        return
    if plot is not None and plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot writes a .png file, not {plot}.")
    from fl_client import spending  # not at the top: accountants need torch, `--verify` does not

    found = spending.survey(place, read_policy(where.path), accountant)
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found, every)
    if plot is not None:
        from fl_client import spending_plot

        spending_plot.plot(found, plot)
        if not as_json:
            out.print(f"Written: {escape(str(plot))}", soft_wrap=True)


def check(place: LedgerPlace) -> None:
    """Say that the ledger holds.

    Raises:
        IntegrityError: it does not, or there is nothing to compare it with, or one run has two client-level promises.
    """
    entries = Ledger(place).entries
    whole = survey_promises(entries, None)
    behind = place.anchor.behind([entry.digest for entry in entries]) if place.anchor else None
    if behind is None or behind > 1:
        raise IntegrityError(
            f"The chain of {_count(entries)} holds, but this machine remembers {'none' if behind is None else 'not all'} of "
            "them, so it cannot tell whether debits are missing; `fl-client --data DIR` remembers them from its next start on."
        )
    out.print(f"The chain of {_count(entries)} holds, and it is the one that this machine remembers.")
    if whole.runs:
        made = len(whole.runs)
        out.print(f"It also holds the client-level promise{'' if made == 1 else 's'} of {made:,} run{'' if made == 1 else 's'}.")


def existing_folder(data: Path) -> Path:
    """The folder of faces, as anchors know it.

    Raises:
        ConfigError: there is none.
    """
    faces = data.expanduser().resolve()
    if not faces.is_dir():
        raise ConfigError(f"{data} is not a folder: give the folder of your faces, as for taking part.")
    return faces


def _show(found: Any, every: bool) -> None:
    from fl_client import spending_plot

    entries, epsilons = found.entries, found.epsilons
    hidden = 0 if every else max(0, len(entries) - ROWS)
    if entries:
        out.print("Each face by itself (record level, one face added or removed)", style="underline", soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("When (UTC)", "Server", "Run"):
            table.add_column(title, no_wrap=title != "Run", overflow="fold")
        for title in ("Round", "Noise", "Rate", "Steps", "Epsilon"):
            table.add_column(title, justify="right", no_wrap=True)
        if hidden:
            table.add_row(f"{hidden:,} earlier", *[""] * 6, f"{epsilons[hidden - 1]:.3f}", style="dim")
        for entry, epsilon in zip(entries[hidden:], epsilons[hidden:], strict=True):
            table.add_row(*_row(entry, epsilon))
        out.print(table)
        out.print()
        out.print(spending_plot.bars(found))
        out.print()
    if found.accountant == "prv" and math.isfinite(found.epsilon):
        out.print(f"By the PRV accountant epsilon {found.epsilon:.3f} was spent, by RDP {max(epsilons, default=0.0):.3f}.")
    out.print(escape(found.sentence), style="bold red" if entries and not found.more else "bold", soft_wrap=True)
    if entries:
        out.print()
        _show_whole(found.whole)


def _show_whole(whole: ClientSurvey) -> None:
    from fl_client import spending_plot

    if whole.runs:
        out.print(
            "All faces of this device together (client level, its updates or none at all)", style="underline", soft_wrap=True
        )
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("Since (UTC)", "Server", "Run", "Noise by", "Holds against"):
            table.add_column(title, no_wrap=title != "Run", overflow="fold")
        for title in ("Rounds", "Epsilon", "Delta"):
            table.add_column(title, justify="right", no_wrap=True)
        for run in whole.runs:
            promise = run.promise
            shares = promise.mode == "distributed"
            table.add_row(
                _clock(run.since),
                _server(run.authority),
                escape(plain(run.name, 20)),
                "all devices" if shares else "the server",
                "server, public" if shares else "public",
                f"{run.taken:,} of {promise.rounds:,}",
                f"{promise.epsilon:g}",
                f"{promise.delta:g}",
            )
        out.print(table)
        out.print()
        if whole.ceiling is not None:
            out.print(spending_plot.client_bars(whole))
            out.print()
    out.print(escape(whole.sentence), style="bold red" if whole.left == 0 else "bold", soft_wrap=True)


def _row(entry: Entry, epsilon: float) -> list[str]:
    how = ["NON-PRIVATE", "", ""]
    if entry.release is not None:
        release = entry.release
        how = [f"{release.noise_multiplier:.3f}", f"{release.sample_rate:.4g}", f"{release.steps:,}"]
    after = f"{epsilon:.3f}" if math.isfinite(epsilon) else "none holds"
    return [_clock(entry.time), _server(entry.authority), escape(plain(entry.run, 20)), f"{entry.round:,}", *how, after]


def _clock(time: str) -> str:
    return time[:16].replace("T", " ")


def _server(authority: str | None) -> str:
    return f"{authority[:8]}…" if authority else "unknown"


def _as_json(found: Any) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "unit": "record",
        "neighbours": "add-remove",
        "epsilon": number(found.epsilon),
        "delta": found.delta,
        "accountant": found.accountant,
        "largest_epsilon": found.ceiling,
        "left": found.left,
        "more_rounds_like_the_last": found.more,
        "debits": [
            {
                "time": entry.time,
                "server": entry.authority,
                "run": entry.run,
                "round": entry.round,
                "private": entry.private,
                "noise_multiplier": entry.release.noise_multiplier if entry.release else None,
                "sample_rate": entry.release.sample_rate if entry.release else None,
                "steps": entry.release.steps if entry.release else None,
                "epsilon_after_rdp": number(epsilon),
            }
            for entry, epsilon in zip(found.entries, found.epsilons, strict=True)
        ],
        "client_level": _whole_as_json(found.whole),
    }


def _whole_as_json(whole: ClientSurvey) -> dict[str, Any]:
    return {
        "unit": "client",
        "neighbours": "zero-out",
        "epsilon": whole.promised if whole.holds else None,
        "promised_epsilon": whole.promised,
        "delta": whole.delta,
        "largest_client_epsilon": whole.ceiling,
        "left": whole.left,
        "runs": [
            {
                "since": run.since,
                "server": run.authority,
                "run": run.name,
                "mode": run.promise.mode,
                "holds_against_the_server": run.promise.mode == "distributed",
                "epsilon": run.promise.epsilon,
                "delta": run.promise.delta,
                "rounds": run.promise.rounds,
                "rounds_taken": run.taken,
            }
            for run in whole.runs
        ],
        "runs_without": list(whole.without),
    }


def _count(entries: list[Entry]) -> str:
    return f"{len(entries):,} debit{'' if len(entries) == 1 else 's'}"
