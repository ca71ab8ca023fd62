"""Images as tensors: the right numbers in the right shape."""

import numpy as np
import pytest
import torch

from bnlib.data import DataUnavailable, load
from bnlib.nets.images import images


def test_the_three_parts_of_the_digits():
    parts, data = images("mnist5k"), load("mnist5k")
    assert [len(labels) for _, labels in parts] == [3_500, 500, 1_000]
    x, labels = parts[1]
    assert (x.shape, x.dtype, labels.dtype) == ((500, 1, 28, 28), torch.float32, torch.int64)
    np.testing.assert_allclose(x[:, 0].numpy(), (data.x_val / 255 - 0.286) / 0.353, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels.numpy(), data.y_val)
    assert images("mnist5k") is parts


def test_fashion_has_mean_zero_and_variance_one():
    try:
        x = images("fashion-mnist")[0][0]
    except DataUnavailable as error:
        pytest.skip(f"THE FULL SET fashion-mnist WAS NOT TESTED: {error}")
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
