//! The waiting requests of a queue by priority, as in Triton, and the selection of the next batch.

use std::collections::VecDeque;
use std::time::Instant;

use crate::queue::options::{Options, TimeoutAction};
use crate::queue::pending::Pending;
use crate::queue::split::split_to;

/// The next action of an executor.
pub enum Next {
    /// Compute this batch.
    Batch(Vec<Pending>),
    /// Wait for more requests until this time.
    Wait(Instant),
    /// No requests are waiting.
    Nothing,
}

/// The limit that another request would exceed.
pub enum Full {
    /// The limit of waiting requests; holds the limit.
    Requests(usize),
    /// The limit of waiting bytes; holds the bytes of tensors that are already waiting.
    Bytes(usize),
}

/// The waiting requests of all priorities.
pub struct PriorityQueue {
    levels: Vec<PolicyQueue>,
    bytes: usize,
    max_bytes: usize,
    /// A lower bound of the earliest expiry of a waiting request; None if no request expires.
    soonest: Option<Instant>,
}

/// The requests of one priority.
struct PolicyQueue {
    queue: VecDeque<Pending>,
    /// Requests whose queue timeout has passed, under `TimeoutAction::Delay`.
    delayed: VecDeque<Pending>,
    /// The number of requests; a split request counts until its last part is taken.
    requests: usize,
    limit: usize,
    on_timeout: TimeoutAction,
}

impl PriorityQueue {
    /// Creates an empty queue.
    pub fn new(options: &Options) -> PriorityQueue {
        let level = |policy: &crate::queue::options::Policy| PolicyQueue {
            queue: VecDeque::new(),
            delayed: VecDeque::new(),
            requests: 0,
            limit: policy.max_queue_size,
            on_timeout: policy.timeout_action,
        };
        PriorityQueue {
            levels: options.policies.iter().map(level).collect(),
            bytes: 0,
            max_bytes: options.max_queue_bytes,
            soonest: None,
        }
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.levels.iter().map(|level| level.requests).sum()
    }

    /// Whether no requests are waiting.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.requests == 0)
    }

    /// Checks whether another request of `bytes` bytes fits into a level.
    pub fn check_capacity(&self, level: usize, bytes: usize) -> Result<(), Full> {
        let PolicyQueue { requests, limit, .. } = self.levels[level];
        if limit > 0 && requests >= limit {
            Err(Full::Requests(limit))
        } else if !self.is_empty() && self.bytes.saturating_add(bytes) > self.max_bytes {
            Err(Full::Bytes(self.bytes))
        } else {
            Ok(())
        }
    }

    /// Adds a request at the end of its level.
    pub fn push(&mut self, request: Pending) {
        self.bytes += request.bytes();
        self.soonest = earliest(self.soonest, request.expiry());
        let level = &mut self.levels[request.level];
        level.requests += usize::from(request.counts_toward_limit);
        level.queue.push_back(request);
    }

    /// Updates the counts after requests were removed.
    fn count_out(&mut self, removed: &[Pending]) {
        for request in removed {
            self.bytes -= request.bytes();
            self.levels[request.level].requests -= usize::from(request.counts_toward_limit);
        }
    }

    /// Moves expired requests, and cancelled ones at the head of a queue, to `dropped`.
    ///
    /// Other cancelled requests are removed by `next` and `remove_cancelled`.
    pub fn remove_expired(&mut self, now: Instant, dropped: &mut Vec<Pending>) {
        let before = dropped.len();
        let due = self.soonest.is_some_and(|soonest| soonest <= now);
        let mut soonest = None;
        for level in &mut self.levels {
            if due {
                level.expire(now, dropped);
                let waiting = level.queue.iter().chain(&level.delayed);
                soonest = waiting.fold(soonest, |soonest, request| earliest(soonest, request.expiry()));
            }
            for queue in [&mut level.queue, &mut level.delayed] {
                while queue.front_mut().is_some_and(Pending::is_cancelled) {
                    dropped.extend(queue.pop_front());
                }
            }
        }
        if due {
            self.soonest = soonest;
        }
        self.count_out(&dropped[before..]);
    }

    /// Moves all cancelled requests to `dropped`.
    pub fn remove_cancelled(&mut self, dropped: &mut Vec<Pending>) {
        let before = dropped.len();
        for level in &mut self.levels {
            for queue in [&mut level.queue, &mut level.delayed] {
                for mut request in std::mem::take(queue) {
                    if request.is_cancelled() { dropped.push(request) } else { queue.push_back(request) }
                }
            }
        }
        self.count_out(&dropped[before..]);
    }

    /// Returns the next action. With `draining`, a batch does not wait for more rows, since no client requests follow.
    ///
    /// Cancelled requests that would be in the batch are moved to `dropped`.
    pub fn next(
        &mut self,
        options: &Options,
        now: Instant,
        draining: bool,
        dropped: &mut Vec<Pending>,
    ) -> Next {
        let levels = self.levels.iter_mut().flat_map(|level| [&mut level.queue, &mut level.delayed]);
        let mut queues: Vec<_> = levels.filter(|queue| !queue.is_empty()).collect();
        let Some(oldest) = queues.iter().map(|queue| queue[0].arrived).min() else { return Next::Nothing };
        let mut first = Position::default();
        if !draining && !options.max_queue_delay.is_zero() {
            let until = oldest + options.max_queue_delay;
            let enough = *options.preferred_batch_sizes.first().unwrap_or(&options.max_batch_size);
            if until > now {
                let Some(position) = first_full_batch(&queues, enough.min(options.max_batch_size)) else {
                    return Next::Wait(until);
                };
                first = position;
            }
        }
        let limit = if options.single_request_batches {
            0
        } else {
            preferred(matching_rows_if(&queues, first, options), options)
        };
        let before = dropped.len();
        let batch = take(&mut queues, first, limit, options.max_batch_size, dropped);
        self.count_out(&batch);
        self.count_out(&dropped[before..]);
        Next::Batch(batch)
    }
}

