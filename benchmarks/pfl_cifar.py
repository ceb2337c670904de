"""pfl-research's CIFAR-10-shaped job on one core, ours against `pfl` and Flower: `python -m benchmarks.pfl_cifar`.

A thousand users of 50 images, 50 of them a round, one local epoch in batches of 10. The sides take turns, round by round.
"""

import os
import statistics
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from benchmarks.sides import Side
from common.console import command_line, out, run_command_line
from common.errors import RunError

app = command_line("pfl-research's CIFAR-10-shaped job, ours against pfl and Flower.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="100 users, 10 a round.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail unless ours is the fastest.")] = False,
    pfl: Annotated[str, typer.Option(help="A Python with pfl[pytorch]; empty leaves it out.")] = "",
    flower: Annotated[str, typer.Option(help="A Python with flwr[simulation] and torch; empty leaves it out.")] = "",
    rounds: Annotated[int, typer.Option(min=2, help="Of each side; the first warms up.")] = 4,
) -> None:
    """Measure seconds a round, and print a table and one line of JSON."""
    users, cohort = (100, 10) if quick else (1000, 50)
    pythons = {"ours": sys.executable, "pfl": pfl, "flower": flower}
    sides: list[Side] = []
    try:
        for name, python in pythons.items():
            if python:
                sides.append(Side(name, [python, "-m", "benchmarks.pfl_cifar_job", name, str(users), str(cohort), str(rounds)]))
        for _ in range(rounds):
            for side in sides:
                side.turn()
    finally:
        for side in sides:
            side.end()
    results: dict[str, Any] = {}
    table = Table(title=f"{users} users, {cohort} a round", title_justify="left")
    for heading in ("", "start, CPU s", "a round, CPU s", "a round, s", "against ours"):
        table.add_column(heading, justify="left" if not heading else "right")
    for side in sides:
        row = {key: statistics.median(r[key] for r in side.rounds[1:]) for key in ("cpu_s", "wall_s")}
        results[side.name] = row | {"start": side.start, "ratio": row["cpu_s"] / results.get("ours", row)["cpu_s"]}
        table.add_row(
            side.name,
            f"{side.start['cpu_s']:.1f}",
            f"{row['cpu_s']:.2f}",
            f"{row['wall_s']:.2f}",
            f"{results[side.name]['ratio']:.2f}",
        )
    out.print(table)
    conclude("pfl_cifar", {"users": users, "cohort": cohort, "load": os.getloadavg()[0], **results})
    slower = [name for name, row in results.items() if row["ratio"] < 1]
    if check and slower:
        raise RunError(f"{' and '.join(slower)} took less time than ours.")


if __name__ == "__main__":
    run_command_line(app)
