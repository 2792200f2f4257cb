//! One record per request for access logs and traces: sent to a channel when the request ends, read by Python in
//! batches.
//!
//! While nothing is observed, the cost per request is one atomic load. Otherwise it is an allocation and one
//! non-blocking send to the channel; readers poll it.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use compact_str::{CompactString, format_compact};
use crossbeam_channel::{Receiver, Sender, bounded};
use http::HeaderMap;

use crate::grpc::status::Code;
use crate::infer::InferRequest;
use crate::metrics::Counter;
use crate::server::connection::Peer;

/// The capacity of the channel of observations; those beyond it are dropped and counted.
const CAPACITY: usize = 1 << 15;

/// Flag of `Observer::flags`: all requests are observed.
const EVERYTHING: u64 = 1 << 63;

/// Flag of `Observer::flags`: requests are traced; the low bits hold the sampling rate for requests without a sampling
/// decision of the caller.
const TRACED: u64 = 1 << 62;

/// The sampling rate 1.0, in the low bits of `Observer::flags`.
const ALWAYS: u64 = 1 << 32;

/// Decides which requests are observed, and holds the observations until they are read.
pub struct Observer {
    flags: AtomicU64,
    drawn: AtomicU64,
    seed: u64,
    sender: Sender<Box<Observation>>,
    receiver: Receiver<Box<Observation>>,
    dropped: Counter,
}

impl Default for Observer {
    fn default() -> Observer {
        let (sender, receiver) = bounded(CAPACITY);
        Observer {
            flags: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            seed: std::hash::RandomState::new().hash_one(0_u8),
            sender,
            receiver,
            dropped: Counter::default(),
        }
    }
}

impl Observer {
    /// Sets whether all requests are observed, and the sampling rate of traces (None: no traces). The caller's sampling
    /// decision, where there is one, takes precedence over the rate.
    pub fn configure(&self, everything: bool, traced: Option<f64>) {
        let share = traced.map_or(0, |share| TRACED | (share.clamp(0.0, 1.0) * ALWAYS as f64) as u64);
        self.flags.store(share | if everything { EVERYTHING } else { 0 }, Ordering::Relaxed);
    }

