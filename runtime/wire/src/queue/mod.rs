//! The request queue of one model version, with dynamic batching.
//!
//! Workers push requests; executors take batches. Requests that are pushed while the executors are busy wait and are
//! taken in as few batches as the options allow: batches form under load, and without load no request is delayed.

pub mod batch;
pub mod buffer;
pub mod delivery;
pub mod local;
mod monitor;
pub mod options;
pub mod pending;
mod priority_queue;
pub mod split;

/// The primitives that `monitor` is built on.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::grpc::status::{Code, Status};
use crate::metrics::QueueMetrics;
use crate::oip::response::Template;
use crate::queue::batch::{Batch, ReorderBuffer};
use crate::queue::buffer::{Buffer, Pool};
use crate::queue::delivery::Outbox;
use crate::queue::monitor::Monitor;
use crate::queue::options::Options;
use crate::queue::pending::Pending;
use crate::queue::priority_queue::{Full, PriorityQueue};
use crate::signature::{Signature, Tensor, quote};

/// Tensors of at least this many bytes are copied to aligned memory when pushed, while they are in the cache.
const WORTH_ALIGNING: usize = 64 << 10;

/// How long an executor spins before it blocks, if recent waits for work were shorter: waking a thread takes about
/// as long on a virtual machine, and costs the waker a system call instead of a store to memory.
const SPIN_LIMIT: Duration = Duration::from_micros(250);

/// The minimum and maximum time for which executors do not spin after one was preempted: a computing process keeps
/// the core for milliseconds, while a blocked thread gets one when it is woken. Doubled if preempted again soon.
const SPIN_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// A task that is run when no requests are waiting; opaque to the queue.
pub type Deferred = Box<dyn Any + Send>;

/// A unit of work that an executor dequeues.
pub enum Work {
    /// Requests to compute.
    Batch(Batch),
    /// A task that was deferred until no requests are waiting.
    Deferred(Deferred),
}

/// The queue of one model version.
pub struct Queue {
    /// The model's inputs and outputs.
    pub signature: Signature,
    /// The options of batching and queueing.
    pub options: Options,
    /// The metrics of this queue.
    pub metrics: QueueMetrics,
    pub(crate) template: Template,
    pub(crate) pool: Arc<Pool>,
    pub(crate) reorder_buffer: ReorderBuffer,
    /// Locked for a few instructions only: a lock-free queue would not be faster and could not remove expired requests.
    state: Monitor<State>,
    /// Moving average of the computation time per row, in nanoseconds; used for `retry_after`.
    nanos_per_row: AtomicU64,
    /// Moving average of the time that an executor waits for work, in nanoseconds.
    idle_nanos: AtomicU64,
    /// Incremented under the lock for each event that a waiting executor must see.
    event_count: AtomicU64,
}

struct State {
    requests: PriorityQueue,
    /// Tasks that are run when no requests are waiting; not limited in number.
    deferred: VecDeque<Deferred>,
    /// Whether client requests are rejected; in-process requests are not, since accepted requests may depend on them.
    draining: bool,
    closed: bool,
    /// The time until which executors block without spinning, and the length of that interval.
    no_spin_until: Instant,
    spin_backoff: Duration,
    batches: u64,
}

impl State {
    /// Disables spinning for a while because an executor was preempted.
    fn back_off_spinning(&mut self, now: Instant) {
        let soon = now.saturating_duration_since(self.no_spin_until) < 2 * self.spin_backoff;
        self.spin_backoff = if soon { (2 * self.spin_backoff).min(SPIN_BACKOFF.1) } else { SPIN_BACKOFF.0 };
        self.no_spin_until = now + self.spin_backoff;
    }
}

impl Queue {
    /// Creates an empty, open queue.
    pub fn new(signature: Signature, options: Options) -> Queue {
        let template = Template::new(&signature);
        let requests = PriorityQueue::new(&options);
        Queue {
            template,
            reorder_buffer: ReorderBuffer::new(options.preserve_ordering),
            metrics: QueueMetrics::default(),
            pool: Arc::default(),
            state: Monitor::new(State {
                requests,
                deferred: VecDeque::new(),
                draining: false,
                closed: false,
                no_spin_until: Instant::now(),
                spin_backoff: Duration::ZERO,
                batches: 0,
            }),
            nanos_per_row: AtomicU64::new(0),
            idle_nanos: AtomicU64::new(0),
            event_count: AtomicU64::new(0),
            signature,
            options,
        }
    }

