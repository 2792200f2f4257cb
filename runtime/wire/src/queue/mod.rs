//! Where the requests of one model version wait, and how they become batches.
//!
//! A worker pushes; an executor takes. What is pushed while the executor is busy waits, and leaves in as few
//! batches as the options allow: batches form by themselves under load, and nobody waits for one without it.

pub mod batch;
pub mod buffer;
mod gate;
pub mod join;
pub mod local;
pub mod options;
pub mod pending;
mod waiting;

/// What `gate` is built on.
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
use crate::queue::batch::{Batch, Order};
use crate::queue::buffer::{Buffer, Pool};
use crate::queue::gate::Gate;
use crate::queue::options::Options;
use crate::queue::pending::{Mail, Pending};
use crate::queue::waiting::{Full, Waiting};
use crate::signature::{Signature, Tensor, quote};

/// Tensors of this many bytes are copied while they are in the cache.
const WORTH_ALIGNING: usize = 64 << 10;

/// An executor watches for work this long before it sleeps, where work has lately come as fast: to be woken
/// takes about as long on a virtual machine, and costs the waker a system call in place of a store to memory.
const WATCH: Duration = Duration::from_micros(250);

/// Nobody watches for so long after a core was taken away meanwhile, at least and at most: a process that computes
/// keeps it for milliseconds, while one that sleeps gets it back when it is woken. Twice as long where it is taken
/// again soon.
const CROWDED: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// What an executor is to do when no request waits: nothing that the queue knows of.
pub type Errand = Box<dyn Any + Send>;

/// What an executor takes.
pub enum Work {
    /// Requests to compute.
    Batch(Batch),
    /// What was put off until none waits.
    Errand(Errand),
}

/// The queue of one model version.
pub struct Queue {
    /// What the model takes and gives.
    pub signature: Signature,
    /// How batches are made.
    pub options: Options,
    /// What has happened here.
    pub metrics: QueueMetrics,
    pub(crate) template: Template,
    pub(crate) pool: Arc<Pool>,
    pub(crate) order: Order,
    /// Held for a few moves of pointers only: a lock-free queue would gain nothing and could not drop its dead.
    gate: Gate<State>,
    /// Nanoseconds that a row takes, smoothed: for how long to tell clients to stay away.
    pace: AtomicU64,
    /// Nanoseconds that an executor without work waits for some, smoothed.
    lull: AtomicU64,
    /// Changes, inside the gate, whenever an executor that waits has something to see.
    news: AtomicU64,
}

struct State {
    waiting: Waiting,
    /// Behind every request, and outside their limits.
    errands: VecDeque<Errand>,
    /// Clients are refused; the server itself is not, which may have to ask more to answer what it has accepted.
    refusing: bool,
    closed: bool,
    /// Executors without work sleep at once until then, and for how long that was said.
    sleeps_until: Instant,
    crowded: Duration,
    batches: u64,
}

impl State {
    /// Lets executors sleep at once for a while: somebody else has kept a core.
    fn stop_watching(&mut self, now: Instant) {
        let soon = now.saturating_duration_since(self.sleeps_until) < 2 * self.crowded;
        self.crowded = if soon { (2 * self.crowded).min(CROWDED.1) } else { CROWDED.0 };
        self.sleeps_until = now + self.crowded;
    }
}

impl Queue {
    /// An open, empty queue.
    pub fn new(signature: Signature, options: Options) -> Queue {
        let template = Template::new(&signature);
        let waiting = Waiting::new(&options);
        Queue {
            template,
            order: Order::new(options.preserve_ordering),
            metrics: QueueMetrics::default(),
            pool: Arc::default(),
            gate: Gate::new(State {
                waiting,
                errands: VecDeque::new(),
                refusing: false,
                closed: false,
                sleeps_until: Instant::now(),
                crowded: Duration::ZERO,
                batches: 0,
            }),
            pace: AtomicU64::new(0),
            lull: AtomicU64::new(0),
            news: AtomicU64::new(0),
            signature,
            options,
        }
    }

