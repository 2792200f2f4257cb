"""The execution of one request through the steps of an ensemble."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kerve.runtime.config.reshaping import Reshapes
from kerve.runtime.datatypes import Array
from kerve.runtime.ensemble.cached import MemberCache, MemberLookup
from kerve.runtime.ensemble.stateful import Stateful, compute_in_sequence
from kerve.runtime.errors import Code, InvalidArgumentError, ServingError, error_for
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.signature import Signature, TensorSpec, check_tensor
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Answer, Batch, Inbox, Queue

__all__ = ["BoundStep", "MemberRequest", "Plan", "Run"]


@dataclass(frozen=True)
class BoundStep:
    """A step and the version that it is bound to."""

    model: str
    signature: Signature
    queue: Queue
    # Whether the member, or one of its own members, keeps the states of sequences.
    keeps_states: bool
    # Set if the member itself keeps states.
    stateful: Stateful | None
    # Set if the member has a response cache.
    cache: MemberCache | None
    # The ensemble's tensor names, by the member's.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The execution plan of an ensemble."""

    name: str
    # With the shapes that the members see.
    signature: Signature
    reshapes: Reshapes
    steps: tuple[BoundStep, ...]
    # Maximum requests in flight; further ones wait in the ensemble's own queue.
    most: int

    @property
    def optional(self) -> frozenset[str]:
        """Inputs that a request may omit."""
        return frozenset(spec.name for spec in self.signature.inputs if spec.optional)


@dataclass(frozen=True)
class MemberRequest:
    """The token of a request to a member, with its run and step."""

    run: "Run"
    step: BoundStep
    # Stores the answer in the cache.
    lookup: MemberLookup | None


