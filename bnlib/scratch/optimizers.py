"""What turns gradients into a step: plain SGD, momentum, Adam. Each changes the parameters of a net in place."""

import numpy as np


class SGD:
    """Stochastic gradient descent, ``param -= lr * grad``; with momentum (Polyak 1964) along a moving sum of them.

    ``velocity = momentum * velocity + grad``, then ``param -= lr * velocity``, as in `torch.optim.SGD`.

    Parameters
    ----------
    lr : float
    momentum : float
        0 is plain SGD.
    """

    def __init__(self, lr, momentum=0.0):
        self.lr, self.momentum = lr, momentum
        self.velocity = {}

    def step(self, net):
        for key, param, grad in parameters(net):
            if self.momentum:
                grad = self.velocity[key] = self.momentum * self.velocity.get(key, 0) + grad
            param -= self.lr * grad


class Momentum(SGD):
    """`SGD` with momentum 0.9."""

    def __init__(self, lr):
        super().__init__(lr, momentum=0.9)


class Adam:
    """Steps scaled by moving averages of the gradient and of its square (Kingma & Ba 2015, Algorithm 1).

    Parameters
    ----------
    lr : float
    betas : (float, float)
        How much of the old average of the gradient and of its square is kept at each step.
    eps : float
        Added to the root of the second average.
    """

    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.first, self.second, self.count = {}, {}, 0

    def step(self, net):
        self.count += 1
        keep, keep_square = self.betas
        # both averages start at zero; dividing by these removes what is left of that start
        whole, whole_square = 1 - keep**self.count, 1 - keep_square**self.count
        for key, param, grad in parameters(net):
            self.first[key] = keep * self.first.get(key, 0) + (1 - keep) * grad
            self.second[key] = keep_square * self.second.get(key, 0) + (1 - keep_square) * grad**2
            root = np.sqrt(self.second[key] / whole_square) + self.eps
            param -= self.lr / whole * self.first[key] / root


def parameters(net):
    """All parameters of a net with their gradients: ``(layer number, name), param, grad``."""
    for i, layer in enumerate(net.layers):
        for name, param in layer.params.items():
            yield (i, name), param, layer.grads[name].astype(param.dtype, copy=False)
