"""How every figure of the project looks, and how it becomes bytes that never differ."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mmie import fonts

WIDTH = 10.0
"""Inches: the width of the report's column."""
INK, QUIET, SHADE = "#222222", "#777777", "#F1EDE4"

_STYLE: Any = {
    "font.family": [fonts.FAMILY, "DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "figure.constrained_layout.w_pad": 0.07,
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Inside, figures are made and saved in the project's style, with a font that has Devanagari."""
    font_manager.fontManager.addfont(str(fonts.path()))
    with mpl.rc_context(_STYLE):
        yield


def new(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure of the report's width and its axes, [row, column]; without pyplot's global state."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``pdf``: no date and no version inside, so that the same figure gives the same bytes."""
    metadata: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        # Once and for all: otherwise every format lays the figure out again, which takes most of the time.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata[kind])
    return buffer.getvalue()


def arm_rows(axes: Axes, arms: Sequence[str], labels: bool = True) -> dict[str, int]:
    """Give every arm a row of the plot, the first on top; returns where."""
    axes.set_yticks(range(len(arms)), arms if labels else [""] * len(arms))
    axes.set_ylim(len(arms) - 0.45, -0.55)
    axes.spines["left"].set_visible(False)
    return {arm: i for i, arm in enumerate(arms)}


def whisker(
    axes: Axes, y: float, value: float, low: float, high: float, colour: str, marker: str, reach: tuple[float, float]
) -> None:
    """
    A point with its interval on a row. What lies beyond ``reach`` is drawn at the edge as an arrow, with its value.
    """
    left, right = reach
    ends = np.clip([low if np.isfinite(low) else value, high if np.isfinite(high) else value], left, right)
    axes.plot(ends, [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", clip_on=False)
    if left <= value <= right:
        axes.plot(
            [value],
            [y],
            marker,
            color=colour,
            markersize=7.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            clip_on=False,
        )
        return
    edge, arrow, side = (right, ">", "right") if value > right else (left, "<", "left")
    axes.plot([edge], [y], arrow, color=colour, markersize=7, clip_on=False)
    inwards = -8 if side == "right" else 8
    axes.annotate(
        beyond(value),
        (edge, y),
        (inwards, 0),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=8.5,
        color=colour,
    )


def beyond(value: float) -> str:
    """``×50`` or ``×6e+04``: a ratio that does not fit its axis."""
    return f"×{value:.0f}" if 10 <= value < 1e4 else f"×{value:.2g}"
