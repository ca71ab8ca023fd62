"""Where the weights of a torch model start. Each function changes its convolutions and linear layers in place."""

import torch
from torch import nn


def layers(model):
    """The convolutions and linear layers of a model, in the order in which they were added."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def xavier(model):
    """Weights from Xavier's uniform distribution (Glorot & Bengio 2010), biases zero."""
    for layer in layers(model):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def he(model):
    """Weights from He's normal distribution for ReLU (He et al. 2015), biases zero; the last layer keeps Xavier's."""
    xavier(model)
    for layer in layers(model)[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


@torch.no_grad()
def data_dependent(model, batch):
    """Use the statistics of one batch once, before training: every channel starts at mean 0, variance 1 on it.

    Layer by layer, in the order in which the model calls them, each channel's weights are divided by the standard
    deviation of its pre-activation over the batch and all positions, and the bias cancels the mean (Mishkin & Matas
    2016, here with the mean). The last layer keeps its weights.

    Parameters
    ----------
    model : Module
        Without normalizers: every layer must have a bias. It is used in training mode, with dropout switched off.
    batch : tensor (N, ...)
        A few hundred training inputs.

    Raises
    ------
    ValueError
        If a layer has no bias, or a channel's pre-activation is the same everywhere.
    """
    *hidden, _ = layers(model)

    def normalize(layer, inputs, output):
        dims = [0, *range(2, output.ndim)]
        sd, mean = torch.std_mean(output, dims, correction=0)
        spread = output.amax(dims) - output.amin(dims)
        if (
            spread <= 1e-6 * output.abs().amax(dims)
        ).any():  # equal numbers may have a deviation above 0, by rounding
            raise ValueError(f"a channel of {layer} is the same for all {len(batch)} inputs: it cannot be scaled")
        layer.weight /= sd.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias.copy_((layer.bias - mean) / sd)
        shape = (1, -1, *[1] * (output.ndim - 2))
        return (output - mean.view(shape)) / sd.view(shape)

    for layer in hidden:
        if layer.bias is None:
            raise ValueError(f"{layer} has no bias that could cancel its mean: data_dependent is for plain nets")
    hooks = [layer.register_forward_hook(normalize) for layer in hidden]
    was_training = model.training
    try:
        model.eval()(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
