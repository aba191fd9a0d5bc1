"""Threads of the process that runs a search: one, as its trials want the others.

Matrices of a few hundred rows gain nothing from a second thread. Where trials keep the cores busy
they lose a lot by it: OpenBLAS' threads wait for each other, and a fit of a tenth of a second takes
seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy and SciPy compute on one thread meanwhile."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """A simulated training is made of steps too small to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