impl PolicyQueue {
    fn expire(&mut self, now: Instant, dropped: &mut Vec<Pending>) {
        for mut request in std::mem::take(&mut self.queue) {
            let overdue = request.expires.is_some_and(|expires| expires <= now);
            if request.is_past_deadline(now) || (overdue && self.on_timeout == TimeoutAction::Reject) {
                dropped.push(request);
            } else if overdue {
                request.expires = None;
                self.delayed.push_back(request);
            } else {
                self.queue.push_back(request);
            }
        }
        for request in std::mem::take(&mut self.delayed) {
            if request.is_past_deadline(now) {
                dropped.push(request)
            } else {
                self.delayed.push_back(request)
            }
        }
    }
}

fn earliest(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    left.into_iter().chain(right).min()
}

/// The queues in descending order of priority; none is empty.
type Queues<'a> = [&'a mut VecDeque<Pending>];

/// The position of a waiting request: its queue and its index there. The default is the first request of all.
#[derive(Clone, Copy, Default)]
struct Position {
    queue: usize,
    index: usize,
}

/// The maximum number of shapes that are searched for a full batch; each takes a pass over all waiting requests.
const MAX_SHAPES: usize = 8;

/// Finds the first request whose shape has enough waiting rows for a full batch; no request of this shape precedes it.
fn first_full_batch(queues: &Queues, enough: usize) -> Option<Position> {
    let mut seen: Vec<&Pending> = Vec::new();
    for (queue, requests) in queues.iter().enumerate() {
        for (index, request) in requests.iter().enumerate() {
            if seen.iter().any(|other| request.matches(other)) {
                continue;
            }
            if matching_rows(queues, request, enough) >= enough {
                return Some(Position { queue, index });
            }
            seen.push(request);
            if seen.len() == MAX_SHAPES {
                return None;
            }
        }
    }
    None
}

/// Counts the rows of the requests that match `first`, itself included; stops once `limit` is reached.
fn matching_rows(queues: &Queues, first: &Pending, limit: usize) -> usize {
    let mut rows = 0;
    let waiting = queues.iter().flat_map(|queue| queue.iter());
    for request in waiting.filter(|request| request.matches(first)) {
        rows += request.rows;
        if rows >= limit {
            break;
        }
    }
    rows
}

/// The same, if there are preferred sizes, which alone need it; otherwise 0.
fn matching_rows_if(queues: &Queues, first: Position, options: &Options) -> usize {
    if options.preferred_batch_sizes.is_empty() {
        return 0;
    }
    matching_rows(queues, &queues[first.queue][first.index], options.max_batch_size)
}

/// Returns the largest preferred size that `rows` can fill; the maximum batch size if there is none.
fn preferred(rows: usize, options: &Options) -> usize {
    let sizes = options.preferred_batch_sizes.iter().copied();
    sizes.filter(|&size| size <= rows.min(options.max_batch_size)).max().unwrap_or(options.max_batch_size)
}

/// Takes the request at `first`, or `max` rows of it, and all matching ones, of lower priority too, up to `limit`
/// rows; the others keep their order. No request that matches the one at `first` may precede it.
fn take(
    queues: &mut Queues,
    first: Position,
    limit: usize,
    max: usize,
    dropped: &mut Vec<Pending>,
) -> Vec<Pending> {
    let waiting = &mut *queues[first.queue];
    let part = split_to(&mut waiting[first.index], max);
    let mut batch: Vec<Pending> = part.or_else(|| waiting.remove(first.index)).into_iter().collect();
    let mut rows = batch.first().map_or(0, |request| request.rows);
    for queue in queues {
        let mut passed = VecDeque::new();
        let mut full = rows >= limit;
        while !full && let Some(mut request) = queue.pop_front() {
            if !request.matches(&batch[0]) {
                passed.push_back(request);
            } else if request.is_cancelled() {
                dropped.push(request);
            } else if rows + request.rows <= limit {
                rows += request.rows;
                full = rows >= limit;
                batch.push(request);
            } else {
                // FIFO: a smaller request behind it must not overtake it.
                queue.push_front(request);
                full = true;
            }
        }
        passed.into_iter().rev().for_each(|request| queue.push_front(request));
        if full {
            break;
        }
    }
    batch
}
