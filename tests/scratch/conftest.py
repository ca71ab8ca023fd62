import pytest
import torch
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The arrays are small: a second thread costs more than it gives, and can change the last digit."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
