"""The exercise ``clip-gradients``: scale all gradients down together where their common norm is too large."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(15)

    def case(limit, *norms):
        """Three gradients of these norms: a matrix, a vector, the weights of a convolution."""
        shapes = [(4, 3), (5,), (2, 2, 3, 3)]
        grads = [rng.normal(size=shape) for shape in shapes]
        grads = [norm * g / np.sqrt((g**2).sum()) for norm, g in zip(norms, grads, strict=True)]
        return Case((grads, limit), tolerance=1e-4)  # float32 is precise enough, and so is a guard against 0

    return [
        case(2.0, 1.5, 1.9, 1.8),  # each is below the limit, all together are not
        case(0.5, 4.0, 0.2, 3.0),  # two are above it
        case(3.0, 1.2, 0.9, 1.4),  # all together are below it: nothing happens
        case(1.5, 0.3, 0.4, 0.6),  # below it too, and the squares add up to less than 1
    ]


def _norm(grads):
    return np.sqrt(sum((g**2).sum() for g in grads))


def _scaled(grads, norm, limit):
    return [g * min(1.0, limit / norm) for g in grads]


def _run(answer, grads, limit):
    clipped = answer(grads, limit)
    return [as_float(g) for g in clipped] if isinstance(clipped, tuple | list) else clipped


def _reference(grads, limit):
    return _scaled(grads, _norm(grads), limit)


EXERCISE = Exercise(
    name="clip-gradients",
    usage="clipped = my_clip(grads, limit)",
    inputs=("grads", "limit"),
    outputs=("clipped[0]", "clipped[1]", "clipped[2]"),
    reference=_reference,
    cases=_cases(),
    run=_run,
)


@EXERCISE.mistake(
    "each-on-its-own",
    "You clip each gradient by its own norm. That changes how long they are beside each other, so the step "
    "points in another direction. One norm for all of them, and one factor.",
)
def each_on_its_own(grads, limit):
    return [g * min(1.0, limit / np.sqrt((g**2).sum())) for g in grads]


@EXERCISE.mistake(
    "by-value",
    "You cut off every entry on its own at `limit`. Entries below it stay, so the direction of the step changes. "
    "Here all entries are to be multiplied by one factor.",
)
def by_value(grads, limit):
    return [np.clip(g, -limit, limit) for g in grads]


@EXERCISE.mistake(
    "always-scaled",
    "You scale small gradients up: the factor is used where the norm is below the limit too. Near a minimum the "
    "steps would never get shorter. The factor is at most 1.",
)
def always_scaled(grads, limit):
    return [g * limit / _norm(grads) for g in grads]


@EXERCISE.mistake(
    "scaled-up-only",
    "You leave large gradients as they are and scale small ones up. Look at the direction of your comparison, "
    "or at `max` in the place of `min`.",
)
def scaled_up_only(grads, limit):
    return [g * max(1.0, limit / _norm(grads)) for g in grads]


@EXERCISE.mistake(
    "upside-down",
    "Your factor is upside down: the larger the norm, the larger it gets. After clipping, the norm is to be `limit`.",
)
def upside_down(grads, limit):
    norm = _norm(grads)
    return [g * (norm / limit if norm > limit else 1.0) for g in grads]


@EXERCISE.mistake(
    "norms-added",
    "You add up the norms of the gradients. The norm of all of them together is the root of the sum of their "
    "squares, as if they were one long vector.",
)
def norms_added(grads, limit):
    return _scaled(grads, sum(np.sqrt((g**2).sum()) for g in grads), limit)


@EXERCISE.mistake(
    "root-forgotten",
    "You compare the sum of the squares with the limit and divide by it. A root is missing: the norm is the root of "
    "that sum.",
)
def root_forgotten(grads, limit):
    return _scaled(grads, _norm(grads) ** 2, limit)


@EXERCISE.mistake("root-forgotten")
def root_forgotten_in_the_factor(grads, limit):
    norm = _norm(grads)
    return [g * limit / norm**2 if norm > limit else g for g in grads]


@EXERCISE.mistake(
    "largest-norm",
    "You divide by the norm of the largest gradient. All gradients belong to one vector, so all of them count.",
)
def largest_norm(grads, limit):
    return _scaled(grads, max(np.sqrt((g**2).sum()) for g in grads), limit)


@EXERCISE.mistake(
    "largest-entry",
    "You compare the largest entry with the limit. That is the maximum norm; asked for is the Euclidean one, the "
    "root of the sum of squares.",
)
def largest_entry(grads, limit):
    return _scaled(grads, max(np.abs(g).max() for g in grads), limit)


@EXERCISE.mistake(
    "absolute-values",
    "You add up absolute values. That norm grows with the number of weights; asked for is the root of the sum of "
    "squares.",
)
def absolute_values(grads, limit):
    return _scaled(grads, sum(np.abs(g).sum() for g in grads), limit)


@EXERCISE.mistake(
    "root-mean-square",
    "You take the root of the mean square, over entries or over gradients. The norm is the root of the sum of "
    "squares, without a division.",
)
def root_mean_square(grads, limit):
    return _scaled(grads, _norm(grads) / np.sqrt(sum(g.size for g in grads)), limit)


@EXERCISE.mistake("root-mean-square")
def root_mean_of_three(grads, limit):
    return _scaled(grads, _norm(grads) / np.sqrt(len(grads)), limit)


@EXERCISE.mistake(
    "limit-forgotten",
    "Where the norm is too large you divide by it and stop there. The gradients then have norm 1: the limit has to "
    "come in.",
)
def limit_forgotten(grads, limit):
    norm = _norm(grads)
    return [g / norm if norm > limit else g for g in grads]


@EXERCISE.mistake(
    "step-skipped",
    "You set gradients that are too large to zero. The step would be skipped; clipping keeps its direction and "
    "shortens it.",
)
def step_skipped(grads, limit):
    return [g * (_norm(grads) <= limit) for g in grads]


@EXERCISE.mistake(
    "not-clipped",
    "Your gradients come back as they were, also where their common norm is above the limit.",
)
def not_clipped(grads, limit):
    return list(grads)
