"""A view into three dimensions, drawn with the marks of a flat figure: legible on a phone, small as a frame.

matplotlib's own 3-D axes bring panes, ticks and a perspective that an argument about directions does not need.
"""

import numpy as np


class View:
    """Look at a space with one upright direction: first turn it about that direction, then look down a little.

    Parallel lines stay parallel, and a length across the line of sight is drawn at its size.

    Parameters
    ----------
    first, second, up : array (3,)
        Three directions at right angles, of any positive length. At ``turn=0`` ``first`` points to the right and
        ``second`` away from the eye.
    turn, tilt : float
        Degrees: of the turn about ``up``, and of looking down.

    Raises
    ------
    ValueError
        If the directions are not three vectors of three numbers at right angles.
    """

    def __init__(self, first, second, up, *, turn=0.0, tilt=20.0):
        frame = np.array([first, second, up], float)
        if frame.shape != (3, 3):
            raise ValueError(f"first, second and up must have shape (3,), got {frame.shape[1:]}")
        lengths = np.linalg.norm(frame, axis=1)
        if not lengths.all():
            raise ValueError("first, second and up must not be zero")
        frame /= lengths[:, None]
        if np.abs(frame @ frame.T - np.eye(3)).max() > 1e-8:
            raise ValueError(f"first, second and up must be at right angles, got {first}, {second}, {up}")
        turn, tilt = np.deg2rad([turn, tilt])
        right = np.cos(turn) * frame[0] + np.sin(turn) * frame[1]
        away = np.cos(turn) * frame[1] - np.sin(turn) * frame[0]
        self.onto = np.column_stack([right, np.cos(tilt) * frame[2] + np.sin(tilt) * away])

    def flat(self, points):
        """Where points (..., 3) of the space lie in the picture (..., 2)."""
        return np.asarray(points, float) @ self.onto

    def line(self, ax, points, **style):
        """Draw a line through points (n, 3)."""
        ax.plot(*self.flat(points).T, **style)

    def arrow(self, ax, tail, head, color, *, width=3, name=None, label=None):
        """Draw an arrow.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
        tail, head : array (3,)
        color : str
        width : float
            Of the line, in points.
        name : str, optional
            Written beside the arrow: to its left, or under it where it lies flat.
        label : str, optional
            Entry of the legend.
        """
        tail, head = self.flat(tail), self.flat(head)
        shape = {"arrowstyle": "-|>,head_width=0.28,head_length=0.55", "mutation_scale": 20, "lw": width}
        ends = {"shrinkA": 0, "shrinkB": 0, "color": color, "joinstyle": "miter"}
        ax.annotate("", head, tail, arrowprops=shape | ends)
        if name is not None:
            x, y = (head - tail) / max(np.hypot(*(head - tail)), 1e-12)
            beside = 16 * np.array([-abs(y), x * np.sign(y)]) if abs(y) > 1e-9 else (0, -16)
            at, middle = tail + 0.6 * (head - tail), {"ha": "center", "va": "center"}
            ax.annotate(name, at, beside, textcoords="offset points", fontsize=20, color=color, **middle)
        if label is not None:
            ax.plot([], [], color=color, linewidth=width, label=label)
