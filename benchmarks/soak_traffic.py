"""The clients of `soak.py`: each sends one kind of request continuously and verifies the responses.

A version of a model computes x + version, in integers that a float represents exactly, after a loop; so a
response shows which version computed it, and that it was computed at all.
"""

import random
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

WIDTH = 8
# Seconds after which a request without a response counts as lost.
PATIENCE = 60.0


class Versions:
    """The versions of a model that may respond."""

    def __init__(self) -> None:
        # The version that the server reported as serving: later requests must not be answered by older ones.
        self.serving = 1
        # The newest published version.
        self.newest = 1


@dataclass
class Traffic:
    """The outcomes of the requests of one kind."""

    name: str
    # The status codes that such requests may end with.
    allowed: frozenset[str]
    # The codes that must each occur, or the run has not tested what it should.
    needed: frozenset[str]
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: "array[float]" = field(default_factory=lambda: array("f"))
    pending: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> float:
        """Record that a request is sent; returns the time."""
        with self._lock:
            self.pending += 1
        return time.perf_counter()

    def end(self, begun: float, code: str, problem: str = "") -> None:
        """Record how a request ended."""
        with self._lock:
            self.pending -= 1
            self.codes[code] += 1
            if problem and len(self.wrong) < 10:
                self.wrong.append(problem)
            if code == "OK":
                self.seconds.append(time.perf_counter() - begun)

    def problems(self) -> list[str]:
        """Return unexpected outcomes, and required ones that did not occur."""
        found = [f"{self.name}: {problem}" for problem in self.wrong]
        if self.pending:
            found.append(f"{self.name}: {self.pending} requests were lost: no answer in {PATIENCE:.0f} s")
        if unexpected := self.codes.keys() - self.allowed:
            found.append(f"{self.name}: ended with {', '.join(sorted(unexpected))}")
        if missing := self.needed - self.codes.keys():
            found.append(f"{self.name}: not one request ended with {', '.join(sorted(missing))}")
        return found


class Asker:
    """Sends numbers to a model and checks the responses."""

    def __init__(self, address: str, model: str, versions: Versions, traffic: Traffic) -> None:
        self._client = triton.InferenceServerClient(address)
        self._model = model
        self._versions = versions
        self._traffic = traffic
        self._random = np.random.default_rng(hash(traffic.name) % 2**32)

    def ask(self, *, deadline: float = PATIENCE, then: Callable[[], None] = lambda: None) -> Any:
        """Send one request; `then` is called when it has ended. Returns a handle to cancel it."""
        x = self._random.integers(0, 2**20, (1, WIDTH)).astype(np.float32)
        tensor = triton.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        begun, oldest = self._traffic.begin(), self._versions.serving

        def ended(result: Any, error: InferenceServerException | None) -> None:
            code = "OK" if error is None else code_of(error)
            self._traffic.end(begun, code, self._problem(x, oldest, result) if error is None else "")
            then()

        return self._client.async_infer(self._model, [tensor], ended, client_timeout=deadline)

    def _problem(self, x: Any, oldest: int, result: Any) -> str:
        version, y = int(result.get_response().model_version), result.as_numpy("y")
        if not oldest <= version <= self._versions.newest:
            return f"version {version} answered, of {oldest} to {self._versions.newest}"
        if not np.array_equal(y, x + version):
            return f"version {version} answered {y} to {x}"
        return ""


def code_of(error: InferenceServerException) -> str:
    """Return the name of an error's status code."""
    return str(error.status()).removeprefix("StatusCode.")


def saturate(asker: Asker, in_flight: int, seconds: float) -> float:
    """Keep a number of requests in flight; returns the completed requests per second."""
    room, count, begun = threading.Semaphore(in_flight), 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        room.acquire()
        asker.ask(then=room.release)
        count += 1
    return (count - in_flight) / passed


