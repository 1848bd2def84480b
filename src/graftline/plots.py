"""Plots with one look, whose bytes depend on their data only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, MUTED, WARN = "#1f2933", "#2f6f4f", "#9aa5b1", "#b4532a"


def figure(width: float = 6.4, height: float = 3.6) -> Figure:
    """Return an empty figure of `width` by `height` inches, drawn without a screen."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(
        {
            "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.spines.right": False, "axes.spines.top": False,
            "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.grid": True,
            "grid.color": "#e4e7eb", "grid.linewidth": 0.8, "axes.axisbelow": True, "font.size": 9,
            "text.color": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
            "axes.formatter.min_exponent": 4,  # 4.6 and not 4.6 times 10 to the 0
        }
    )  # fmt: skip
    return Figure(figsize=(width, height), layout="constrained")


def legend(plot: Figure, columns: int = 3, note: str | None = None) -> None:
    """Name the lines and bars of `plot` below its axes, where a name covers nothing; with a small note above them."""
    made = plot.legend(loc="outside lower center", ncols=columns, title=note, title_fontsize=8)
    made.get_title().set_color(MUTED)


def plain(text: str) -> str:
    """Return what matplotlib shows as this text: between two dollars it would read a formula."""
    return text.replace("$", r"\$")


def cut(text: str, most: int) -> str:
    """Return a text with its end left out where it has more letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def save(plot: Figure, path: Path) -> None:
    """Write `plot` as a PNG without the time and version that matplotlib would put in.

    By its canvas: `savefig` gives the same bytes, and draws all of it twice, once to place it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    plot.set_dpi(120)
    FigureCanvasAgg(plot).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]


def show_image(axes: Axes, pixels: np.ndarray, *, ink: bool = False) -> None:
    """Draw (1 or 3, height, width) pixels from 0 to 1; with `ink` pixel by pixel, and grey ones dark on white."""
    axes.set(xticks=[], yticks=[])  # matplotlib places ticks of hidden axes too, which took a third of the drawing
    _image(axes, pixels, ink)


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure, and axes over all of it that are not seen: they count inches from its upper left corner.

    For many pictures beside one another: axes for each of them took three quarters of the time.
    """
    plot = figure(width, height)
    plot.set_layout_engine("none")
    axes = plot.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_axis_off()
    return plot, axes


def place_image(
    axes: Axes, pixels: np.ndarray, box: tuple[float, float, float, float], *, ink: bool = False
) -> tuple[float, float]:
    """Draw a picture as `show_image` does, in the middle of a box of a sheet, as large as fits.

    Args:
        axes: of a sheet.
        pixels: (1 or 3, height, width), from 0 to 1.
        box: its left, top, width and height, in inches.
        ink: see `show_image`.

    Returns:
        the picture's top and bottom, in inches.
    """
    left, top, width, height = box
    tall, wide = pixels.shape[1:]
    scale = min(width / wide, height / tall)
    left, top = left + (width - scale * wide) / 2, top + (height - scale * tall) / 2
    bottom = top + scale * tall
    _image(axes, pixels, ink, extent=(left, left + scale * wide, bottom, top), aspect="auto")
    return top, bottom


def _image(axes: Axes, pixels: np.ndarray, ink: bool, **where: Any) -> None:
    grey = len(pixels) == 1
    shown = pixels[0] if grey else pixels.transpose(1, 2, 0).clip(0, 1)
    axes.imshow(
        1 - shown if ink and grey else shown,
        cmap="gray", vmin=0, vmax=1, interpolation="nearest" if ink else None, **where,
    )  # fmt: skip


def loss_curve(lines: list[dict[str, float]], path: Path, *, title: str, unit: str, log: bool = False) -> None:
    """Draw the loss of each step of a metrics file, and its running mean."""
    from matplotlib.ticker import MaxNLocator

    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["loss"] for line in lines])
    window = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    plot = figure()
    axes = plot.subplots()
    axes.plot(steps, losses, color=MUTED, linewidth=0.6, alpha=0.7, label="each step")
    dot = "o" if len(smooth) == 1 else None  # a line needs two points
    axes.plot(steps[window - 1 :], smooth, color=ACCENT, linewidth=1.8, marker=dot, label=f"mean of {window} steps")
    axes.set(yscale="log" if log else "linear", xlabel="step", ylabel=unit, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(plot)
    save(plot, path)