    /// Adds a request; returns whether an executor sleeps that `wake` is to be called for.
    ///
    /// Refused requests are answered: UNAVAILABLE when closed, RESOURCE_EXHAUSTED when full, INVALID_ARGUMENT
    /// for more rows than can be computed in parts.
    #[must_use]
    pub fn push(&self, mut request: Pending) -> bool {
        self.metrics.requests.add(1);
        if let Some(status) = join::unfit(&request, self.options.max_batch_size) {
            self.refuse(request, status);
            return false;
        }
        let (level, bytes, local) = (request.level, request.bytes(), request.responder.route.is_local());
        // Large tensors are copied before they wait, but not of a request that may not wait.
        if bytes >= WORTH_ALIGNING {
            let refusal = self.refusal(&self.gate.enter(), level, bytes, local);
            if let Some(status) = refusal {
                self.refuse(request, status);
                return false;
            }
            self.align(&mut request);
        }
        let request = join::prepare(request, &self.signature, self.options.max_batch_size);
        let mut state = self.gate.enter();
        let Some(status) = self.refusal(&state, level, bytes, local) else {
            state.waiting.push(request);
            self.news.fetch_add(1, Ordering::Release);
            return state.has_sleepers();
        };
        drop(state);
        self.refuse(request, status);
        false
    }

    /// Adds what is to be done when no request waits; gives it back once the queue is closed.
    pub fn defer(&self, errand: Errand) -> Result<(), Errand> {
        let mut state = self.gate.enter();
        if state.refusing {
            return Err(errand);
        }
        state.errands.push_back(errand);
        self.news.fetch_add(1, Ordering::Release);
        let sleepers = state.has_sleepers();
        drop(state);
        if sleepers {
            self.gate.wake_one();
        }
        Ok(())
    }

    /// Wakes an executor that sleeps, if there is one.
    pub fn wake(&self) {
        self.gate.wake_one();
    }

    /// Waits for work; None once the queue is closed and empty.
    ///
    /// Requests whose time is over or whose client is gone are answered or dropped here, not returned.
    pub fn take(self: &Arc<Self>) -> Option<Work> {
        let mut dropped = Vec::new();
        let mut idle = None;
        let mut state = self.gate.enter();
        let taken = loop {
            let now = Instant::now();
            state.waiting.drop_dead(now, &mut dropped);
            if !dropped.is_empty() {
                drop(state);
                self.bury(&mut dropped);
                state = self.gate.enter();
                continue;
            }
            let (hurried, closed) = (state.refusing, state.closed);
            match state.waiting.next(&self.options, now, hurried, &mut dropped) {
                waiting::Next::Batch(parts) => break parts,
                waiting::Next::Nothing if !state.errands.is_empty() => {
                    let errand = state.errands.pop_front()?;
                    let more = state.has_sleepers() && !state.errands.is_empty();
                    drop(state);
                    if more {
                        self.gate.wake_one();
                    }
                    self.bury(&mut dropped);
                    return Some(Work::Errand(errand));
                }
                waiting::Next::Nothing if closed => return None,
                waiting::Next::Nothing if idle.is_none() && now < state.sleeps_until => idle = Some(now),
                waiting::Next::Nothing if idle.is_none() => {
                    idle = Some(now);
                    let seen = self.news.load(Ordering::Acquire);
                    drop(state);
                    let alone = self.watch(now, seen);
                    state = self.gate.enter();
                    if !alone {
                        state.stop_watching(Instant::now());
                    }
                }
                waiting::Next::Nothing => state = self.gate.sleep(state, None),
                waiting::Next::Wait(until) => state = self.gate.sleep(state, Some(until - now)),
            }
        };
        let ordinal = state.batches;
        state.batches += 1;
        let more = state.has_sleepers() && !(state.waiting.is_empty() && state.errands.is_empty());
        drop(state);
        if more {
            self.gate.wake_one();
        }
        self.bury(&mut dropped);
        if let Some(since) = idle {
            // A long rest says no more than a short one.
            smooth(&self.lull, since.elapsed().min(4 * WATCH));
        }
        Some(Work::Batch(Batch::new(self.clone(), taken, ordinal)))
    }