    /// Adds a request; returns whether an executor is blocked, in which case the caller must call `wake`.
    ///
    /// A request is rejected with UNAVAILABLE if the queue is draining or closed, RESOURCE_EXHAUSTED if it is full, and
    /// INVALID_ARGUMENT if the request has more rows than can be computed in parts.
    #[must_use]
    pub fn push(&self, mut request: Pending) -> bool {
        self.metrics.requests.add(1);
        if let Some(status) = split::oversized(&request, self.options.max_batch_size) {
            self.refuse(request, status);
            return false;
        }
        let (level, bytes, local) = (request.level, request.bytes(), request.responder.route.is_local());
        // Large tensors are copied before the request waits, but not those of a request that will be rejected.
        if bytes >= WORTH_ALIGNING {
            let refusal = self.refusal(&self.state.lock(), level, bytes, local);
            if let Some(status) = refusal {
                self.refuse(request, status);
                return false;
            }
            self.align(&mut request);
        }
        let request = split::prepare(request, &self.signature, self.options.max_batch_size);
        let mut state = self.state.lock();
        let Some(status) = self.refusal(&state, level, bytes, local) else {
            state.requests.push(request);
            self.event_count.fetch_add(1, Ordering::Release);
            return state.has_waiters();
        };
        drop(state);
        self.refuse(request, status);
        false
    }

    /// Adds a task that is run when no requests are waiting; returns it if the queue is draining or closed.
    pub fn defer(&self, task: Deferred) -> Result<(), Deferred> {
        let mut state = self.state.lock();
        if state.draining {
            return Err(task);
        }
        state.deferred.push_back(task);
        self.event_count.fetch_add(1, Ordering::Release);
        let has_waiters = state.has_waiters();
        drop(state);
        if has_waiters {
            self.state.notify_one();
        }
        Ok(())
    }

    /// Wakes a blocked executor, if there is one.
    pub fn wake(&self) {
        self.state.notify_one();
    }

    /// Waits for work; None once the queue is closed and empty.
    ///
    /// Expired and cancelled requests are completed here and not returned.
    pub fn take(self: &Arc<Self>) -> Option<Work> {
        let mut dropped = Vec::new();
        let mut idle = None;
        let mut state = self.state.lock();
        let taken = loop {
            let now = Instant::now();
            state.requests.remove_expired(now, &mut dropped);
            if !dropped.is_empty() {
                drop(state);
                self.complete_dropped(&mut dropped);
                state = self.state.lock();
                continue;
            }
            let (draining, closed) = (state.draining, state.closed);
            match state.requests.next(&self.options, now, draining, &mut dropped) {
                priority_queue::Next::Batch(parts) => break parts,
                priority_queue::Next::Nothing if !state.deferred.is_empty() => {
                    let task = state.deferred.pop_front()?;
                    let more = state.has_waiters() && !state.deferred.is_empty();
                    drop(state);
                    if more {
                        self.state.notify_one();
                    }
                    self.complete_dropped(&mut dropped);
                    return Some(Work::Deferred(task));
                }
                priority_queue::Next::Nothing if closed => return None,
                priority_queue::Next::Nothing if idle.is_none() && now < state.no_spin_until => {
                    idle = Some(now)
                }
                priority_queue::Next::Nothing if idle.is_none() => {
                    idle = Some(now);
                    let seen = self.event_count.load(Ordering::Acquire);
                    drop(state);
                    let undisturbed = self.spin(now, seen);
                    state = self.state.lock();
                    if !undisturbed {
                        state.back_off_spinning(Instant::now());
                    }
                }
                priority_queue::Next::Nothing => state = self.state.wait(state, None),
                priority_queue::Next::Wait(until) => state = self.state.wait(state, Some(until - now)),
            }
        };
        let ordinal = state.batches;
        state.batches += 1;
        let more = state.has_waiters() && !(state.requests.is_empty() && state.deferred.is_empty());
        drop(state);
        if more {
            self.state.notify_one();
        }
        self.complete_dropped(&mut dropped);
        if let Some(since) = idle {
            // Capped so that one long wait does not outweigh many short ones.
            update_ewma(&self.idle_nanos, since.elapsed().min(4 * SPIN_LIMIT));
        }
        Some(Work::Batch(Batch::new(self.clone(), taken, ordinal)))
    }

    /// Rejects further client requests with UNAVAILABLE; in-process requests are still accepted, and not delayed.
    pub fn drain(&self) {
        self.state.lock().draining = true;
        self.state.notify_all();
    }

