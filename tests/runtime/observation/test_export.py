"""Who tells what became of requests, and when it has told enough."""

from collections.abc import Sequence

from kerve.runtime.observation.export import ExporterPipeline
from kerve.runtime.observation.observer import CallObservation, Observation

NOTE = CallObservation("/m", "ipv4:127.0.0.1:1", "one", "", "", sampled=False)


class Endless:
    """Requests that end faster than anybody tells of them."""

    def observe(self, *, everything: bool, traced: float | None) -> None:
        pass

    def observations(self) -> tuple[Sequence[Observation], int]:
        return [NOTE] * 4096, 0


class Listener:
    everything = True
    traced = None

    def __init__(self) -> None:
        self.told = 0

    def notify(self, observations: Sequence[Observation]) -> None:
        self.told += len(observations)

    def close(self) -> None:
        pass


def test_a_look_ends_however_many_requests_end_meanwhile() -> None:
    """A call that changes what is traced waits for it."""
    listener = Listener()
    ExporterPipeline(Endless(), (listener,)).flush()
    assert listener.told == 1 << 16