    /// Starts the observation of a request, if it is to be observed.
    pub fn begin(
        self: &Arc<Self>,
        headers: &HeaderMap,
        peer: &Peer,
        method: &'static str,
    ) -> Option<Box<Observation>> {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags == 0 {
            return None;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parent = text("traceparent");
        let draw = self.next_random();
        let sampled =
            flags & TRACED != 0 && is_sampled(parent).unwrap_or(draw >> 32 < flags & !(EVERYTHING | TRACED));
        if !sampled && flags & EVERYTHING == 0 {
            return None;
        }
        let given = text("x-request-id");
        Some(Box::new(Observation {
            observer: self.clone(),
            method,
            peer: peer.caller(headers).into(),
            request: if given.is_empty() { format_compact!("{draw:016x}") } else { given.into() },
            trace_parent: parent.into(),
            trace_state: text("tracestate").into(),
            sampled,
            model: CompactString::default(),
            version: CompactString::default(),
            rows: 0,
            batch: 0,
            began: SystemTime::now(),
            arrived: Instant::now(),
            taken: None,
            computed: None,
            ended: Duration::ZERO,
            code: Code::Ok,
        }))
    }

    /// Takes up to `limit` finished observations.
    pub fn read(&self, limit: usize) -> Vec<Box<Observation>> {
        self.receiver.try_iter().take(limit).collect()
    }

    /// The number of observations dropped because the channel was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Returns the next pseudorandom number (splitmix64).
    fn next_random(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut number = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

/// Returns the sampled flag of a `traceparent` (W3C Trace Context, section 3.2); None if it is not valid.
fn is_sampled(parent: &str) -> Option<bool> {
    let mut parts = parent.split('-');
    let mut part = |len: usize| {
        let part = parts.next()?;
        (part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
            .then_some(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    if version == "ff" || zero(trace) || zero(span) || (version == "00" && parts.next().is_some()) {
        return None;
    }
    Some(u8::from_str_radix(flags, 16).ok()? & 1 == 1)
}

/// The record of one request.
pub struct Observation {
    observer: Arc<Observer>,
    /// The method's path.
    pub method: &'static str,
    /// The client's address, in gRPC's notation.
    pub peer: CompactString,
    /// The request id: the client's, or a generated one.
    pub request: CompactString,
    /// The caller's `traceparent`.
    pub trace_parent: CompactString,
    /// The caller's `tracestate`.
    pub trace_state: CompactString,
    /// Whether the request is traced.
    pub sampled: bool,
    /// The requested model; empty if the request could not be decoded.
    pub model: CompactString,
    /// The version that served the request, or the requested version if none did.
    pub version: CompactString,
    /// The number of rows.
    pub rows: usize,
    /// The number of rows of the batch that it was computed in.
    pub batch: usize,
    /// The wall-clock time of arrival.
    pub began: SystemTime,
    arrived: Instant,
    taken: Option<Instant>,
    computed: Option<Instant>,
    ended: Duration,
    /// The status code.
    pub code: Code,
}

impl Observation {
    /// Sets the requested model, version and id.
    pub fn set_request(&mut self, infer: &InferRequest) {
        self.model = infer.model.clone();
        self.version = infer.version.clone();
        if !infer.id.is_empty() {
            self.request = infer.id.clone();
        }
    }

    /// Records that the request, or a part of it, was computed in a batch of `batch` rows.
    pub fn computed(&mut self, taken: Instant, computed: Instant, batch: usize) {
        self.taken = Some(self.taken.map_or(taken, |first| first.min(taken)));
        self.computed = Some(self.computed.map_or(computed, |last| last.max(computed)));
        self.batch = self.batch.max(batch);
    }

    /// Ends the observation and sends it to the reader.
    pub fn end(mut self: Box<Self>, code: Code) {
        self.code = code;
        self.ended = self.arrived.elapsed();
        let observer = self.observer.clone();
        if observer.sender.try_send(self).is_err() {
            observer.dropped.add(1);
        }
    }

    /// Time from arrival to the start of the computation; None if it was not computed.
    pub fn queued(&self) -> Option<Duration> {
        self.taken.map(|taken| taken.saturating_duration_since(self.arrived))
    }

    /// Computation time of its batch.
    pub fn computing(&self) -> Option<Duration> {
        Some(self.computed?.saturating_duration_since(self.taken?))
    }

    /// Time from arrival to response.
    pub fn total(&self) -> Duration {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(observer: &Arc<Observer>, parent: &'static str) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        observer.begin(&headers, &Peer::default(), "/m").map(|observation| observation.sampled)
    }

    const YES: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NO: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_trace_is_continued_as_its_caller_decided() {
        let observer = Arc::new(Observer::default());
        assert_eq!(sampled(&observer, YES), None);
        observer.configure(false, Some(0.0));
        assert_eq!(
            (sampled(&observer, YES), sampled(&observer, NO), sampled(&observer, "")),
            (Some(true), None, None)
        );
        observer.configure(true, Some(1.0));
        assert_eq!((sampled(&observer, NO), sampled(&observer, "")), (Some(false), Some(true)));
        observer.configure(true, None);
        assert_eq!(sampled(&observer, YES), Some(false));
    }

    #[test]
    fn a_share_is_a_share() {
        let observer = Arc::new(Observer::default());
        observer.configure(false, Some(0.25));
        let count = (0..10_000).filter(|_| sampled(&observer, "").is_some()).count();
        assert!((2000..3000).contains(&count), "{count}");
    }

    #[test]
    fn what_is_no_trace_context_does_not_count() {
        for wrong in ["", "00", "00-0-0-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            assert_eq!(is_sampled(wrong), None, "{wrong}");
        }
        assert_eq!(is_sampled("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
        assert_eq!(is_sampled("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more"), Some(true));
    }

    #[test]
    fn what_nobody_reads_is_lost_and_counted() {
        let observer = Arc::new(Observer::default());
        observer.configure(true, None);
        for _ in 0..CAPACITY + 3 {
            observer.begin(&HeaderMap::new(), &Peer::default(), "/m").unwrap().end(Code::Internal);
        }
        assert_eq!(observer.dropped(), 3);
        assert_eq!(observer.read(10).len(), 10);
        assert_eq!(observer.read(usize::MAX).len(), CAPACITY - 10);
    }
}
