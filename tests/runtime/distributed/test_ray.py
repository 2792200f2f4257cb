"""The commands on a real Ray cluster of two nodes, of which workers and one node are killed."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.runtime.artifact import read_artifact
from kerve.runtime.evaluation.history import FILE, History
from kerve.runtime.session import Session

pytest.importorskip("ray", reason="ray is not installed: pip install 'kerve[ray]'")
import pyarrow as pa
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

KERVE = str(Path(sys.executable).with_name("kerve"))
EVALUATION = Path(__file__).parent.parent / "evaluation"
KERAS = json.loads((EVALUATION / "keras.json").read_text())
with np.load(EVALUATION / "rows.npz") as arrays:
    ROWS = dict(arrays)
# Files of unequal lengths, so that the parts' batches are not those of the whole.
ENDS = (0, 70, 111, 300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    # Else workers wait for all that a busy machine does beside.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's spelling
    cluster = patiently(
        lambda: Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    )
    try:
        cluster.second = patiently(lambda: cluster.add_node(**options))
        yield cluster
    finally:
        cluster.shutdown()


def patiently(begin: Callable[[], Any]) -> Any:
    """Return what was begun: Ray gives a node 30 seconds, which a busy machine may exceed."""
    before = set(children())
    for _ in range(4):
        with suppress(Exception):
            return begin()
        for process in set(children()) - before:
            os.kill(process, signal.SIGKILL)
    return begin()


def children() -> Iterator[int]:
    return (each for each, parent, _ in processes() if parent == os.getpid())


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield each process, its parent and its title."""
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            yield int(each.name), parent, (each / "cmdline").read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(EVALUATION / "models", tmp_path / "models")


def folder(path: Path, labels: str) -> Path:
    """Return a folder of Parquet files with the rows that Keras evaluated."""
    path.mkdir()
    for number, (begin, end) in enumerate(itertools.pairwise(ENDS)):
        columns = {"x": list(ROWS["x"][begin:end]), "y": list(ROWS[labels][begin:end])}
        columns["sample_weight"] = ROWS["weights"][begin:end]
        pq.write_table(pa.table(columns), path / f"rows-{number}.parquet", row_group_size=40)
    return path


def start(cluster: Any, *arguments: str | Path) -> "subprocess.Popen[str]":
    command = [KERVE, *map(str, arguments), "--engine", "ray"]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return output


def workers(parent: int | None = None) -> list[int]:
    """Return the processes that are at work on a part; of one node, whose raylet is the parent."""
    return [
        each
        for each, of, title in processes()
        if title.startswith("ray::MapWorker") and ".submit" in title and parent in (None, of)
    ]


def wait_for(process: "subprocess.Popen[str]", parent: int | None = None) -> int:
    """Return a process that is at work on a part, as soon as there is one."""
    while not (found := workers(parent)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return found[0]


def equal(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_states_are_merged_and_a_killed_worker_counts_once(
    cluster: Any, repository: Path, tmp_path: Path
) -> None:
    data = folder(tmp_path / "rows", "classes")
    process = start(cluster, "evaluate", "classifier", "--repository", repository, "--data", data, "--json")
    os.kill(wait_for(process), signal.SIGKILL)
    assert process.poll() is None
    result = json.loads(ended(process))
    assert (result["model"], result["version"], result["rows"]) == ("classifier", "2", 300)
    equal(result["results"], KERAS["classifier/2/weighted"])
    (record,) = History(repository / FILE).list("classifier", "2")
    assert record.peer.startswith("ray:")
    assert record.hardware
    assert record.results.rows == 300


def test_what_cannot_be_merged_is_folded_in_the_order_of_the_rows(
    cluster: Any, repository: Path, tmp_path: Path
) -> None:
    data = folder(tmp_path / "rows", "numbers")
    versions = ("--version", "1", "--version", "2")
    found = json.loads(
        ended(
            start(
                cluster, "evaluate", "summed", "--repository", repository, "--data", data, "--json", *versions
            )
        )
    )
    for each in found["versions"]:
        equal(each["results"], KERAS[f"summed/{each['version']}/weighted"])
    (difference,) = found["differences"]
    assert (difference["version"], difference["baseline"]) == ("2", "1")
    assert difference["intervals"][0]["metric"] == "mean_squared_error"


def test_a_label_that_does_not_fit_is_named_and_nothing_is_kept(
    cluster: Any, repository: Path, tmp_path: Path
) -> None:
    data = folder(tmp_path / "rows", "classes")
    wrong = np.where(np.arange(300) == 270, 3, ROWS["classes"])[111:]
    columns = {"x": list(ROWS["x"][111:]), "y": wrong, "sample_weight": ROWS["weights"][111:]}
    pq.write_table(pa.table(columns), data / "rows-2.parquet", row_group_size=40)
    process = start(cluster, "evaluate", "classifier", "--repository", repository, "--data", data)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    assert errors == (
        f"error: {data}/rows-2.parquet: row 159: labels 'y': expected a class from 0 to 2, got 3\n"
    )
    assert History(repository / FILE).list() == []


def test_predictions_are_whole_when_a_node_is_lost(cluster: Any, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for number in range(6):
        identities = [f"id {row}" for row in range(number * 50, number * 50 + 50)]
        columns = {"id": identities, "x": list(ROWS["x"][number * 50 : number * 50 + 50])}
        pq.write_table(pa.table(columns), tmp_path / "rows" / f"{number}.parquet")
    output = tmp_path / "predictions"
    process = start(
        cluster,
        "predict",
        "classifier",
        "--repository",
        repository,
        "--input",
        tmp_path / "rows",
        "--output",
        output,
    )
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    wait_for(process, raylet)
    cluster.remove_node(cluster.second, allow_graceful=False)
    assert process.poll() is None
    assert "(300, 3)" in ended(process)
    assert sorted(file.name for file in output.iterdir()) == [
        f"part-{number:05d}.parquet" for number in range(6)
    ]
    found = pq.read_table(output).to_pydict()
    assert list(found) == ["id", "y"]
    assert found["id"] == [f"id {row}" for row in range(300)]
    model = Session(read_artifact(repository / "classifier" / "2").model_file, threads=1)
    np.testing.assert_allclose(found["y"], model.run({"x": ROWS["x"]}, ["y"])["y"], rtol=1e-6)
