"""The workflow on a real Slurm."""

import pytest

from slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running cluster; skipped, with the reason, where Slurm is not installed."""
    if reason := missing():
        pytest.skip(reason)
    running = Cluster(tmp_path_factory.mktemp("slurm"), port=16900)
    try:
        running.start()
        yield running
    finally:
        running.stop()
