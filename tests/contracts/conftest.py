"""One BLAS thread for the contracts: the matrices are small, and threads that wait for each other take five times as
long.

What runs in a process of its own (threads, imports) has all of them.
"""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    with threadpool_limits(1, user_api="blas"):
        yield
