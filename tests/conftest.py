"""Where several processes share the tests, each computes on one thread: two that compete are slow."""

import os

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before TensorFlow is imported; processes that tests start inherit it
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
