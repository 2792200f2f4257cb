"""Sequences through an ensemble: its members keep their states, as when they are asked themselves."""

import queue
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]
Chain = Callable[[Path], None]


def total(answer: Any) -> Any:
    return answer.as_numpy("total").tolist()


def test_each_step_keeps_the_state_of_each_sequence(client: Any) -> None:
    assert total(client.ask("chain", [[1, 2]], 900, "s")) == [[1, 2]]
    assert total(client.ask("chain", [[5, 5], [6, 6]], 899, "s")) == [[5, 5], [6, 6]]
    # sums of sums
    assert total(client.ask("chain", [[1, 2]], 900)) == [[3, 6]]
    assert total(client.ask("chain", [[5, 5], [6, 6]], 899, "e")) == [[15, 15], [18, 18]]
    assert total(client.ask("chain", [[1, 2]], 900, "e")) == [[6, 12]]
    for identity, said in ((900, "must specify the START flag"), (0, "must specify a non-zero or non-empty")):
        with pytest.raises(InferenceServerException, match=said) as caught:
            client.ask("chain", [[1, 2]], identity)
        assert caught.value.message().startswith("in ensemble 'chain', inference request ")


def test_a_request_of_many_rows_is_one_turn(client: Any) -> None:
    rows = np.arange(40).reshape(20, 2)  # the models take 8 at a time
    for step in (1, 3, 6):
        flags = {1: "s", 3: "", 6: "e"}[step]
        assert total(client.ask("chain", rows, 910, flags)) == (step * rows).tolist()


def test_a_sequence_is_the_members_own_and_survives_its_reload(grpc_client: Any) -> None:
    assert total(grpc_client.ask("chain", [[1, 1]], 901, "s")) == [[1, 1]]
    assert total(grpc_client.ask("sum", [[10, 10]], 901)) == [[11, 11]]
    grpc_client.load_model("sum")
    assert total(grpc_client.ask("chain", [[0, 0]], 901, "e")) == [[12, 12]]


def test_an_ensemble_of_an_ensemble_keeps_states_too(client: Any) -> None:
    assert total(client.ask("outer", [[1, 2]], 930, "s")) == [[1, 2]]
    assert total(client.ask("outer", [[1, 2]], 930)) == [[3, 6]]
    assert total(client.ask("chain", [[1, 2]], 930, "e")) == [[6, 12]]
    with pytest.raises(InferenceServerException, match=r"in ensemble 'chain', .* must specify a non-zero"):
        client.ask("outer", [[1, 2]], 0)


def test_an_ensemble_has_no_response_cache_where_any_of_its_models_keeps_states(grpc_client: Any) -> None:
    (reason,) = (
        each.reason for each in grpc_client.get_model_repository_index().models if each.name == "outer_cached"
    )
    assert "the outputs of an ensemble whose models keep states depend on earlier requests" in reason


@pytest.mark.parametrize("ensemble", ["chain", "outer"])
def test_on_a_stream_the_requests_of_a_sequence_go_through_one_after_another(
    running: Any, grpc_client: Any, ensemble: str
) -> None:
    rounds, identities = 5, [*range(920, 926)]
    found: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.start_stream(lambda result, error: found.put(error or result))
        for step in range(rounds):
            for identity in identities:
                client.async_stream_infer(
                    ensemble,
                    [grpc_client.x([[identity, 1]])],
                    request_id=f"{identity}/{step}",
                    sequence_id=identity,
                    sequence_start=step == 0,
                    sequence_end=step == rounds - 1,
                )
        answers = [found.get(timeout=60) for _ in range(rounds * len(identities))]
        client.stop_stream()
    assert not [each for each in answers if isinstance(each, InferenceServerException)]
    for answer in answers:
        identity, step = map(int, answer.get_response().id.split("/"))
        sums = np.cumsum(np.cumsum(np.ones(rounds)))[step]
        assert total(answer) == [[identity * sums, sums]]


def test_what_was_accepted_goes_through_its_sequence_before_the_server_ends(
    publish: Publish, serve: Serve, tmp_path: Path, chain: Chain, until: Until, connect: Callable[[str], Any]
) -> None:
    """The first step waits for company when the signal comes, the others are still to come."""
    pytest.importorskip("kerve_wire")
    chain(tmp_path)
    (tmp_path / "echo_fp32" / "config.toml").write_text(
        "max_batch_size = 8\ndynamic_batching = { max_queue_delay_microseconds = 1_000_000 }\n"
    )
    with serve(tmp_path, "--transport", "wire", "--http-port", "-1") as running:
        client = connect(running.address)
        answers: list[Any] = []
        client.own.async_infer(
            "chain",
            [client.x([[1, 2]])],
            callback=lambda result, error: answers.append(error or result),
            sequence_id=1,
            sequence_start=True,
        )
        running.wait_for("echo_fp32", arrived=1)
        assert running.stop() == 0
        until(lambda: bool(answers), "the answer is there")
        assert total(answers[0]) == [[1, 2]]