class Run:
    """One request of an ensemble: each step starts as soon as its inputs are available."""

    def __init__(
        self,
        plan: Plan,
        batch: Batch,
        inbox: Inbox,
        statistics: ServedStatistics,
        on_end: Callable[["Run"], None],
        run_in_thread: "Callable[[Run, Callable[[], None]], object]",
    ) -> None:
        """`on_end` is called once, at the end of the run; `run_in_thread` runs blocking work."""
        self.batch = batch
        self._plan = plan
        self._inbox = inbox
        self._statistics = statistics
        self._on_end = on_end
        self._run_in_thread = run_in_thread
        self._lock = threading.Lock()
        self._tensors: dict[str, Array] = {}
        # The available tensors, and optional inputs that are not given.
        self._known: set[str] = set()
        self._left: Sequence[BoundStep] = plan.steps
        self._waiting = 0
        self._computed = 0
        self._ended = False

    def begin(self) -> None:
        """Start the steps that need only the request's tensors."""
        self._tensors = dict(self._plan.reshapes.inward(self.batch.inputs))
        self._known = set(self._tensors) | self._plan.optional
        self.advance()

    def advance(self) -> None:
        """Start the steps whose inputs are available."""
        with self._lock:
            ready = [step for step in self._left if self._known.issuperset(step.inputs.values())]
            self._left = [step for step in self._left if step not in ready]
            self._waiting += len(ready)
        for step in ready:
            try:
                self._request_step(step)
            except ServingError as error:
                self.fail(error.code, self._within(error))
                return

    def take(self, answer: Answer) -> None:
        """Continue with the answer of a member."""
        if answer.outputs is None:
            self.fail(answer.code, self._within(answer.message))
            return
        request: MemberRequest = answer.token
        if request.lookup is not None:
            request.lookup.keep(answer.outputs)
        self._complete_step(request.step, answer.outputs, answer.nanoseconds)

    def _complete_step(self, step: BoundStep, outputs: Mapping[str, Array], nanoseconds: int) -> None:
        with self._lock:
            for own, tensor in step.outputs.items():
                self._tensors[tensor] = outputs[own]
                self._known.add(tensor)
            self._waiting -= 1
            self._computed += nanoseconds
            complete = not (self._waiting or self._left)
        if not complete:
            self.advance()
        elif self._end():
            # As in Triton, the compute time of an ensemble is that of its members. Counted before the reply,
            # so that a client that has it finds it counted.
            self._statistics.computed(self.batch, self._computed)
            self._on_end(self)
            self._reply()

    def fail(self, code: int, message: str) -> None:
        """Fail the request; outstanding answers of members are dropped."""
        if self._end():
            self.batch.fail(code, message)
            self._on_end(self)

    def _within(self, message: object) -> str:
        """Prefix a message of a member or step with the ensemble, in Triton's wording."""
        return f"in ensemble {self._plan.name!r}, {message}"

    def _reply(self) -> None:
        try:
            outputs = {
                spec.name: with_axes_of(self._tensors[spec.name], spec)
                for spec in self._plan.signature.outputs
            }
            self.batch.reply(self._plan.reshapes.outward(outputs))
        except InvalidArgumentError as error:
            self.batch.fail(error.code, self._within(error))
        except Exception:
            self.batch.fail(Code.INTERNAL, "the ensemble's response cannot be sent; see the server's log")
            raise

    def _request_step(self, step: BoundStep) -> None:
        if not self.batch.active:
            raise error_for(Code.CANCELLED, "the client cancelled the request")
        try:
            given = self._step_inputs(step)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"step {step.model!r}: {error}") from error
        stateful = step.stateful
        position = None if stateful is None else stateful.plan.place(self.batch.parameters, step.model)
        if stateful is None or position is None:
            self._ask(step, given)
        else:
            self._run_in_thread(self, partial(self._compute_in_sequence, step, stateful, position, given))

    def _ask(self, step: BoundStep, given: Mapping[str, Array]) -> None:
        """Take the outputs of a step from the member's cache, or send a request to the member."""
        requested = list(step.outputs)
        lookup = None if step.cache is None else step.cache.look_up(given, requested)
        if lookup is not None and (outputs := lookup.outputs) is not None:
            self._complete_step(step, outputs, 0)
        else:
            step.queue.ask(given, requested, self.batch, self._inbox, MemberRequest(self, step, lookup))

    def _step_inputs(self, step: BoundStep) -> dict[str, Array]:
        """Return the inputs of a step; raises InvalidArgumentError if they do not fit."""
        given = {
            own: with_axes_of(self._tensors[tensor], step.signature.input(own))
            for own, tensor in step.inputs.items()
            if tensor in self._tensors
        }
        sizes: dict[str, tuple[int, str]] = {}
        for own, array in given.items():
            spec = step.signature.input(own)
            check_tensor(spec, spec.datatype, array.shape, sizes)
        return given

    def _compute_in_sequence(
        self, step: BoundStep, stateful: Stateful, position: SequencePosition, given: Mapping[str, Array]
    ) -> None:
        host, inbox = stateful.host(position), stateful.inbox()
        try:
            outputs, nanoseconds = compute_in_sequence(
                host, position, given, list(step.outputs), self.batch, inbox
            )
        except ServingError as error:
            self.fail(error.code, self._within(error))
        else:
            self._complete_step(step, outputs, nanoseconds)

    def _end(self) -> bool:
        """Mark the run as ended; return whether it had not ended before."""
        with self._lock:
            ended, self._ended = self._ended, True
            return not ended


def with_axes_of(array: Array, spec: TensorSpec) -> Array:
    """Add or remove the batch axis so that a tensor has the axes of a spec.

    Raises InvalidArgumentError if the axis to remove has several rows.
    """
    more = len(spec.shape) - array.ndim
    if more == 1:
        return array[None]
    if more == -1:
        if len(array) != 1:
            raise InvalidArgumentError(f"{spec.name!r} takes no batches: expected one row, got {len(array)}")
        return array.reshape(array.shape[1:])  # array[0] could be a NumPy scalar
    return array
