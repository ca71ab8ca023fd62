"""One style for every figure of the book. A colour has one meaning everywhere.

The book draws on white; the pages turn a figure dark by inverting its lightness and keeping its hues
(``book/_static/course.css``), so black marks become white and no figure is drawn twice.
"""

import matplotlib as mpl
from cycler import cycler

# The Okabe-Ito palette, safe for colour-blind readers; line styles repeat what the colour says.
COLORS = {
    "none": "#7f7f7f",  # no normalization
    "batchnorm": "#0072B2",
    "variant": "#D55E00",  # a disturbed or changed batch norm
    "dropout": "#009E73",
    "other": "#CC79A7",  # other normalizers
    "theory": "#000000",  # a bound or a prediction
}
LINES = {"none": "--", "batchnorm": "-", "variant": "-.", "dropout": ":", "other": (0, (5, 1, 1, 1)), "theory": "--"}
WIDTH = 7.0  # inches

STYLE = {
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 110,  # 770 pixels: sharp on a phone, about one to one beside text
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "image.cmap": "gray_r",
}


def use_style():
    """Make the style the default for all figures of this notebook."""
    mpl.rcParams.update(STYLE)


def look(kind):
    """Colour and line style of one kind of curve, as keyword arguments for ``ax.plot``.

    Parameters
    ----------
    kind : str
        A key of `COLORS`.
    """
    if kind not in COLORS:
        raise ValueError(f"no colour is fixed for {kind!r}: use one of {', '.join(COLORS)}")
    return {"color": COLORS[kind], "linestyle": LINES[kind]}


def bands(ax, rows, y, looks, x="step"):
    """Draw arms: the mean over the seeds as a line, the range over the seeds as a band.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    rows : pandas.DataFrame
        Columns ``arm``, ``seed``, ``x`` and ``y``, one row per arm, seed and point.
    y, x : str
        Names of columns.
    looks : dict
        arm -> keyword arguments for ``ax.plot``, such as a label and `look`. Arms of ``rows`` that are not in it,
        such as a learner's own, get the colour of a variant and their name.
    """
    for arm, part in rows.groupby("arm", sort=False):
        values = part.pivot_table(index=x, columns="seed", values=y).ffill()  # a run that ended stays where it was
        style = looks.get(arm, {"label": arm, **look("variant")})
        (line,) = ax.plot(values.index, values.mean(axis=1), **style)
        ax.fill_between(values.index, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.2, lw=0)


def batch_as_points(ax, x, y, center, spread):
    """A batch of one channel: inputs on the upper line, outputs on the lower one, a thin line joining each pair.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Cleared of ticks and spines.
    x, y : array (m,)
        Inputs and outputs.
    center, spread : float
        Mean and standard deviation of the inputs, drawn as a triangle and a bar.
    """
    high, low = 1.0, 0.0
    left, right = min(0, x.min()) - 1, max(30, x.max()) + 1
    scale = (right - left) / 10  # outputs from -5 to 5 fill the same width
    place = (right + left) / 2 + scale * y
    ax.set(xlim=(left, right), ylim=(-0.55, 1.6), yticks=[], xticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    for level in (high, low):
        ax.axhline(level, color="#b0b0b0", linewidth=1, zorder=0)
    ax.plot([center - spread, center + spread], [high + 0.24] * 2, color="black", linewidth=3)
    ax.plot(center, high + 0.24, marker="v", color="black", markersize=10)
    ax.text(center, high + 0.36, f"mean {center:.2f}, standard deviation {spread:.2f}", ha="center")
    for tick in range(-4, 5, 2):
        ax.text((right + left) / 2 + scale * tick, low - 0.4, f"{tick}", ha="center", color="#555555")
    for i in range(len(x)):
        ax.plot([x[i], place[i]], [high, low], color="#b0b0b0", linewidth=1, zorder=0)
        for at, level, color in ((x[i], high, COLORS["none"]), (place[i], low, COLORS["batchnorm"])):
            ax.plot(at, level, "o", color=color, markersize=16)
            ax.text(at, level - 0.01, str(i + 1), color="white", ha="center", va="center", fontsize=10)
    ax.text(left, high + 0.13, "inputs x", color="#555555")
    ax.text(left, low + 0.13, "outputs y", color=COLORS["batchnorm"])


def graph(ax, places, edges, done):
    """A computation as a graph, and how far a walk back through it has come.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Cleared of ticks and spines.
    places : dict
        Node -> (column, row).
    edges : list of (str, str)
        Pairs of nodes. The arrows point back, from the second to the first: the way of the gradient.
    done : list of str
        Nodes that the walk has reached, in blue with the edges between them; the last one is black.
    """
    ax.axis("off")
    for a, b in edges:
        color = COLORS["batchnorm"] if a in done and b in done else "#c0c0c0"
        arrow = {"arrowstyle": "->", "color": color, "shrinkA": 18, "shrinkB": 18, "lw": 2}
        ax.annotate("", places[a], places[b], arrowprops=arrow)
    for node, (column, row) in places.items():
        color = COLORS["batchnorm"] if node in done else "#757575"
        box = {"boxstyle": "round,pad=0.4", "fc": "black" if node == done[-1] else color, "ec": "none"}
        ax.text(column, row, node, ha="center", va="center", color="white", bbox=box)
