"""What a trained net says of images: probabilities, with running, population or batch statistics in its BN layers."""

import copy

import torch

from .norms import BatchNorm


@torch.no_grad()
def probabilities(model, x, batch=500):
    """Probabilities of the classes in evaluation mode. Leaves the model in evaluation mode.

    Parameters
    ----------
    model : Module
    x : tensor (N, ...)
    batch : int
        Samples at a time: decides nothing but the memory.

    Returns
    -------
    tensor (N, classes)
    """
    model.eval()
    return torch.cat([model(part).softmax(1) for part in x.split(batch)])


@torch.no_grad()
def population(model, batches):
    """A copy of the model in evaluation mode, its statistics averaged over these batches: {prf:ref}`alg-inference`.

    Implements {eq}`eq-population`: plain averages of the batch means and of the unbiased batch variances.

    Parameters
    ----------
    model : Module
        Not changed.
    batches : iterable of tensor (N, ...)
        All of one size, that of training.
    """
    model = copy.deepcopy(model).train()
    norms = {module: module.momentum for module in model.modules() if isinstance(module, BatchNorm)}
    for count, batch in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 / count  # a moving average whose weights are all alike
        model(batch)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return model.eval()


@torch.no_grad()
def by_batch(model, x, size, rng):
    """Probabilities with the statistics of the test batch itself: each image meets ``size - 1`` others by chance.

    Parameters
    ----------
    model : Module
        Not changed.
    x : tensor (N, ...)
    size : int
        Samples of a batch, at most N. Where N is no multiple of it, images that had their turn fill the last batch.
    rng : numpy.random.Generator
        Of the order.

    Returns
    -------
    tensor (N, classes)
        One answer for each image.
    """
    if not 1 <= size <= len(x):
        raise ValueError(f"size must be from 1 to the {len(x)} images, got {size}")
    model = copy.deepcopy(model).train()
    order = torch.from_numpy(rng.permutation(len(x)))
    missing = -len(x) % size
    answers = torch.cat([model(x[part]).softmax(1) for part in torch.cat([order, order[:missing]]).split(size)])
    found = torch.empty_like(answers[: len(x)])
    found[order] = answers[: len(x)]
    return found
