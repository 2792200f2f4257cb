//! The options of batching and queueing, named as in Triton.

use std::time::Duration;

use crate::grpc::status::Code;

/// The options of one queue.
#[derive(Clone, Debug)]
pub struct Options {
    /// The maximum number of rows of a batch; 1 for a model without a batch dimension.
    pub max_batch_size: usize,
    /// Batch sizes to prefer, and to wait for within `max_queue_delay`; ascending.
    pub preferred_batch_sizes: Vec<usize>,
    /// The maximum time that a batch waits for more rows; zero: only while the executors are busy.
    pub max_queue_delay: Duration,
    /// One policy for each priority, highest first; at least one.
    pub policies: Vec<Policy>,
    /// The priority of requests that set none, from 1.
    pub default_priority: usize,
    /// Whether responses are sent in the order in which their batches were taken.
    pub preserve_ordering: bool,
    /// Sizes to which batches are padded, ascending; empty for no padding.
    pub buckets: Vec<usize>,
    /// The maximum total bytes of waiting tensors, across all priorities; a single request may always wait.
    pub max_queue_bytes: usize,
    /// Whether a full queue and a queue timeout are reported as UNAVAILABLE, as in Triton.
    pub triton_codes: bool,
    /// Whether requests are first passed to a servicer in Python.
    pub hosted: bool,
    /// Whether each request is a batch of its own.
    pub single_request_batches: bool,
}

/// The queue policy of one priority.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The maximum number of waiting requests; 0 for no limit.
    pub max_queue_size: usize,
    /// The queue timeout of requests that set none.
    pub default_timeout: Option<Duration>,
    /// Whether a request may override the timeout.
    pub allow_timeout_override: bool,
    /// What happens after the timeout.
    pub timeout_action: TimeoutAction,
}

/// What happens to a request after its queue timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is rejected with DEADLINE_EXCEEDED.
    Reject,
    /// It continues to wait, behind all others of its priority.
    Delay,
}

impl Policy {
    /// The queue timeout of a request that asks for `asked`.
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
    /// The level (from 0, the highest) of a request's priority (from 1; 0 or out of range: the default).
    pub fn level(&self, priority: u64) -> usize {
        let levels = self.policies.len();
        let chosen = usize::try_from(priority).ok().filter(|chosen| (1..=levels).contains(chosen));
        chosen.unwrap_or(self.default_priority.clamp(1, levels)) - 1
    }

    /// Returns UNAVAILABLE if Triton's codes are configured, otherwise the given code.
    pub fn code(&self, standard: Code) -> Code {
        if self.triton_codes { Code::Unavailable } else { standard }
    }

    /// The number of rows to which a batch of `rows` is padded; an empty batch has no row to repeat and is not padded.
    pub fn padded(&self, rows: usize) -> usize {
        if rows == 0 {
            return 0;
        }
        self.buckets.iter().copied().find(|&bucket| bucket >= rows).unwrap_or(rows)
    }
}
