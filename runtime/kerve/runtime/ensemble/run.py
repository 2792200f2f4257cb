"""One request on its way through the steps of an ensemble."""

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
    """A step and the version that it was bound to."""

    model: str
    signature: Signature
    queue: Queue
    # Whether the member, or one of its own members, keeps the states of sequences.
    keeps_states: bool
    # Of a member that keeps them itself.
    stateful: Stateful | None
    # Of a member that keeps its answers.
    cache: MemberCache | None
    # The ensemble's names of tensors, by the member's.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """An ensemble as it runs."""

    name: str
    # With the shapes that its members see.
    signature: Signature
    reshapes: Reshapes
    steps: tuple[BoundStep, ...]
    # Requests that may be under way; more wait in the ensemble's own queue.
    most: int

    @property
    def optional(self) -> frozenset[str]:
        """Inputs that a request may leave out."""
        return frozenset(spec.name for spec in self.signature.inputs if spec.optional)


@dataclass(frozen=True)
class MemberRequest:
    """The token of a request to a member: which run made it, for which step."""

    run: "Run"
    step: BoundStep
    # Keeps the answer.
    lookup: MemberLookup | None


class Run:
    """One request of an ensemble: each member is asked as soon as its inputs are there."""

    def __init__(
        self,
        plan: Plan,
        batch: Batch,
        inbox: Inbox,
        statistics: ServedStatistics,
        on_end: Callable[["Run"], None],
        run_in_thread: "Callable[[Run, Callable[[], None]], object]",
    ) -> None:
        """`on_end` is called once, at the run's end; `run_in_thread` runs what blocks."""
        self.batch = batch
        self._plan = plan
        self._inbox = inbox
        self._statistics = statistics
        self._on_end = on_end
        self._run_in_thread = run_in_thread
        self._lock = threading.Lock()
        self._tensors: dict[str, Array] = {}
        # The tensors that are there, and optional ones that are not given.
        self._known: set[str] = set()
        self._left: Sequence[BoundStep] = plan.steps
        self._waiting = 0
        self._computed = 0
        self._ended = False

    def begin(self) -> None:
        """Take the request's tensors, and ask the members that need no more."""
        self._tensors = dict(self._plan.reshapes.inward(self.batch.inputs))
        self._known = set(self._tensors) | self._plan.optional
        self.advance()

    def advance(self) -> None:
        """Ask the members whose inputs are there."""
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
        """Go on with what a member answered."""
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
            # As in Triton, an ensemble has computed for as long as its members have. Before the answer, so
            # that a client who has it finds it counted.
            self._statistics.computed(self.batch, self._computed)
            self._on_end(self)
            self._reply()

    def fail(self, code: int, message: str) -> None:
        """Refuse the request; the members' answers that are still to come are dropped."""
        if self._end():
            self.batch.fail(code, message)
            self._on_end(self)

    def _within(self, message: object) -> str:
        """Return what a member or a step says, in Triton's words for where."""
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
            self.batch.fail(Code.INTERNAL, "the ensemble's answer cannot be sent; see the server's log")
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
        """Take the outputs of a step from the member's cache, or ask the member for them."""
        requested = list(step.outputs)
        lookup = None if step.cache is None else step.cache.look_up(given, requested)
        if lookup is not None and (outputs := lookup.outputs) is not None:
            self._complete_step(step, outputs, 0)
        else:
            step.queue.ask(given, requested, self.batch, self._inbox, MemberRequest(self, step, lookup))

    def _step_inputs(self, step: BoundStep) -> dict[str, Array]:
        """Return the inputs of a step; InvalidArgumentError when they do not fit."""
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
        """Whether this is the first end."""
        with self._lock:
            ended, self._ended = self._ended, True
            return not ended


def with_axes_of(array: Array, spec: TensorSpec) -> Array:
    """Return a tensor with the axes of a spec: what has no batch becomes a batch of one row, and the reverse.

    InvalidArgumentError for several rows where one is taken.
    """
    more = len(spec.shape) - array.ndim
    if more == 1:
        return array[None]
    if more == -1:
        if len(array) != 1:
            raise InvalidArgumentError(f"{spec.name!r} takes no batches: expected one row, got {len(array)}")
        return array.reshape(array.shape[1:])  # array[0] would be a scalar of NumPy's
    return array
