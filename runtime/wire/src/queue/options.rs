//! How batches are made, under Triton's names.

use std::time::Duration;

use crate::grpc::status::Code;

/// The options of one queue.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows of a batch at most; 1 in a model without a batch dimension.
    pub max_batch_size: usize,
    /// Sizes that are worth waiting for, ascending.
    pub preferred_batch_sizes: Vec<usize>,
    /// How long a batch may wait for more rows; zero: only while the executor is busy.
    pub max_queue_delay: Duration,
    /// One policy for each priority, the most urgent first; at least one.
    pub policies: Vec<Policy>,
    /// The priority of requests that name none, from 1.
    pub default_priority: usize,
    /// Whether answers leave in the order in which their batches were taken.
    pub preserve_ordering: bool,
    /// Sizes to which batches are padded, ascending; empty: none.
    pub buckets: Vec<usize>,
    /// Bytes of tensors that may wait, over all priorities; one request may always.
    pub max_queue_bytes: usize,
    /// Whether a full queue and a request that waited for too long are UNAVAILABLE, as in Triton.
    pub triton_codes: bool,
    /// Whether unary requests go to a servicer first.
    pub hosted: bool,
    /// Whether each request is a batch of its own.
    pub single_request_batches: bool,
}

/// What holds for the requests of one priority.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Requests that may wait; 0: any number.
    pub max_queue_size: usize,
    /// How long a request may wait, unless it says otherwise.
    pub default_timeout: Option<Duration>,
    /// Whether a request may say otherwise.
    pub allow_timeout_override: bool,
    /// What happens after that time.
    pub timeout_action: TimeoutAction,
}

/// What happens to a request that has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused with DEADLINE_EXCEEDED.
    Reject,
    /// It waits on, behind all others of its priority.
    Delay,
}

impl Policy {
    /// How long a request may wait that asks for `asked`.
    pub fn timeout(&self, asked: Option<Duration>) -> Option<Duration> {
        asked.filter(|_| self.allow_timeout_override).or(self.default_timeout)
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            max_queue_size: 1024,
            default_timeout: None,
            allow_timeout_override: true,
            timeout_action: TimeoutAction::Reject,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_batch_size: 64,
            preferred_batch_sizes: Vec::new(),
            max_queue_delay: Duration::ZERO,
            policies: vec![Policy::default()],
            default_priority: 1,
            preserve_ordering: false,
            buckets: Vec::new(),
            max_queue_bytes: usize::MAX,
            triton_codes: false,
            hosted: false,
            single_request_batches: false,
        }
    }
}

impl Options {
    /// The level (from 0, the most urgent) of a request's priority (from 1; 0 or out of range: the default).
    pub fn level(&self, priority: u64) -> usize {
        let levels = self.policies.len();
        let chosen = usize::try_from(priority).ok().filter(|chosen| (1..=levels).contains(chosen));
        chosen.unwrap_or(self.default_priority.clamp(1, levels)) - 1
    }

    /// gRPC's code, or that of Triton where its codes are configured.
    pub fn code(&self, standard: Code) -> Code {
        if self.triton_codes { Code::Unavailable } else { standard }
    }

    /// The rows that a batch of `rows` is padded to; a batch without rows has none to repeat, and stays as it is.
    pub fn padded(&self, rows: usize) -> usize {
        if rows == 0 {
            return 0;
        }
        self.buckets.iter().copied().find(|&bucket| bucket >= rows).unwrap_or(rows)
    }
}