    /// Refuses what clients send from now on with UNAVAILABLE; what the server itself asks is still taken, at once.
    pub fn refuse_clients(&self) {
        self.gate.enter().refusing = true;
        self.gate.wake_all();
    }

    /// Refuses every new request with UNAVAILABLE; what waits is still taken.
    pub fn close(&self) {
        let mut state = self.gate.enter();
        (state.refusing, state.closed) = (true, true);
        self.news.fetch_add(1, Ordering::Release);
        drop(state);
        self.gate.wake_all();
    }

    /// Answers what waits in vain: called now and then, so that the dead do not keep their place and memory.
    pub fn sweep(&self) {
        let mut dropped = Vec::new();
        let mut state = self.gate.enter();
        state.waiting.drop_dead(Instant::now(), &mut dropped);
        state.waiting.drop_gone(&mut dropped);
        drop(state);
        self.bury(&mut dropped);
    }

    /// The number of requests that wait.
    pub fn depth(&self) -> usize {
        self.gate.enter().waiting.len()
    }

    /// Copies large tensors to aligned memory, here and not where a batch is made: the worker has them in its
    /// cache, and an executor that gets a request alone need not copy it again.
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

    /// Remembers how long a batch took.
    pub(crate) fn keep_pace(&self, rows: usize, took: Duration) {
        smooth(&self.pace, took / rows.max(1) as u32);
    }

    /// Waits a little for news after those that were seen, where they have lately come fast; false where somebody
    /// else has kept the core meanwhile.
    fn watch(&self, since: Instant, seen: u64) -> bool {
        if self.lull.load(Ordering::Relaxed) > WATCH.as_nanos() as u64 {
            return true;
        }
        let mut now = since;
        while self.news.load(Ordering::Acquire) == seen && now - since < WATCH {
            // Whoever has work for this core goes first: it may be the one who brings the news.
            std::thread::yield_now();
            let before = std::mem::replace(&mut now, Instant::now());
            if now - before > WATCH {
                return false;
            }
        }
        true
    }

    fn bury(&self, dropped: &mut Vec<Pending>) {
        for mut request in dropped.drain(..) {
            let status = match request.is_gone() {
                true => Status::new(Code::Cancelled, "the client cancelled the request"),
                false => {
                    let code = self.options.code(Code::DeadlineExceeded);
                    Status::new(code, "the deadline passed while the request waited")
                }
            };
            self.refuse(request, status);
        }
    }

    fn refuse(&self, request: Pending, status: Status) {
        let mut mail = Mail::default();
        request.responder.refuse(self, request.arrived, status, &mut mail);
        mail.post();
    }

    /// Why a request may not wait.
    fn refusal(&self, state: &State, level: usize, bytes: usize, local: bool) -> Option<Status> {
        if state.closed || (state.refusing && !local) {
            return Some(self.closed());
        }
        state.waiting.room(level, bytes).err().map(|full| self.full(&full))
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
            Full::Bytes(bytes) => (format!("{bytes} bytes of requests waiting, and this one is too much"), 1),
        };
        let message = format!("model {model} has {message}; try again later");
        let delay = Duration::from_nanos(self.pace.load(Ordering::Relaxed).saturating_mul(wait as u64));
        let retry_after = Some(delay.clamp(Duration::from_millis(10), Duration::from_secs(5)));
        Status { retry_after, ..Status::new(self.options.code(Code::ResourceExhausted), message) }
    }
}

/// Lets a value count for an eighth of an average, or for all of one that is new.
fn smooth(average: &AtomicU64, value: Duration) {
    let (old, new) = (average.load(Ordering::Relaxed), value.as_nanos() as u64);
    average.store(if old == 0 { new } else { old - old / 8 + new / 8 }, Ordering::Relaxed);
}
