"""What the calibration found, as tables of docs/statistics.md and as its figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from calibration import models, multiplicity, sizes
from mmie.assumptions import described
from mmie.drawing import QUIET, SHADE, new
from mmie.palette import ARMS, MARKERS
from mmie.power_table import PROCEED, WHOLE, power_rows

SHOWN = (60, 100, 150, 200, 300, 400, 600)
"""Sizes of an experiment in the power tables."""
REACH = 0.10
"""Sizes beyond are drawn at the edge, with their value."""


def filled(page: str, parts: dict[str, str]) -> str:
    """
    The page with each part between its markers, ``<!-- calibration: name -->`` and ``<!-- end -->``.

    Raises ValueError naming a part that has no place, or a place that has no part.
    """
    found = set(re.findall(r"<!-- calibration: (\w+) -->", page))
    if found != set(parts):
        raise ValueError(f"docs/statistics.md has places for {sorted(found)}, and the suite makes {sorted(parts)}.")
    for name, text in parts.items():
        pattern = rf"(<!-- calibration: {name} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page, flags=re.S)
    return page


def all_parts(cells: Sequence[sizes.Cell], sims: int) -> dict[str, str]:
    """Every part of the page that is measured, by name."""
    table = sizes.as_table(cells)
    rows = power_rows(models.default_plan(), 200, 1, sizes=SHOWN, sims=sims)
    return {
        "run": _run(table, sims),
        "sizes": _sizes(table),
        "exceptions": _exceptions(table),
        "models": _models(sims),
        "multiplicity": _multiplicity(10 * sims),
        "seeds": _one_seed(sims),
        "power": _power(rows),
        "parts": _parts(rows),
        "claim": _claim(sims),
        "assumptions": assumptions(),
    }


def assumptions() -> str:
    """What the power is computed from."""
    rows = ((f"`{name}`", value, meaning, source) for name, value, meaning, source in described())
    return _table(("assumption", "value", "meaning", "source"), rows)


def _run(table: pd.DataFrame, sims: int) -> str:
    judged = table[table["exception"] == ""]
    exact = int((judged["sims"] == 0).sum())
    wrong = int((~judged["holds"]).sum())
    return (
        f"{len(judged)} boundaries are judged, {exact} of them by exact enumeration and the others by {sims} simulations "
        f"(a fifth of them for G6 and the AUC of G4 over five seeds); the type-I error of {wrong} is above .055 even at its lower 99 % bound."
    )


def _sizes(table: pd.DataFrame) -> str:
    """Per gate and number of seeds, the largest size of all its boundaries at each n."""
    judged = table[table["exception"] == ""]
    rows = []
    for (gate, seeds), part in judged.groupby(["gate", "seeds"]):
        worst = {n: of_n.loc[of_n["size"].idxmax()] for n, of_n in part.groupby("n")}
        found = [_with_interval(worst[n]) if n in worst else "–" for n in sizes.SIZES]
        rows.append((gate, seeds, part["null"].nunique(), *found))
    return _table(("gate", "seeds", "boundaries", *(f"n = {n}" for n in sizes.SIZES)), rows)


def _exceptions(table: pd.DataFrame) -> str:
    odd = table[~table["exception"].isin(["", sizes.UNUSED])]
    rows = []
    for (gate, null, why), part in odd.groupby(["gate", "null", "exception"], sort=False):
        of_n = {row["n"]: _with_interval(row) for row in part.to_dict("records")}
        rows.append((gate, int(part["seeds"].iloc[0]), null, *(of_n.get(n, "–") for n in sizes.SIZES), why))
    unused = table[table["exception"] == sizes.UNUSED]
    largest = unused.loc[unused["size"].idxmax()]
    note = (
        f"With fewer than 150 units no gate trusts a test of a mean. It would have been wrong to: the worst size at "
        f"n = {largest['n']} is {_with_interval(largest)} ({largest['gate']}: {largest['null']})."
    )
    head = ("gate", "seeds", "boundary", *(f"n = {n}" for n in sizes.SIZES), "why")
    return f"{_table(head, rows)}\n\n{note}"


def _models(sims: int) -> str:
    rows = []
    for name, model in models.MODELS.items():
        for seeds in (1, sizes.SEEDS):
            passes = models.outcome(model, 200, seeds, sims)
            rows.append((name, seeds, *(_share(passes[gate]) for gate in sorted(passes))))
    gates = sorted(models.outcome(models.good, 200, 1, 10))
    return _table(("model", "seeds", *gates), rows)


def _multiplicity(sims: int) -> str:
    rows = [
        (f"{level:.2f}", f"{without:.1%}", f"{with_it:.1%}")
        for level, (without, with_it) in multiplicity.any_false_pass(sims).items()
    ]
    return _table(("α = q", "some gate passes wrongly, uncorrected", "with Benjamini–Hochberg"), rows)


def _one_seed(sims: int) -> str:
    """A method at the margin, whose checkpoints are not."""
    passes = models.method_at_margin(200, sims)
    return (
        f"A method whose mean English perplexity is exactly at the margin, with seeds that spread by 2 %, passes G2 with "
        f"probability {_share(passes[1])} when one checkpoint is judged (about half of the checkpoints are on the good "
        f"side, and pass rightly), and {_share(passes[5])} when the method is judged by five seeds."
    )


def _power(rows: pd.DataFrame) -> str:
    whole = rows[rows["part"] == WHOLE]
    lines = []
    for (gate, seeds), part in whole.groupby(["gate", "seeds"]):
        of_n = part.set_index("n")["power"]
        lines.append((gate, seeds, *(f"{of_n[n]:.2f}" for n in SHOWN)))
    lines.sort(key=lambda line: (line[0] == PROCEED, line[0], line[1]))
    return _table(("gate", "seeds", *(f"n = {n}" for n in SHOWN)), lines)


def _parts(rows: pd.DataFrame) -> str:
    parts = rows[(rows["part"] != WHOLE) & (rows["units"].isin(["groups", "members"]))]
    lines = []
    for (gate, name), part in parts.groupby(["gate", "part"], sort=False):
        of_n, first = part.set_index("n"), part.iloc[0]
        detectable = of_n.loc[200, "detectable"]
        passes = "–" if np.isnan(detectable) else f"{detectable:.3g}"
        numbers = (f"{first.margin:.3g}", f"{first.alternative:.3g}", passes)
        needed = "–" if np.isnan(first.needed) else f"{first.needed:.0f}"
        lines.append((gate, name, *numbers, *(f"{of_n.loc[n, 'power']:.2f}" for n in SHOWN), needed))
    head = ("gate", "part", "margin", "good arm", "passes to", *(f"n = {n}" for n in SHOWN), "needed")
    return _table(head, lines)


def _claim(sims: int) -> str:
    rows = []
    for name, assumed in models.what_it_takes().items():
        for seeds in (1, sizes.SEEDS):
            found = (models.outcome(models.good, n, seeds, sims, assumed)[PROCEED] for n in (200, 250, 300, 400))
            rows.append((name, seeds, *map(_share, found)))
    return _table(("a good arm", "seeds", *(f"n = {n}" for n in (200, 250, 300, 400))), rows)


def figure(cells: Sequence[sizes.Cell]) -> Figure:
    """Type-I error of every boundary by gate, n and number of seeds, with its 99 % interval; exceptions are hollow."""
    table = sizes.as_table(cells)
    table = table[table["exception"] != sizes.UNUSED]
    drawn, grid = new(5.6, 1, 2, sharey=True)
    gates = list(dict.fromkeys(table["gate"]))
    for axes, seeds in zip(grid[0], (1, sizes.SEEDS), strict=True):
        axes.axvspan(sizes.LIMIT, REACH, color=SHADE, linewidth=0)
        axes.axvline(sizes.ALPHA, color=QUIET, linewidth=0.9, linestyle=":")
        for row in table[table["seeds"] == seeds].itertuples():
            same = table[(table["gate"] == row.gate) & (table["seeds"] == seeds) & (table["n"] == row.n)]
            place = list(same.index).index(row.Index) / max(1, len(same) - 1) - 0.5
            order = sizes.SIZES.index(row.n)
            y, colour = gates.index(row.gate) + 0.27 * (order - 1) + 0.2 * place, ARMS[order]
            axes.plot([min(row.low, REACH), min(row.high, REACH)], [y, y], color=colour, linewidth=1)
            face = "white" if row.exception else colour
            beyond = row.size > REACH
            axes.plot(
                [min(row.size, REACH)], [y], ">" if beyond else MARKERS[order], color=colour, markerfacecolor=face,
                markersize=4, clip_on=False,
            )  # fmt: skip
            if beyond:
                axes.annotate(
                    f"{row.size:.2f}", (REACH, y), (-7, -3), textcoords="offset points", ha="right", fontsize=7
                )
        axes.set_title("One checkpoint" if seeds == 1 else "Five seeds")
        axes.set_yticks(range(len(gates)), gates)
        axes.set_ylim(len(gates) - 0.5, -0.5)
        axes.set_xlim(0, REACH)
        axes.set_xlabel("Type-I error at the boundary")
    handles = [
        Line2D([], [], color=ARMS[i], marker=MARKERS[i], markersize=5, label=f"n = {n}")
        for i, n in enumerate(sizes.SIZES)
    ]
    handles.append(
        Line2D([], [], color=QUIET, marker="o", markerfacecolor="white", linewidth=0, label="known exception")
    )
    drawn.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return drawn


def _with_interval(cell: Any) -> str:
    """The size, with four digits where it is exact and its 99 % interval where it is not."""
    exact = cell["sims"] == 0
    return f"{cell['size']:.4f}" if exact else f"{cell['size']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"


def _share(passes: np.ndarray) -> str:
    value = float(np.mean(passes))
    if 0 < value < 0.005 or 0.995 <= value < 1:
        return "< 0.01" if value < 0.5 else "> 0.99"
    return f"{value:.2f}"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
