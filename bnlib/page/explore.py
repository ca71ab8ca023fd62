"""`explore`: one call, two lives. Sliders with a kernel; frames, or a computed figure, in the built page."""

import base64
import html
import io
import itertools
import json
import os
from numbers import Real
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from .figures import STYLE

LIVE = Path(__file__).parent / "live"
MAX_FRAMES = 200  # a page must stay under 2 MB


class Explore:
    """A figure with sliders; made by `explore`. It chooses its form when it is displayed."""

    def __init__(self, draw, alt, live, size, start, values):
        self.draw, self.alt, self.live, self.values = draw, alt, live, values
        self.start = tuple(values[name].index(start.get(name, values[name][0])) for name in values)
        with mpl.rc_context(STYLE):  # one figure for all frames: drawing into a new one costs twice as much
            self.figure = matplotlib.figure.Figure(figsize=size)
        FigureCanvasAgg(self.figure)
        # Drawn here and not on display: IPython prints an error of a display method, and the cell would pass.
        self.page = self._page() if os.environ.get("BNLIB_BUILD") else None
        self.first = self.picture(self.start, "png")
        self.say(self.start)

    def at(self, place):
        """Values of the sliders at a tuple of positions."""
        return {name: steps[i] for (name, steps), i in zip(self.values.items(), place, strict=True)}

    def say(self, place):
        """The words for one place."""
        text = self.alt(**self.at(place))
        if not isinstance(text, str):
            raise TypeError(f"alt must return a string, got {type(text).__name__} for {self.at(place)}")
        return text

    def picture(self, place, file_format):
        """The figure at one place, as bytes of a PNG or of a lossless WebP."""
        with mpl.rc_context(STYLE):
            self.figure.clear()
            self.draw(self.figure, **self.at(place))
            self.figure.canvas.draw()
        image = Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3])
        buffer = io.BytesIO()
        image.save(buffer, file_format, **({"lossless": True, "method": 4} if file_format == "webp" else {}))
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        alt = self.say(self.start)
        if self.page:
            return {"text/html": self.page, "text/plain": alt}
        still = f'<img src="{_uri("png", self.first)}" alt="{html.escape(alt)}">'
        return {**self._widget()._repr_mimebundle_(), "text/html": still, "text/plain": alt}

    def _page(self):
        """The custom element of the built page: a first picture, the sliders, and the data behind them."""
        first = self.picture(self.start, "webp")
        width, height = (round(side * self.figure.dpi) for side in self.figure.get_size_inches())
        data = {
            "labels": {name: [_label(v) for v in steps] for name, steps in self.values.items()},
            "start": self.start,
        }
        if self.live:
            data |= {"live": self.live, "values": self.values}
        else:
            places = list(itertools.product(*(range(len(steps)) for steps in self.values.values())))
            data["frames"] = [base64.b64encode(self.picture(p, "webp")).decode() for p in places]
            data["alts"] = [self.say(p) for p in places]
        alt = html.escape(self.say(self.start))
        inline = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # no text may end the script element
        return (
            f'<bn-explore class="bn-explore"><div class="bn-view"><img src="{_uri("webp", first)}" alt="{alt}" '
            f'width="{width}" height="{height}"></div><p class="bn-words" aria-hidden="true">{alt}</p>'
            f'<script type="application/json">{inline}</script></bn-explore>'
        )

    def _widget(self):
        """ipywidgets sliders and a play button that redraw the figure through the kernel."""
        import ipywidgets as widgets  # only where a kernel answers

        view = widgets.Image(format="png", layout=widgets.Layout(width="100%", max_width="770px"))
        words = widgets.HTML()
        sliders = [
            widgets.SelectionSlider(
                options=[(_label(v), i) for i, v in enumerate(steps)],
                value=self.start[k],
                description=_spoken(name),
                style={"description_width": "initial"},
                layout=widgets.Layout(width="24em"),
            )
            for k, (name, steps) in enumerate(self.values.items())
        ]

        def show(_=None):
            place = tuple(s.value for s in sliders)
            view.value = self.picture(place, "png")
            words.value = html.escape(self.say(place))

        for slider in sliders:
            slider.observe(show, "value")
        play = widgets.Play(max=len(sliders[0].options) - 1, value=self.start[0], interval=400)
        widgets.jslink((play, "value"), (sliders[0], "index"))
        show()
        return widgets.VBox([view, words, *sliders, play])


def explore(draw, *, alt, live=None, size=(7.0, 3.6), start=None, **values):
    """Show a figure with one to three sliders.

    With a kernel the sliders are ipywidgets and call ``draw``. In the built page every combination of values
    is drawn beforehand as a frame; with ``live`` the page computes the figure itself.

    Parameters
    ----------
    draw : callable
        ``draw(fig, **values)`` draws one state into the empty matplotlib figure it is given.
    alt : callable
        ``alt(**values) -> str`` says in words, with its numbers, what that state shows.
    live : str, optional
        Name of the JavaScript module in ``bnlib/page/live`` that computes this figure in the page.
    size : (float, float)
        Width and height in inches.
    start : dict, optional
        First value of a slider, where it is not the first of its list.
    **values : list
        A list of at least two values for each slider, named as it.

    Returns
    -------
    Explore
        Displays itself.

    Raises
    ------
    ValueError
        If there are no or more than three sliders, a list is too short, holds two values that read the same or one
        that is not finite, a start value is not in its list, there is no module ``live``, or more than 200 frames
        would be drawn.
    TypeError
        If ``alt`` returns no string.
    """
    values = {name: [_plain(v) for v in steps] for name, steps in values.items()}
    start = start or {}
    if not 1 <= len(values) <= 3:
        raise ValueError(f"explore takes one to three sliders, got {len(values)}: {', '.join(values) or 'none'}")
    for name, steps in values.items():
        if len(steps) < 2:
            raise ValueError(f"slider {name!r} needs at least two values, got {steps}")
        labels = [_label(v) for v in steps]
        if len(set(labels)) < len(labels) or not {"nan", "inf", "-inf"}.isdisjoint(labels):
            raise ValueError(f"the values of slider {name!r} must be finite and read differently, got {labels}")
    for name, value in start.items():
        if value not in values.get(name, []):
            raise ValueError(f"start: {name} = {value!r} is not among the values {values.get(name)}")
    modules = sorted(path.stem for path in LIVE.glob("*.js"))
    if live is not None and live not in modules:
        raise ValueError(f"there is no module {live!r} in {LIVE}, only {', '.join(modules)}")
    frames = 1
    for steps in values.values():
        frames *= len(steps)
    if frames > MAX_FRAMES and not live:
        raise ValueError(f"{frames} frames are more than {MAX_FRAMES}: give the sliders fewer values")
    return Explore(draw, alt, live, size, start, values)


def _plain(value):
    """A NumPy scalar as a Python one: only those can be written into the page."""
    return value.item() if isinstance(value, np.generic) else value


def _label(value):
    return f"{value:.10g}" if isinstance(value, Real) and not isinstance(value, bool) else str(value)


def _spoken(name):
    return name.replace("_", " ")


def _uri(kind, data):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