def poisson(asker: Asker, rate: float, over: threading.Event) -> None:
    """Send independent requests at an average rate per second (a Poisson process)."""
    due = time.perf_counter()
    while not over.is_set():
        due += random.expovariate(rate)
        if (pause := due - time.perf_counter()) > 0:
            time.sleep(pause)
        asker.ask()


def crowd(asker: Asker, over: threading.Event) -> None:
    """Send more requests at once than the queue holds; repeat when all have ended."""
    while not over.is_set():
        waiting = threading.Semaphore(0)
        for _ in range(16):
            asker.ask(then=waiting.release)
        for _ in range(16):
            waiting.acquire()


def one_by_one(asker: Asker, over: threading.Event, *, deadlines: Iterable[float] = (PATIENCE,)) -> None:
    """Send one request at a time, with a pause and a random one of the deadlines."""
    choices = list(deadlines)
    while not over.wait(0.02):
        ended = threading.Event()
        asker.ask(deadline=random.choice(choices), then=ended.set)
        ended.wait()


def quit_early(asker: Asker, over: threading.Event) -> None:
    """Send requests and cancel them."""
    while not over.wait(0.05):
        call = asker.ask()
        over.wait(random.random() * 0.02)
        call.cancel()


def careless(address: str, traffic: Traffic, over: threading.Event) -> None:
    """Send requests for a model that does not exist, and with shapes that do not fit."""
    with triton.InferenceServerClient(address) as client:
        while not over.wait(0.05):
            model, width = random.choice([("steady", WIDTH - 1), ("steady", WIDTH + 1), ("nobody", WIDTH)])
            tensor = triton.InferInput("x", [1, width], "FP32")
            tensor.set_data_from_numpy(np.ones((1, width), np.float32))
            begun, code = traffic.begin(), "OK"
            try:
                client.infer(model, [tensor], client_timeout=PATIENCE)
            except InferenceServerException as error:
                code = code_of(error)
            expected = "NOT_FOUND" if model == "nobody" else "INVALID_ARGUMENT"
            traffic.end(begun, code, "" if code == expected else f"expected {expected}, got {code}")


def start(address: str, versions: dict[str, Versions], over: threading.Event) -> list[Traffic]:
    """Start all traffic except the steady one, each in a separate thread."""
    deadlines = (0.001, 0.003, 0.01, 0.03)
    kinds: tuple[tuple[Callable[..., None], str, str, str, str], ...] = (
        (crowd, "crowd", "crowded", "OK RESOURCE_EXHAUSTED", ""),
        (one_by_one, "visitor", "guest", "OK UNAVAILABLE", "NOT_FOUND"),
        (
            partial(one_by_one, deadlines=deadlines),
            "hurried",
            "steady",
            "DEADLINE_EXCEEDED",
            "OK RESOURCE_EXHAUSTED",
        ),
        (quit_early, "quitter", "steady", "CANCELLED", "OK RESOURCE_EXHAUSTED"),
    )
    all_of_them = []
    for run, name, model, needed, also in kinds:
        traffic = Traffic(name, frozenset(f"{needed} {also}".split()), frozenset(needed.split()))
        asker = Asker(address, model, versions[model], traffic)
        threading.Thread(target=run, args=(asker, over), name=name, daemon=True).start()
        all_of_them.append(traffic)
    codes = frozenset(("INVALID_ARGUMENT", "NOT_FOUND"))
    all_of_them.append(Traffic("careless", codes, codes))
    threading.Thread(target=careless, args=(address, all_of_them[-1], over), daemon=True).start()
    return all_of_them


def be_killed(address: str) -> None:
    """Keep requests to every model in flight until this process is killed."""
    room, nobody = threading.Semaphore(12), frozenset[str]()
    models = ("steady", "crowded", "guest")
    askers = [Asker(address, name, Versions(), Traffic(name, nobody, nobody)) for name in models]
    for count, asker in enumerate(cycle(askers)):
        room.acquire()
        asker.ask(then=room.release)
        if count == 50:
            print("busy", flush=True)


if __name__ == "__main__":
    be_killed(sys.argv[1])
