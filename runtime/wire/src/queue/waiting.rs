//! The requests that wait, by priority, and which of them leave together.

use std::collections::VecDeque;
use std::time::Instant;

use crate::queue::join::cut;
use crate::queue::options::{Options, TimeoutAction};
use crate::queue::pending::Pending;

/// What an executor may do next.
pub enum Next {
    /// Compute this.
    Batch(Vec<Pending>),
    /// Wait until then: more may come.
    Wait(Instant),
    /// There is nothing.
    Nothing,
}

/// Why one more request may not wait.
pub enum Full {
    /// So many wait already, which is the limit.
    Requests(usize),
    /// So many bytes of tensors wait already.
    Bytes(usize),
}

/// All requests of a queue.
pub struct Waiting {
    levels: Vec<Level>,
    bytes: usize,
    max_bytes: usize,
    /// The soonest time at which a request that waits may have to go; None: there is no such time.
    soonest: Option<Instant>,
}

/// The requests of one priority.
struct Level {
    queue: VecDeque<Pending>,
    /// Those whose time in the queue was over, under the policy that lets them wait on.
    delayed: VecDeque<Pending>,
    /// Requests; one that is cut into parts until the last of them is taken.
    held: usize,
    limit: usize,
    on_timeout: TimeoutAction,
}

impl Waiting {
    /// Nothing waits.
    pub fn new(options: &Options) -> Waiting {
        let level = |policy: &crate::queue::options::Policy| Level {
            queue: VecDeque::new(),
            delayed: VecDeque::new(),
            held: 0,
            limit: policy.max_queue_size,
            on_timeout: policy.timeout_action,
        };
        Waiting {
            levels: options.policies.iter().map(level).collect(),
            bytes: 0,
            max_bytes: options.max_queue_bytes,
            soonest: None,
        }
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.levels.iter().map(|level| level.held).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.held == 0)
    }

    /// Whether one more request of so many bytes fits into a level.
    pub fn room(&self, level: usize, bytes: usize) -> Result<(), Full> {
        let Level { held, limit, .. } = self.levels[level];
        if limit > 0 && held >= limit {
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
        self.soonest = earliest(self.soonest, request.ends());
        let level = &mut self.levels[request.level];
        level.held += usize::from(request.counts);
        level.queue.push_back(request);
    }

    /// Counts out what waits no more.
    fn left(&mut self, gone: &[Pending]) {
        for request in gone {
            self.bytes -= request.bytes();
            self.levels[request.level].held -= usize::from(request.counts);
        }
    }

    /// Moves those whose time is over or whose client is gone to `dropped`.
    ///
    /// Of the clients it looks at those only that are next: `next` and `drop_gone` see to the rest.
    pub fn drop_dead(&mut self, now: Instant, dropped: &mut Vec<Pending>) {
        let before = dropped.len();
        let due = self.soonest.is_some_and(|soonest| soonest <= now);
        let mut soonest = None;
        for level in &mut self.levels {
            if due {
                level.expire(now, dropped);
                let waiting = level.queue.iter().chain(&level.delayed);
                soonest = waiting.fold(soonest, |soonest, request| earliest(soonest, request.ends()));
            }
            for queue in [&mut level.queue, &mut level.delayed] {
                while queue.front_mut().is_some_and(Pending::is_gone) {
                    dropped.extend(queue.pop_front());
                }
            }
        }
        if due {
            self.soonest = soonest;
        }
        self.left(&dropped[before..]);
    }

    /// Moves every request whose client is gone to `dropped`.
    pub fn drop_gone(&mut self, dropped: &mut Vec<Pending>) {
        let before = dropped.len();
        for level in &mut self.levels {
            for queue in [&mut level.queue, &mut level.delayed] {
                for mut request in std::mem::take(queue) {
                    if request.is_gone() { dropped.push(request) } else { queue.push_back(request) }
                }
            }
        }
        self.left(&dropped[before..]);
    }

    /// What to do next. `hurried`: nothing is waited for, since clients send no more.
    ///
    /// Requests whose client is gone are moved to `dropped` on the way.
    pub fn next(
        &mut self,
        options: &Options,
        now: Instant,
        hurried: bool,
        dropped: &mut Vec<Pending>,
    ) -> Next {
        let levels = self.levels.iter_mut().flat_map(|level| [&mut level.queue, &mut level.delayed]);
        let mut queues: Vec<_> = levels.filter(|queue| !queue.is_empty()).collect();
        let Some(oldest) = queues.iter().map(|queue| queue[0].arrived).min() else { return Next::Nothing };
        let mut first = Place::default();
        if !hurried && !options.max_queue_delay.is_zero() {
            let until = oldest + options.max_queue_delay;
            let enough = *options.preferred_batch_sizes.first().unwrap_or(&options.max_batch_size);
            if until > now {
                let Some(complete) = complete(&queues, enough.min(options.max_batch_size)) else {
                    return Next::Wait(until);
                };
                first = complete;
            }
        }
        let limit =
            if options.alone { 0 } else { preferred(matching_rows_if(&queues, first, options), options) };
        let before = dropped.len();
        let batch = take(&mut queues, first, limit, options.max_batch_size, dropped);
        self.left(&batch);
        self.left(&dropped[before..]);
        Next::Batch(batch)
    }
}

