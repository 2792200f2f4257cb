"""Lanes on the CPU's provider: buffers, bindings and padding as on a GPU, and `Session.run`'s answers."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerve.runtime.datatypes import BF16, BYTES, DATATYPES
from kerve.runtime.devices.lane import MOST_LOOSE, Lane
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.locks import DEVICE_LOCK, LOADING_LOCK, SharedLock, capturing
from kerve.runtime.devices.memory import Buffer, HostMemory
from kerve.runtime.errors import InternalError, InvalidArgumentError, UnavailableError
from kerve.runtime.session import Provider, Session
from kerve.runtime.signature import TensorSpec

pytest.importorskip("onnx", reason="graphs are made with onnx, which serving does not need")
import onnx
from onnx import TensorProto, helper

CPU: tuple[Provider, ...] = (("CPUExecutionProvider", {}),)
NUMERIC = [name for name in DATATYPES if name not in (BF16.name, BYTES.name)]


class CountedMemory(HostMemory):
    """Counts the buffers that are out."""

    def __init__(self) -> None:
        self.out = 0

    def allocate(self, size: int) -> Buffer:
        self.out += 1
        return super().allocate(size)

    def free(self, buffer: Buffer) -> None:
        self.out -= 1


def open_lanes(file: Path, memory: HostMemory | None = None, *, graphs: bool = False) -> LaneSession:
    return LaneSession(file, threads=1, providers=CPU, buffers=lambda: memory or HostMemory(), graphs=graphs)


def write(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
) -> Path:
    """Write a model of a few nodes."""
    values = [
        [helper.make_tensor_value_info(name, *spec) for name, spec in each.items()]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *values)
    file = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))
    return file


@pytest.fixture(scope="module")
def sessions(models: Path) -> dict[str, tuple[Session, LaneSession]]:
    """The echo models of every numeric type, plain and with lanes."""
    files = {name: models / f"echo_{name.lower()}.onnx" for name in NUMERIC}
    return {name: (Session(file, threads=1), open_lanes(file)) for name, file in files.items()}


@given(
    name=st.sampled_from(NUMERIC),
    sizes=st.sets(st.integers(1, 9), max_size=3),
    rows=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 1 << 16),
    captures=st.booleans(),
)
@settings(max_examples=60)
def test_a_lane_answers_as_the_session_does_bit_by_bit(
    sessions: dict[str, tuple[Session, LaneSession]],
    name: str,
    sizes: set[int],
    rows: list[int],
    seed: int,
    captures: bool,
) -> None:
    plain, lanes = sessions[name]
    (spec,), (out,) = plain.inputs, plain.outputs
    generator = np.random.default_rng(seed)
    lanes.graphs = captures
    with lanes.lane(sizes) as lane:
        assert lane is not None
        for count in rows:
            shape = (count, *(each if isinstance(each, int) else 3 for each in spec.shape[1:]))
            array = np.frombuffer(generator.bytes(64 * count), np.uint8)[: count * 24]
            given_array = np.resize(array, shape).astype(DATATYPES[name].dtype)
            expected = plain.run({spec.name: given_array}, [out.name])[out.name]
            with lane.capturing():
                found = lanes.run({spec.name: given_array}, [out.name])[out.name]
            assert lane.run({spec.name: given_array}, [out.name]) is not None, "it went through the buffers"
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A model that gives back rows of two numbers."""
    return write(
        tmp_path,
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 2])},
        {"y": (TensorProto.FLOAT, ["n", 2])},
    )


def test_a_batch_is_padded_with_zeros_whatever_was_there_before(identity: Path) -> None:
    session, seen, launch = open_lanes(identity), [], LaneSession.launch

    def spy(bound: Any, memory: Any) -> None:
        seen.append(bound.inputs[0].array.copy())
        launch(session, bound, memory)

    session.launch = spy  # type: ignore[method-assign]
    with session.lane([4]):
        for rows in (4, 1, 3):
            session.run({"x": np.full((rows, 2), 7, np.float32)}, ["y"])
    assert [array.shape for array in seen] == [(4, 2)] * 3
    assert [int(array.sum()) for array in seen] == [4 * 14, 14, 3 * 14]


