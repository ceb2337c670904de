"""How every plot of the project looks: colours and matplotlib settings. Whoever draws one uses it."""

from typing import Any

INK, ACCENT, SECOND = "#30343b", "#2563a8", "#c2571a"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
