"""The exercise ``gradient-shift``: how far a layer's gradient moves when the layers before it take their step."""

import numpy as np

from ..theory.covariate_shift import cosine, loss_and_gradients, relative_shift, shifted_gradient
from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(14)

    def case(samples, lr, layer, *sizes):
        weights = [rng.normal(size=pair) / np.sqrt(pair[1]) for pair in zip(sizes[1:], sizes[:-1], strict=True)]
        x, target = rng.normal(size=(samples, sizes[0])), rng.normal(size=(samples, sizes[-1]))
        return Case((weights, lr, layer, x, target))

    return [case(30, 0.5, 1, 4, 5, 3, 2), case(20, 0.3, 2, 3, 4, 4, 5, 3), case(40, 1.0, 2, 5, 4, 6, 3)]


def _reference(weights, lr, layer, x, target):
    gradients = loss_and_gradients(weights, x, target)[1]
    later = [w - lr * g for w, g in zip(weights, gradients, strict=True)]
    before = gradients[layer]
    after = shifted_gradient(weights, later, layer, x, target)
    return relative_shift(before, after), cosine(before, after)


EXERCISE = Exercise(
    name="gradient-shift",
    usage="relative, cosine = my_shift(weights, lr, layer, x, target)",
    inputs=("weights", "lr", "layer", "x", "target"),
    outputs=("relative", "cosine"),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, *args: [as_float(value) for value in answer(*args)],
)


def _two(weights, lr, x, target, moved):
    """Gradients of all layers before and after a step of those layers for which ``moved(number)`` is true."""
    before = loss_and_gradients(weights, x, target)[1]
    pairs = enumerate(zip(weights, before, strict=True))
    later = [w - lr * g if moved(i) else w for i, (w, g) in pairs]
    return before, loss_and_gradients(later, x, target)[1]


@EXERCISE.mistake(
    "all-layers-moved",
    "You move every layer. Only the layers before this one take their step: a change of its own weights, or of those "
    "behind it, is no change of its inputs.",
)
def all_moved(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: True)
    return relative_shift(before[layer], after[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "layer-itself-moved",
    "You move the layer itself too. Its own weights stay: only the layers before it take their step.",
)
def itself(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i <= layer)
    return relative_shift(before[layer], after[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "layers-behind-moved",
    "You move the layers behind this one. The definition moves those before it: its inputs change.",
)
def behind(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i > layer)
    return relative_shift(before[layer], after[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "others-moved", "You move all layers but this one. Those behind it keep their weights too: move those before it."
)
def others(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i != layer)
    return relative_shift(before[layer], after[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake("step-upwards", "Your step goes along the gradient. Descent subtracts: `w - lr * gradient`.")
def upwards(weights, lr, layer, x, target):
    return _reference(weights, -lr, layer, x, target)


@EXERCISE.mistake(
    "not-relative",
    "Your first number is the length of the difference. Divide by the length of the gradient before the step: a loss "
    "in other units would give another number.",
)
def absolute(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i < layer)
    return np.linalg.norm(after[layer] - before[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "length-after", "You divide by the length of the moved gradient. The unit is the gradient before the step."
)
def length_after(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i < layer)
    return relative_shift(after[layer], before[layer]), cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "difference-of-lengths",
    "You compare the lengths of the two gradients. A gradient that turns keeps its length: take the length of the "
    "difference.",
)
def lengths(weights, lr, layer, x, target):
    before, after = _two(weights, lr, x, target, lambda i: i < layer)
    length, other = (np.linalg.norm(g[layer]) for g in (before, after))
    return np.abs(other - length) / length, cosine(before[layer], after[layer])


@EXERCISE.mistake(
    "layer-miscounted", "You look at another layer. `layer` counts from 0, as Python does: `weights[layer]` is meant."
)
def miscounted(weights, lr, layer, x, target):
    return _reference(weights, lr, layer - 1, x, target) if layer > 1 else (0.0, 1.0)