def test_what_the_graph_reads_at_the_host_is_bound_there() -> None:
    """ONNX Runtime would copy it when it is bound, and read that copy ever after."""

    class Device(HostMemory):
        device_type = "cuda"

        def allocate(self, size: int) -> Buffer:
            return Buffer(super().allocate(size).host, 1000)

    bound = {}

    class Binding:
        def bind_input(self, name: str, *place: Any) -> None:
            bound[name] = (place[0], place[-1])

        bind_output = bind_input

    class Launcher:
        inputs: tuple[TensorSpec, ...] = (
            TensorSpec("x", "FP32", ("n",)),
            TensorSpec("k", "INT64", (1,)),
        )
        outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", ("n",)),)
        at_host = frozenset({"k"})
        graphs = False

        def bind(self) -> Binding:
            return Binding()

        def run_options(self, *, graph: bool) -> None:
            pass

        def launch(self, bound: Any, memory: Any) -> None:
            seen.append(bound.inputs[1].buffer.host)

    seen: list[Any] = []
    lane = Lane(Launcher(), Device())
    assert lane.run({"x": np.ones(2, np.float32), "k": np.ones(1, np.int64)}, ["y"]) is not None
    assert bound == {"x": ("cuda", 1000), "k": ("cpu", seen[0].ctypes.data), "y": ("cuda", 1000)}


def test_an_answer_outlives_the_next_batch(identity: Path) -> None:
    """Buffers are reused; what was answered from them may not be sent yet."""
    session = open_lanes(identity)
    with session.lane([4]):
        first = session.run({"x": np.ones((2, 2), np.float32)}, ["y"])["y"]
        session.run({"x": np.zeros((2, 2), np.float32)}, ["y"])
    assert first.tolist() == [[1, 1], [1, 1]]


def test_threads_compute_at_the_same_time_each_in_its_own_lane(models: Path) -> None:
    plain = Session(models / "classifier.onnx", threads=1)
    session = open_lanes(models / "classifier.onnx")
    (spec,), names = plain.inputs, [each.name for each in plain.outputs]
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        with session.lane([2, 8]):
            for _ in range(50):
                shape = (8, *(each if isinstance(each, int) else 3 for each in spec.shape[1:]))
                array = generator.random(shape, np.float32)
                expected, found = plain.run({spec.name: array}, names), session.run({spec.name: array}, names)
                wrong.extend(seed for name in names if expected[name].tobytes() != found[name].tobytes())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


@pytest.mark.parametrize("name", ["echo_bf16", "echo_bytes"])
def test_what_cannot_be_bound_has_no_lane_and_answers_all_the_same(models: Path, name: str) -> None:
    plain, session = Session(models / f"{name}.onnx", threads=1), open_lanes(models / f"{name}.onnx")
    (spec,), (out,) = plain.inputs, plain.outputs
    shape = tuple(each if isinstance(each, int) else 2 for each in spec.shape)
    array = np.full(shape, b"word" if name == "echo_bytes" else 16256, DATATYPES[spec.datatype].dtype)
    with session.lane([4]) as lane:
        assert lane is None
        found = session.run({spec.name: array}, [out.name])
    assert found[out.name].tolist() == plain.run({spec.name: array}, [out.name])[out.name].tolist()


