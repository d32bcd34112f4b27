"""Draws what `tests.bench.peers` measured, for pages of light and of dark ground: ``python -m tests.bench.chart``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.goals import median
from tests.bench.peers.result import PHASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = Path(__file__).with_name("results")
OURS = "vbackup"
LIMITS = {"bare loop", "nbdcopy to null", "libvirt's job alone"}
SLOWER, FASTER, LIMIT, TEXT = "#3b82c4", "#d9822b", "#8f8f8f", "#808080"
"""Colours of bars, and of all else: none is too light for white or too dark for black."""
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
WIDTH, BAR, TITLE = 8.0, 0.19, 0.55
"""Inches: of the chart, of a bar's row, and of what is between two phases."""


def draw(source: Path, to: Path) -> None:
    """Draw the wall time of each tool relative to ours, phase by phase, on a scale that is logarithmic."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    tools = json.loads(source.read_bytes())["tools"]
    walls = {phase: _walls(tools, phase) for phase in PHASES}
    heights = [BAR * (len(each) - 1) for each in walls.values()]
    style = {"svg.fonttype": "none", "svg.hashsalt": "vbackup", "font.family": "sans-serif", "font.size": 9,
             "text.color": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT}  # fmt: skip
    with mpl.rc_context(style):
        height = sum(heights) + TITLE * (len(heights) + 1)
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(len(walls), sharex=True, gridspec_kw={"height_ratios": heights})
        for ax, (phase, each) in zip(axes, walls.items(), strict=True):
            _phase(ax, PHASES[phase], each)
        _scale(axes[-1], [wall / each[OURS] for each in walls.values() for wall in each.values()])
        figure.subplots_adjust(
            left=0.2, right=0.97, top=1 - 0.45 / height, bottom=0.5 / height, hspace=TITLE * len(heights) / sum(heights)
        )
        figure.savefig(to, transparent=True, metadata={"Date": None})


def _walls(tools: Mapping[str, Any], phase: str) -> dict[str, float]:
    """Return medians in seconds, the slowest first."""
    found = {name: median([spent["wall"] for spent in of[phase]]) for name, of in tools.items() if phase in of}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _phase(ax: Axes, title: str, walls: Mapping[str, float]) -> None:
    ours = walls[OURS]
    others = {name: wall / ours for name, wall in walls.items() if name != OURS}
    for row, (name, ratio) in enumerate(reversed(others.items())):
        colour = LIMIT if name in LIMITS else SLOWER if ratio >= 1 else FASTER
        ax.barh(row, ratio - 1, left=1, height=0.72, color=colour)
        side = "left" if ratio >= 1 else "right"
        ax.annotate(f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x", (ratio, row), (3 if ratio >= 1 else -3, 0),
                    textcoords="offset points", ha=side, va="center", fontsize=8)  # fmt: skip
    ax.set_yticks(range(len(others)), list(reversed(others)))
    ax.set_title(f"{title[0].upper()}{title[1:]}: vbackup {ours:.1f} s", loc="left", fontsize=10, fontweight="bold")
    ax.axvline(1, color=TEXT, linewidth=1)
    ax.grid(visible=True, axis="x", color=TEXT, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _scale(ax: Axes, ratios: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log")
    ax.set_xlim(min(ratios) / 1.4, max(ratios) * 1.4)
    ax.set_xticks(TICKS, [f"{tick:g}x" for tick in TICKS])
    ax.set_xlim(min(ratios) / 1.4, max(ratios) * 1.4)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(
        "wall time, vbackup = 1; blue: slower, orange: faster, grey: limits, which do only a part of the work"
    )


if __name__ == "__main__":
    draw(RESULTS / "bench.json", RESULTS / "bench.svg")