    /// Rejects all new requests with UNAVAILABLE; waiting requests are still taken.
    pub fn close(&self) {
        let mut state = self.state.lock();
        (state.draining, state.closed) = (true, true);
        self.event_count.fetch_add(1, Ordering::Release);
        drop(state);
        self.state.notify_all();
    }

    /// Completes expired and cancelled requests; called periodically to free their slots and memory.
    pub fn purge(&self) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        state.requests.remove_expired(Instant::now(), &mut dropped);
        state.requests.remove_cancelled(&mut dropped);
        drop(state);
        self.complete_dropped(&mut dropped);
    }

    /// The number of waiting requests.
    pub fn depth(&self) -> usize {
        self.state.lock().requests.len()
    }

    /// Copies large tensors to aligned memory. This is done on push rather than when a batch is formed because the
    /// worker has them in its cache, and a batch of a single request needs no further copy.
    fn align(&self, request: &mut Pending) {
        for (tensor, spec) in request.tensors.iter_mut().zip(&self.signature.inputs) {
            if let Some(Tensor { data, .. }) = tensor
                && data.len() >= WORTH_ALIGNING
                && spec.datatype.size().is_some()
                && !matches!(data.pieces(), [whole] if buffer::is_aligned(whole))
            {
                *data = Buffer::filled(&self.pool, data.len(), |target| data.copy_to(target)).into();
            }
        }
    }

    /// Records the computation time of a batch.
    pub(crate) fn record_row_time(&self, rows: usize, took: Duration) {
        update_ewma(&self.nanos_per_row, took / rows.max(1) as u32);
    }

    /// Spins until `event_count` differs from `seen`, if recent waits were short; returns false if the thread was
    /// preempted meanwhile.
    fn spin(&self, since: Instant, seen: u64) -> bool {
        if self.idle_nanos.load(Ordering::Relaxed) > SPIN_LIMIT.as_nanos() as u64 {
            return true;
        }
        let mut now = since;
        while self.event_count.load(Ordering::Acquire) == seen && now - since < SPIN_LIMIT {
            // A thread that is waiting for this core runs first: it may be the one that adds work.
            std::thread::yield_now();
            let before = std::mem::replace(&mut now, Instant::now());
            if now - before > SPIN_LIMIT {
                return false;
            }
        }
        true
    }

    /// Completes removed requests with CANCELLED or DEADLINE_EXCEEDED.
    fn complete_dropped(&self, dropped: &mut Vec<Pending>) {
        for mut request in dropped.drain(..) {
            let status = match request.is_cancelled() {
                true => Status::new(Code::Cancelled, "the client cancelled the request"),
                false => {
                    let code = self.options.code(Code::DeadlineExceeded);
                    Status::new(code, "Deadline Exceeded while the request waited")
                }
            };
            self.refuse(request, status);
        }
    }

    fn refuse(&self, request: Pending, status: Status) {
        let mut outbox = Outbox::default();
        request.responder.refuse(self, request.arrived, status, &mut outbox);
        outbox.post();
    }

    /// The status with which a request is rejected; None if it is accepted.
    fn refusal(&self, state: &State, level: usize, bytes: usize, local: bool) -> Option<Status> {
        if state.closed || (state.draining && !local) {
            return Some(self.closed());
        }
        state.requests.check_capacity(level, bytes).err().map(|full| self.full(&full))
    }

    fn closed(&self) -> Status {
        let model = quote(&self.signature.model);
        let message = format!("model {model} is shutting down here; try another server, or again later");
        Status::new(Code::Unavailable, message)
    }

    fn full(&self, full: &Full) -> Status {
        let model = quote(&self.signature.model);
        let (message, wait) = match *full {
            Full::Requests(limit) => (format!("{limit} requests waiting, which is its limit"), limit),
            Full::Bytes(bytes) => (format!("{bytes} bytes of requests waiting, and no room for this one"), 1),
        };
        let message = format!("model {model} has {message}; try again later");
        let delay =
            Duration::from_nanos(self.nanos_per_row.load(Ordering::Relaxed).saturating_mul(wait as u64));
        let retry_after = Some(delay.clamp(Duration::from_millis(10), Duration::from_secs(5)));
        Status { retry_after, ..Status::new(self.options.code(Code::ResourceExhausted), message) }
    }
}

/// Adds a value to an exponentially weighted moving average, with a weight of 1/8.
fn update_ewma(average: &AtomicU64, value: Duration) {
    let (old, new) = (average.load(Ordering::Relaxed), value.as_nanos() as u64);
    average.store(if old == 0 { new } else { old - old / 8 + new / 8 }, Ordering::Relaxed);
}
