"""What is measured in a torch net while it trains: gradients, units that answer nothing, curvature."""

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from .models import Block


def gradient_norm(model):
    """Euclidean norm of the gradients of all parameters together, as float; after a step the clipped ones."""
    norms = [torch.linalg.vector_norm(p.grad) for p in model.parameters() if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


@torch.inference_mode()
def activations(model, x):
    """Outputs of the activation of every `Block`, in the order in which the model calls them, in evaluation mode.

    Parameters
    ----------
    model : Module
    x : tensor (N, ...)

    Returns
    -------
    list of tensor (N, C, *spatial)
    """
    found, was_training = [], model.training
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    hooks = [block.register_forward_hook(lambda block, inputs, output: found.append(output)) for block in blocks]
    try:
        model.eval()(x)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def dead(model, x):
    """Share of the channels of all activations that are positive nowhere, for none of the inputs: no gradient passes.

    Parameters
    ----------
    model : Module
        With ReLU; a sigmoid's output is always positive.
    x : tensor (N, ...)

    Returns
    -------
    float
    """
    alive = torch.cat([(h > 0).transpose(0, 1).flatten(1).any(1) for h in activations(model, x)])
    return float(1 - alive.double().mean())


def hessian_blocks(loss, weights):
    """Sizes of the blocks of the Hessian: how much the gradient of one layer depends on each layer's weights.

    Implements {eq}`eq-ld-blocks`. One backward pass through the gradient for each single weight.

    Parameters
    ----------
    loss : tensor ()
        With a graph back to the weights.
    weights : sequence of tensor
        One for each of K blocks.

    Returns
    -------
    tensor (K, K)
        Frobenius norms of the blocks.
    """
    weights = list(weights)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, create_graph=True)])
    squares = []
    for entry in gradient:
        row = torch.autograd.grad(entry, weights, retain_graph=True)
        squares.append(torch.stack([part.square().sum() for part in row]))
    of_layer = torch.stack(squares).split([w.numel() for w in weights])
    return torch.stack([rows.sum(0) for rows in of_layer]).sqrt()


def products(loss, weights):
    """The gradient as one vector, and the function that multiplies a vector by the Hessian.

    Implements {eq}`eq-cond-product`: the Hessian times v is the gradient of (gradient . v).

    Parameters
    ----------
    loss : tensor ()
        With a graph back to the weights.
    weights : sequence of tensor
        P numbers together.

    Returns
    -------
    gradient : tensor (P,)
        Without a graph.
    product : callable
        ``product(v) -> tensor (P,)``.
    """
    weights = list(weights)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, create_graph=True)])

    def product(v):
        parts = torch.autograd.grad(gradient, weights, v, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    return gradient.detach(), product


def hessian(loss, weights):
    """The whole Hessian, (P, P), one row after the other: for nets of a few thousand weights."""
    gradient, product = products(loss, weights)
    whole = torch.stack([product(row) for row in torch.eye(len(gradient), dtype=gradient.dtype)])
    return (whole + whole.T) / 2


def leading(product, like, count=10, tolerance=1e-6):
    """The largest eigenvalues of a symmetric matrix that is known by its products, and their eigenvectors.

    Lanczos' method, from a fixed start.

    Parameters
    ----------
    product : callable
        ``product(v) -> tensor (P,)``.
    like : tensor (P,)
        Of the size and dtype of v.
    count : int
    tolerance : float
        Relative error of the eigenvalues.

    Returns
    -------
    values : array (count,)
        Descending.
    vectors : array (P, count)
    """
    size = len(like)
    operator = LinearOperator(
        (size, size), matvec=lambda v: product(torch.as_tensor(v, dtype=like.dtype).flatten()).numpy(), dtype=float
    )
    start = np.random.default_rng(0).normal(size=size)
    values, vectors = eigsh(operator, count, which="LA", v0=start, tol=tolerance)
    return values[::-1].copy(), vectors[:, ::-1].copy()


def share(gradient, vectors):
    """Part of the gradient's squared length in the span of orthonormal vectors (P, k): {eq}`eq-cond-share`."""
    gradient = np.asarray(gradient, float)
    return float(np.square(vectors.T @ gradient).sum() / np.square(gradient).sum())


def fisher(outputs, weights):
    """The function that multiplies a vector by the Fisher matrix of outputs with Gaussian noise.

    Implements {eq}`eq-cond-fisher`: the mean over the samples of the outer products of the outputs' gradients, summed
    over the outputs.

    Parameters
    ----------
    outputs : tensor (N, K)
        With a graph back to the weights.
    weights : sequence of tensor

    Returns
    -------
    callable
        ``product(v) -> tensor (P,)``.
    """
    weights = list(weights)
    dual = torch.zeros_like(outputs, requires_grad=True)
    back = torch.cat([g.flatten() for g in torch.autograd.grad(outputs, weights, dual, create_graph=True)])

    def product(v):
        (along,) = torch.autograd.grad(back, dual, v, retain_graph=True)  # back is linear in dual
        parts = torch.autograd.grad(outputs, weights, along, retain_graph=True)
        return torch.cat([part.flatten() for part in parts]) / len(outputs)

    return product


def sides(model, loss, x):
    """How one-sided each linear layer's pre-activations and gradients are.

    Parameters
    ----------
    model : Module
    loss : callable
        ``loss(outputs) -> tensor ()``.
    x : tensor (N, ...)

    Returns
    -------
    list of dict
        One for each linear layer, in the order of the calls. ``mean``: root of the mean square of the units' means
        over that of their standard deviations. ``aligned``: the gradient's absolute entries, summed, over the same
        with the absolute value taken for each sample, {eq}`eq-cond-aligned`. ``along``: squared length of the
        gradient's part from the layer's mean input, {eq}`eq-cond-mean-part`, over that of the whole.
    """
    kept = []

    def keep(layer, inputs, output):
        kept.append((inputs[0].detach(), output))

    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [layer.register_forward_hook(keep) for layer in linears]
    try:
        value = loss(model(x))
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(value, [z for _, z in kept])
    found = []
    for (h, z), dz in zip(kept, gradients, strict=True):
        whole, alone = dz.T @ h, torch.outer(dz.sum(0), h.mean(0))
        spread, mean = z.detach().std(0, correction=0), z.detach().mean(0)
        found.append(
            {
                "mean": float((mean.square().mean() / spread.square().mean()).sqrt()),
                "aligned": float(whole.abs().sum() / (dz.abs().T @ h.abs()).sum()),
                "along": float(alone.square().sum() / whole.square().sum()),
            }
        )
    return found
