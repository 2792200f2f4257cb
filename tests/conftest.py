"""How the processes that run the tests are set up."""

import gc
import os

import pytest

# Where several processes share the tests, each computes on one thread: two that compete are slow. TensorFlow
# is to be imported after that; processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what is imported out of the garbage collector's sight: a fifth of the time went into looking."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
