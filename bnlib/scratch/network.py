"""A network as a list of layers, the loss and the training loop. Home of the course's sick net."""

import os
from numbers import Integral

import numpy as np
from tqdm.auto import tqdm

from .checks import NotFinite, check_float
from .layers import Conv2d, Flatten, Linear, ReLU, Sigmoid
from .optimizers import SGD


class Sequential:
    """Layers applied one after another.

    Parameters
    ----------
    layers : list of Layer
    """

    def __init__(self, layers):
        self.layers = list(layers)

    def forward(self, x, training=True):
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy, to_input=True):
        """Fill all ``grads``; returns the gradient with respect to the input.

        With ``to_input=False`` a first `Linear` or `Conv2d` layer leaves it out, and None is returned.
        """
        for layer in reversed(self.layers[1:]):
            dy = layer.backward(dy)
        first = self.layers[0]
        if to_input or type(first) not in (Linear, Conv2d):
            return first.backward(dy)
        first.fill_grads(dy)  # nothing before the first layer learns: a quarter of an MLP's time is saved

    def activations(self, x, training=False):
        """Inputs and outputs of every layer: a list of ``len(layers) + 1`` arrays, the first is ``x``."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer.forward(outputs[-1], training))
        return outputs


def softmax_cross_entropy(logits, labels):
    """Mean cross-entropy of softmax probabilities, and its gradient.

    Implements {eq}`eq-cross-entropy`.

    Parameters
    ----------
    logits : array (N, classes)
    labels : int array (N,)

    Returns
    -------
    loss : float
    dlogits : array (N, classes), dtype of logits
    """
    rows = np.arange(len(logits))
    shifted = logits - logits.max(1, keepdims=True)  # exp never overflows, the softmax is the same
    log_prob = shifted
    log_prob -= np.log(np.exp(shifted).sum(1, keepdims=True))
    dlogits = np.exp(log_prob)
    dlogits[rows, labels] -= 1
    dlogits /= len(logits)
    return float(-log_prob[rows, labels].sum() / len(logits)), dlogits


def accuracy(net, x, labels):
    """Share of samples classified right in evaluation mode, from 0 to 1."""
    pieces = [slice(start, start + 500) for start in range(0, len(x), 500)]  # small enough to stay in the cache
    return sum(int((net.forward(x[p], training=False).argmax(1) == labels[p]).sum()) for p in pieces) / len(x)


def fit(
    net,
    x,
    labels,
    *,
    lr,
    steps,
    validation,
    batch=64,
    every=50,
    seed=0,
    optimizer=SGD,
    probe=None,
    until=None,
    progress=None,
):
    """Train on random mini-batches, with plain SGD unless another optimizer is given.

    Parameters
    ----------
    net : Sequential
        Changed in place.
    x : array (N, features)
    labels : int array (N,)
    lr : float
    steps : int
    validation : (array, int array)
        Inputs and labels on which the accuracy is taken.
    batch, seed : int
        Batch size, seed of the order of the samples.
    every : int, collection of int or callable
        Steps between two evaluations, or the steps after which to evaluate, or ``every(step, history) -> bool``,
        asked after each step. The last step is always one.
    optimizer : callable
        ``optimizer(lr)`` gives an object with a method ``step(net)``, such as `SGD`.
    probe : callable, optional
        ``probe(net, step) -> dict`` of further entries for the row, called at each evaluation.
    until : callable, optional
        ``until(history) -> bool``, asked after each evaluation: training ends where it is True.
    progress : bool, optional
        Show a progress bar. By default yes, but not on the pages of the built book.

    Returns
    -------
    list of dict
        One row per evaluation: ``step``, ``loss`` (of the last mini-batch), ``accuracy``. Training stops at a loss
        that is not finite: the last row then has ``loss`` NaN and the accuracy of chance, 1 / classes.

    Raises
    ------
    ValueError
        If the number of labels differs from the number of samples, or fewer samples than one batch are given.
    """
    if len(x) != len(labels) or len(x) < batch:
        raise ValueError(f"x {x.shape} and labels {labels.shape} must have one length, at least batch = {batch}")
    check_float("x", x)
    rng = np.random.default_rng(seed)
    if isinstance(every, Integral):
        every = range(every, steps + 1, every)
    if not callable(every):
        chosen_steps = frozenset(every)

        def every(step, history):
            return step in chosen_steps

    update = optimizer(lr)
    quiet = bool(os.environ.get("BNLIB_BUILD")) if progress is None else not progress
    history, order = [], np.empty(0, int)
    for step in tqdm(range(1, steps + 1), disable=quiet, desc=f"lr {lr:g}", leave=False):
        if len(order) < batch:  # a new epoch; a ragged last batch is left out
            order = rng.permutation(len(x))
        chosen, order = order[:batch], order[batch:]
        try:
            loss, dlogits = softmax_cross_entropy(net.forward(x[chosen]), labels[chosen])
            if not np.isfinite(loss):
                raise NotFinite(f"the loss is {loss}")
            net.backward(dlogits, to_input=False)
            update.step(net)
            if step == steps or every(step, history):
                row = {"step": step, "loss": loss, "accuracy": accuracy(net, *validation)}
                history.append(row if probe is None else row | probe(net, step))
                if until is not None and until(history):
                    break
        except NotFinite:  # diverged: a result, not an error
            classes = len(net.layers[-1].params["bias"])
            history.append({"step": step, "loss": float("nan"), "accuracy": 1 / classes})
            break
    return history


def mlp(sizes, seed=0, activation=Sigmoid, norm=None):
    """A multilayer perceptron: Linear, norm, activation for each hidden layer, then Linear.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden widths, classes.
    seed : int
        Of the initial weights: the same seed gives the same weights with and without ``norm``.
    activation : class of Layer
    norm : callable, optional
        ``norm(channels) -> Layer``, such as `BatchNorm`.
    """
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers.append(Linear(inputs, outputs, rng))
        if norm is not None:
            layers.append(norm(outputs))
        layers.append(activation())
    return Sequential([*layers, Linear(sizes[-2], sizes[-1], rng)])


def sick_net(norm=None, seed=0):
    """The net of ``start-here``: 784 inputs, six hidden layers of 100 sigmoids, 10 classes."""
    return mlp([784, *[100] * 6, 10], seed=seed, norm=norm)


def small_cnn(norm=None, seed=0):
    """A net for images (N, 1, 28, 28): two 3 x 3 convolutions with stride 2, 8 and 16 maps and ReLU, then Linear.

    Parameters as for `mlp`; about 9,000 weights.
    """
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in ((1, 8), (8, 16)):
        layers.append(Conv2d(inputs, outputs, 3, rng, stride=2, padding=1))
        if norm is not None:
            layers.append(norm(outputs))
        layers.append(ReLU())
    return Sequential([*layers, Flatten(), Linear(16 * 7 * 7, 10, rng)])


def pixels(images):
    """Images (N, 28, 28) of bytes as float32 vectors (N, 784), shifted and scaled to about mean 0, variance 1.

    The two constants are the mean and standard deviation of MNIST's pixels, rounded.
    """
    return ((images.reshape(len(images), -1) / 255 - 0.13) / 0.31).astype(np.float32)
