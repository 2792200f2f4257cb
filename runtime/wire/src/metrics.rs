//! What is counted. Every number is an atomic of its own: writers never wait, readers add up what they find.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::grpc::status::Code;

/// Upper bounds of the histograms' buckets, in microseconds; the last bucket has none.
pub const BOUNDS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A number that grows, or that goes up and down.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Subtracts.
    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let microseconds = took.as_nanos().div_ceil(1000) as u64;
        self.buckets[BOUNDS.partition_point(|&bound| bound < microseconds)].add(1);
        self.nanoseconds.add(took.as_nanos() as u64);
    }

    /// The count of each bucket, and the sum in nanoseconds.
    pub fn read(&self) -> (Vec<u64>, u64) {
        (self.buckets.iter().map(Counter::get).collect(), self.nanoseconds.get())
    }
}

/// What happens in one queue.
#[derive(Default)]
pub struct QueueMetrics {
    /// Requests that fit the signature.
    pub requests: Counter,
    /// Rows computed.
    pub rows: Counter,
    /// Batches computed.
    pub batches: Counter,
    /// Requests by the code they ended with.
    pub codes: [Counter; 17],
    /// From arrival to answer, of requests that succeeded.
    pub succeeded: Histogram,
    /// From arrival to answer, of requests that failed.
    pub failed: Histogram,
    /// From arrival to the beginning of the computation.
    pub waited: Histogram,
    /// The computation of batches.
    pub computed: Histogram,
}

impl QueueMetrics {
    /// Counts a request's end.
    pub fn ended(&self, code: Code, took: Duration) {
        self.codes[code as usize].add(1);
        if code == Code::Ok { self.succeeded.record(took) } else { self.failed.record(took) }
    }

    /// Counts a batch.
    pub fn computed(&self, rows: usize, took: Duration) {
        self.rows.add(rows as u64);
        self.batches.add(1);
        self.computed.record(took);
    }
}

/// What happens in the whole server.
#[derive(Default)]
pub struct ServerMetrics {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections open now.
    pub connections_open: Counter,
    /// Calls begun.
    pub calls: Counter,
    /// Inference calls not yet answered.
    pub in_flight: Counter,
    /// Bytes of requests.
    pub bytes_received: Counter,
    /// Bytes of answers.
    pub bytes_sent: Counter,
    /// Calls that failed before they reached a queue or a servicer, by code.
    pub refused: [Counter; 17],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_bucket() {
        let histogram = Histogram::default();
        for microseconds in [50, 51, 40_000_000] {
            histogram.record(Duration::from_micros(microseconds));
        }
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[BOUNDS.len()]), (1, 1, 1));
        assert_eq!(sum, 40_000_101_000);
    }
}
