"""Compare an answer with the reference and with the known wrong versions, by output, on every case."""

import difflib
import html
import re
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..scratch.gradcheck import scaled_error
from . import (
    backward,
    boundaries,
    clipping,
    comparing,
    directions,
    drift,
    explosions,
    folding,
    forward,
    grouping,
    growing,
    inits,
    jacobians,
    layer,
    mcnemar,
    moving,
    outliers,
    population,
    ranks,
    running,
    shifts,
    shrink,
    smoothing,
    whitening,
    widths,
)
from .attempt import Problem, attempt, situation
from .worker import worker

TOPICS = (
    *(forward, backward, running, folding, inits, comparing, drift, whitening, population, growing, layer),
    widths,
    clipping,
    shrink,
    smoothing,
    shifts,
    grouping,
    mcnemar,
    moving,
    boundaries,
    directions,
    jacobians,
    outliers,
    ranks,
    explosions,
)
EXERCISES = {topic.EXERCISE.name: topic.EXERCISE for topic in TOPICS}


@dataclass(frozen=True, repr=False)
class Feedback:
    """What `check` found. Shows itself as text, and as a box in a notebook.

    Attributes
    ----------
    passed : bool
    mistake : str or None
        Stable name of the mistake; None when the answer is right or its mistake is not a known one.
    message : str
    """

    passed: bool
    mistake: str | None
    message: str

    def __str__(self):
        return f"{'Right.' if self.passed else 'Not yet.'} {self.message}"

    __repr__ = __str__

    def _repr_html_(self):
        kind, word, colour = ("right", "Right.", "#009E73") if self.passed else ("wrong", "Not yet.", "#D55E00")
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message))
        style = f"border-left: 4px solid {colour}; padding: 0.3em 0.8em; margin: 0.5em 0; overflow-wrap: anywhere"
        return f'<div class="bn-feedback bn-{kind}" style="{style}"><strong>{word}</strong> {text}</div>'


def check(name, answer):
    """Check the answer to an exercise.

    Parameters
    ----------
    name : str
        Of the exercise, such as ``"batchnorm-forward"``.
    answer : callable
        Your function or class. It is called on copies of the inputs, in another process, and has ``worker.LIMIT``
        seconds for all cases: a loop without end is stopped. What it changes outside of itself is not seen here.

    Returns
    -------
    Feedback

    Raises
    ------
    ValueError
        If there is no exercise of that name.
    """
    if not isinstance(name, str) or name not in EXERCISES:
        close = difflib.get_close_matches(str(name), EXERCISES, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no exercise {name!r}.{hint} The exercises are: {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    if not callable(answer):
        text = f"Hand in your function or class itself, not a value: this is one {type(answer).__name__}."
        return Feedback(False, "not-callable", f"{text} The checker calls it as `{exercise.usage}`.")
    expected = [attempt(exercise, case, exercise.reference) for case in exercise.cases]
    got = worker.run(partial(outcomes, name), answer)
    if isinstance(got, Problem):
        return Feedback(False, got.slug, f"{got.text} The checker calls it as `{exercise.usage}`.")
    if all(map(agree, exercise.cases, expected, got)):
        return Feedback(True, None, f"Your answer agrees with the reference on all {len(got)} cases.")
    problems = [outcome for outcome in got if isinstance(outcome, Problem)]
    for slug, mistake in exercise.mistakes.items():
        if any(makes(exercise, version, expected, got) for version in mistake.versions):
            raised = [f" {outcome.text}" for outcome in problems if outcome.slug == "raised"]
            return Feedback(False, slug, "".join([mistake.message, *raised[:1]]))
    if problems:
        return Feedback(False, problems[0].slug, problems[0].text)
    return Feedback(False, None, first_difference(exercise, expected, got))


def outcomes(name, answer):
    """What comes of an answer in each case of an exercise: arrays, or a `Problem`."""
    exercise = EXERCISES[name]
    expected = [attempt(exercise, case, exercise.reference) for case in exercise.cases]
    return [attempt(exercise, case, answer, right) for case, right in zip(exercise.cases, expected, strict=True)]


def agree(case, a, b):
    """Are two outcomes of a case the same?"""
    if isinstance(a, Problem) or isinstance(b, Problem):
        return isinstance(a, Problem) and isinstance(b, Problem) and a[:2] == b[:2]
    return all(scaled_error(u, v) <= case.tolerance for u, v in zip(a, b, strict=True))


def makes(exercise, version, expected, got):
    """Does the answer behave as this wrong version on every case?

    On a rough case a version that is right says nothing, and values that are both wrong agree.
    """
    for case, right, outcome in zip(exercise.cases, expected, got, strict=True):
        wrong = attempt(exercise, case, version, right)
        if agree(case, wrong, outcome):
            continue
        lost = [w for w in (wrong, outcome) if not agree(case, w, right) and not blocked(w)]
        if not case.rough or not (agree(case, wrong, right) or len(lost) == 2):
            return False
    return True


def blocked(outcome):
    """Is there no value at all? NaN is one: a cancelled variance can be negative."""
    return isinstance(outcome, Problem) and outcome.slug != "not-finite"


def first_difference(exercise, expected, got):
    """The first case that fails, and its first wrong entry."""
    for case, right, outcome in zip(exercise.cases, expected, got, strict=True):
        for name, r, g in zip(exercise.outputs, right, outcome, strict=False):
            bound = case.tolerance * max(np.abs(r).max(), np.abs(g).max())
            wrong = np.argwhere(np.abs(r - g) > bound)
            if len(wrong):
                i = tuple(map(int, wrong[0]))
                digits = 6 if f"{r[i]:.6g}" != f"{g[i]:.6g}" else 12
                entry = f"{name}[{', '.join(map(str, i))}]" if i else name
                text = f"`{entry}` should be {r[i]:.{digits}g}, yours is {g[i]:.{digits}g}"
                return f"{text}. {len(wrong)} of {r.size} values differ. {situation(exercise, case)}"
    raise AssertionError("called without a difference")
