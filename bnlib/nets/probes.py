"""What is measured in a torch net while it trains: the size of its gradients, and units that answer nothing."""

import torch

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
