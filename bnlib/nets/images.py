"""The data sets as tensors, as the nets of Parts II to IV take them."""

from functools import cache

import numpy as np
import torch

from bnlib.data import load


@cache
def images(dataset):
    """Inputs (N, 1, 28, 28), float32, and labels, for training, validation and test.

    The grey values are shifted and scaled by the mean and the standard deviation of Fashion-MNIST, one pair of
    numbers for all pixels. The tensors are shared by all who ask: do not change them.
    """
    data = load(dataset)

    def tensors(x, labels):
        x = (x[:, None] / np.float32(255) - np.float32(0.286)) / np.float32(0.353)
        return torch.from_numpy(x.astype("f4")), torch.from_numpy(labels.astype("i8"))

    parts = (data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)
    return tuple(tensors(*part) for part in parts)
