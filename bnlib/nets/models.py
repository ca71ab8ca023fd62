"""The nets that Parts II to IV train. Weights are drawn from torch's generator: seed it first.

Every net takes ``norm``, a class of `bnlib.nets.norms` or a callable ``norm(channels) -> Module``. A layer with a
normalizer behind it has no bias, because the normalizer's shift takes its place.
"""

import torch
from torch import nn

from . import inits


class Block(nn.Module):
    """A convolution or a linear layer, a normalizer if there is one, and an activation.

    Parameters
    ----------
    layer : callable
        ``layer(bias=bool) -> Module`` with ``outputs`` outputs, such as a partial `torch.nn.Conv2d`.
    outputs : int
    norm : callable or None
    activation : callable
        On tensors, such as `torch.relu`.
    """

    def __init__(self, layer, outputs, norm, activation):
        super().__init__()
        self.layer = layer(bias=norm is None)
        self.norm = None if norm is None else norm(outputs)
        self.activation = activation

    def forward(self, x):
        x = self.layer(x)
        return self.activation(x if self.norm is None else self.norm(x))


def _conv(inputs, outputs, kernel, stride=1):
    def layer(bias):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)

    return layer


def _linear(inputs, outputs):
    return lambda bias: nn.Linear(inputs, outputs, bias=bias)


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015): 1x1, 1x1 then 3x3, 1x1 then 5x5, and a 1x1 that is averaged.

    The four 1x1 convolutions are computed as one, and one normalizer serves it: normalizers of this course work
    channel by channel. The input (N, inputs, H, W) becomes (N, 56, H, W).

    Parameters
    ----------
    inputs : int
    norm : callable or None
    activation : callable
    """

    PARTS = (16, 16, 8, 8)  # of the 1x1s: alone, before the 3x3, before the 5x5, before the average
    OUTPUTS = 56

    def __init__(self, inputs, norm, activation):
        super().__init__()
        alone, three, five, mean = self.PARTS
        self.ones = Block(_conv(inputs, sum(self.PARTS), 1), sum(self.PARTS), norm, activation)
        self.threes = Block(_conv(three, 24, 3), 24, norm, activation)
        self.fives = Block(_conv(five, 8, 5), 8, norm, activation)

    def forward(self, x):
        alone, three, five, mean = self.ones(x).split(self.PARTS, 1)
        mean = nn.functional.avg_pool2d(mean, 3, 1, 1, count_include_pad=False)
        return torch.cat([alone, self.threes(three), self.fives(five), mean], 1)


class MiniInception(nn.Module):
    """A small Inception for images (N, 1, 28, 28): stem, pool to 7x7, modules, global average, dropout, 10 classes.

    With 5 modules it has 12 layers of weights on its longest path and about 40,000 weights, with 9 modules 20.

    Parameters
    ----------
    norm : callable or None
    activation : callable
    modules : int
    dropout : float
        Share of the 56 averages that dropout removes in training.
    response : bool
        Local response normalization after the stem, as in nets before BN (Krizhevsky et al. 2012). Their factor
        1e-4 is for pixels from 0 to 255; here it is 1, for inputs of variance 1.
    """

    def __init__(self, norm=None, activation=torch.relu, modules=5, dropout=0.0, response=False):
        super().__init__()
        self.stem = Block(_conv(1, 16, 3, stride=2), 16, norm, activation)
        self.response = nn.LocalResponseNorm(5, alpha=1.0) if response else nn.Identity()
        widths = [16] + [Inception.OUTPUTS] * (modules - 1)
        self.stack = nn.Sequential(*(Inception(width, norm, activation) for width in widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(Inception.OUTPUTS, 10)
        inits.xavier(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        x = self.response(nn.functional.max_pool2d(self.stem(x), 2))
        return self.head(self.dropout(self.stack(x).mean((2, 3))))


class MLP(nn.Sequential):
    """A multilayer perceptron: linear, norm, activation for each hidden layer, then linear.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden widths, classes.
    norm : callable or None
    activation : callable
    """

    def __init__(self, sizes, norm=None, activation=torch.relu):
        pairs = zip(sizes[:-2], sizes[1:-1], strict=True)
        hidden = [Block(_linear(a, b), b, norm, activation) for a, b in pairs]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(sizes[-2], sizes[-1]))
        inits.xavier(self)


class SmallCNN(nn.Sequential):
    """Three 3x3 convolutions with 16, 32 and 64 maps for images (N, 1, 28, 28), global average, 10 classes.

    Parameters
    ----------
    norm : callable or None
    activation : callable
    """

    def __init__(self, norm=None, activation=torch.relu):
        widths = (1, 16, 32, 64)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        blocks = [Block(_conv(a, b, 3, stride=2), b, norm, activation) for a, b in pairs]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
        inits.xavier(self)
        self.to(memory_format=torch.channels_last)


class ResidualMLP(nn.Module):
    """A multilayer perceptron whose blocks add to a stream: ``h + W activation(norm(h))``, then linear.

    Parameters
    ----------
    inputs, width, blocks, classes : int
    norm : callable or None
    activation : callable
    """

    def __init__(self, inputs, width, blocks, classes, norm=None, activation=torch.relu):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.norms = nn.ModuleList(nn.Identity() if norm is None else norm(width) for _ in range(blocks))
        self.weights = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.head = nn.Linear(width, classes)
        self.activation = activation
        inits.xavier(self)

    def forward(self, x):
        h = self.first(x.flatten(1))
        for norm, weight in zip(self.norms, self.weights, strict=True):
            h = h + weight(self.activation(norm(h)))
        return self.head(h)