def test_outputs_whose_size_depends_on_values_are_run_without_buffers(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        [helper.make_node("NonZero", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n"])},
        {"y": (TensorProto.INT64, [1, "found"])},
    )
    session, array = open_lanes(file), np.array([0, 3, 0, 5], np.float32)
    with session.lane() as lane:
        assert lane is not None
        assert lane.run({"x": array}, ["y"]) is None
        assert session.run({"x": array}, ["y"])["y"].tolist() == [[1, 3]]


def test_a_graph_that_declares_a_wrong_shape_is_run_without_buffers(tmp_path: Path) -> None:
    """Exporters do: the same symbol stands for two sizes."""
    file = write(
        tmp_path,
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        {"x": (TensorProto.FLOAT, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
    )
    session, array = open_lanes(file, counted := CountedMemory()), np.array([1, 2], np.float32)
    with session.lane() as lane:
        assert lane is not None
        for _ in range(2):
            assert session.run({"x": array}, ["y"])["y"].tolist() == [1, 2, 1, 2]
        assert counted.out == 0


def test_buffers_are_kept_for_a_few_shapes_and_for_every_graph_and_given_back(identity: Path) -> None:
    session = open_lanes(identity, memory := CountedMemory(), graphs=True)
    with session.lane([1, 2]) as lane:
        assert lane is not None
        with lane.capturing():
            for rows in (1, 2):
                session.run({"x": np.ones((rows, 2), np.float32)}, ["y"])
        for rows in range(3, 3 + 3 * MOST_LOOSE):
            session.run({"x": np.ones((rows, 2), np.float32)}, ["y"])
        assert memory.out == 2 * (2 + MOST_LOOSE)
    assert memory.out == 0


def test_where_there_is_no_room_for_all_buffers_none_is_kept(identity: Path) -> None:
    class Small(CountedMemory):
        def allocate(self, size: int) -> Buffer:
            if self.out == 1:
                raise RuntimeError("out of memory")
            return super().allocate(size)

    session = open_lanes(identity, memory := Small())
    with session.lane([2]), pytest.raises(InternalError):
        session.run({"x": np.ones((2, 2), np.float32)}, ["y"])
    assert memory.out == 0


def test_a_value_that_the_model_cannot_compute_is_the_clients_fault_and_ends_nothing(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        [
            helper.make_node("Constant", [], ["table"], value_floats=[1.0, 2.0]),
            helper.make_node("Gather", ["table", "x"], ["y"]),
        ],
        {"x": (TensorProto.INT64, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
    )
    session = open_lanes(file)
    with session.lane([2]) as lane:
        assert lane is not None
        for _ in range(2):  # before any run with success, and after one
            with pytest.raises(InvalidArgumentError, match="cannot compute this input"):
                session.run({"x": np.array([0, 9], np.int64)}, ["y"])
            assert session.run({"x": np.array([1], np.int64)}, ["y"])["y"].tolist() == [2.0]
        assert lane.run({"x": np.array([1, 0], np.int64)}, ["y"]) is not None


def test_a_terminated_session_runs_nothing_more_in_a_lane(identity: Path) -> None:
    session = open_lanes(identity)
    with session.lane([2]):
        session.run({"x": np.ones((2, 2), np.float32)}, ["y"])
        session.terminate()
        with pytest.raises(UnavailableError):
            session.run({"x": np.ones((2, 2), np.float32)}, ["y"])


def test_who_passes_a_gate_alone_meets_nobody() -> None:
    lock, inside, met = SharedLock(), [0], []
    guard = threading.Lock()

    def change(by: int) -> None:
        with guard:
            inside[0] += by

    def shared() -> None:
        for _ in range(200):
            with lock.shared():
                change(1)
                change(-1)

    def exclusive() -> None:
        for _ in range(50):
            with lock.exclusive():
                met.append(inside[0])

    threads = [threading.Thread(target=each) for each in (shared, shared, exclusive, exclusive)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert met == [0] * 100


def test_a_capture_that_waits_for_a_model_to_be_loaded_keeps_nobody_from_computing(until: Any) -> None:
    captured = threading.Event()

    def capture() -> None:
        with capturing():
            captured.set()

    with LOADING_LOCK.shared():
        thread = threading.Thread(target=capture)
        thread.start()
        until(lambda: LOADING_LOCK._waiting == 1, "the capture waits")
        with DEVICE_LOCK.shared():
            assert not captured.is_set()
    thread.join(60)
    assert captured.is_set()
