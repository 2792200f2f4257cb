//! Metrics. Each value is a separate atomic: writers never wait, and readers may see values of different moments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::grpc::status::Code;

/// Upper bounds of the histogram buckets, in microseconds; the last bucket has none.
pub const BOUNDS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A counter or gauge.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds an amount.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Subtracts an amount.
    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of durations.
#[derive(Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// Records a duration.
    pub fn record(&self, took: Duration) {
        let microseconds = took.as_nanos().div_ceil(1000) as u64;
        self.buckets[BOUNDS.partition_point(|&bound| bound < microseconds)].add(1);
        self.nanoseconds.add(took.as_nanos() as u64);
    }

    /// Returns the count of each bucket and the sum in nanoseconds.
    pub fn read(&self) -> (Vec<u64>, u64) {
        (self.buckets.iter().map(Counter::get).collect(), self.nanoseconds.get())
    }
}

/// The metrics of one queue.
#[derive(Default)]
pub struct QueueMetrics {
    /// Requests that match the signature.
    pub requests: Counter,
    /// Rows computed.
    pub rows: Counter,
    /// Batches computed.
    pub batches: Counter,
    /// Requests by status code.
    pub codes: [Counter; 17],
    /// Time from arrival to response of successful requests.
    pub succeeded: Histogram,
    /// Time from arrival to response of failed requests.
    pub failed: Histogram,
    /// Time from arrival to the start of the computation.
    pub waited: Histogram,
    /// Computation time of batches.
    pub computed: Histogram,
}

impl QueueMetrics {
    /// Records the end of a request.
    pub fn ended(&self, code: Code, took: Duration) {
        self.codes[code as usize].add(1);
        if code == Code::Ok { self.succeeded.record(took) } else { self.failed.record(took) }
    }

    /// Records a computed batch.
    pub fn computed(&self, rows: usize, took: Duration) {
        self.rows.add(rows as u64);
        self.batches.add(1);
        self.computed.record(took);
    }
}

/// The metrics of the whole server.
#[derive(Default)]
pub struct ServerMetrics {
    /// Connections accepted.
    pub connections: Counter,
    /// Currently open connections.
    pub connections_open: Counter,
    /// Calls started.
    pub calls: Counter,
    /// Inference calls in flight.
    pub in_flight: Counter,
    /// Bytes of requests received.
    pub bytes_received: Counter,
    /// Bytes of responses sent.
    pub bytes_sent: Counter,
    /// Calls rejected before they reached a queue or a servicer, by status code.
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