impl Level {
    fn expire(&mut self, now: Instant, dropped: &mut Vec<Pending>) {
        for mut request in std::mem::take(&mut self.queue) {
            let overdue = request.expires.is_some_and(|expires| expires <= now);
            if request.is_late(now) || (overdue && self.on_timeout == TimeoutAction::Reject) {
                dropped.push(request);
            } else if overdue {
                request.expires = None;
                self.delayed.push_back(request);
            } else {
                self.queue.push_back(request);
            }
        }
        for request in std::mem::take(&mut self.delayed) {
            if request.is_late(now) { dropped.push(request) } else { self.delayed.push_back(request) }
        }
    }
}

fn earliest(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    left.into_iter().chain(right).min()
}

/// Requests in the order in which they leave: no queue is empty.
type Queues<'a> = [&'a mut VecDeque<Pending>];

/// Where a request waits: its queue, and its place there. By default it is the first of all.
#[derive(Clone, Copy, Default)]
struct Place {
    queue: usize,
    index: usize,
}

/// So many shapes are looked at for a batch that is complete: each costs a look at all that waits.
const SHAPES: usize = 8;

/// The first request of the first batch that need not wait for more rows: others wait for none of its shape.
fn complete(queues: &Queues, enough: usize) -> Option<Place> {
    let mut seen: Vec<&Pending> = Vec::new();
    for (queue, requests) in queues.iter().enumerate() {
        for (index, request) in requests.iter().enumerate() {
            if seen.iter().any(|other| request.matches(other)) {
                continue;
            }
            if matching_rows(queues, request, enough) >= enough {
                return Some(Place { queue, index });
            }
            seen.push(request);
            if seen.len() == SHAPES {
                return None;
            }
        }
    }
    None
}

/// The rows of the requests that fit one, itself among them, up to a limit.
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

/// The same, where it matters: only preferred sizes need it.
fn matching_rows_if(queues: &Queues, first: Place, options: &Options) -> usize {
    if options.preferred_batch_sizes.is_empty() {
        return 0;
    }
    matching_rows(queues, &queues[first.queue][first.index], options.max_batch_size)
}

/// The largest preferred size that is there in full; the maximum when there is none.
fn preferred(rows: usize, options: &Options) -> usize {
    let sizes = options.preferred_batch_sizes.iter().copied();
    sizes.filter(|&size| size <= rows.min(options.max_batch_size)).max().unwrap_or(options.max_batch_size)
}

/// Takes one request, or `max` rows of it, and all that fit it, of less urgent ones too, up to `limit` rows; the
/// others keep their order. `first`: no other request that fits it waits before it.
fn take(
    queues: &mut Queues,
    first: Place,
    limit: usize,
    max: usize,
    dropped: &mut Vec<Pending>,
) -> Vec<Pending> {
    let waiting = &mut *queues[first.queue];
    let part = cut(&mut waiting[first.index], max);
    let mut batch: Vec<Pending> = part.or_else(|| waiting.remove(first.index)).into_iter().collect();
    let mut rows = batch.first().map_or(0, |request| request.rows);
    for queue in queues {
        let mut passed = VecDeque::new();
        let mut full = rows >= limit;
        while !full && let Some(mut request) = queue.pop_front() {
            if !request.matches(&batch[0]) {
                passed.push_back(request);
            } else if request.is_gone() {
                dropped.push(request);
            } else if rows + request.rows <= limit {
                rows += request.rows;
                full = rows >= limit;
                batch.push(request);
            } else {
                // Whoever comes first goes first: a smaller one behind it does not overtake.
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
