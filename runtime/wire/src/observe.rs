//! One record for each request: sent to a channel where it ends, read by Python in batches, for access logs and traces.
//!
//! While nothing is observed, a request pays for one atomic load. Otherwise it pays for an allocation, and at its end
//! for one send to a channel that never blocks; readers poll it.

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

/// Observations that may wait for their reader; more are dropped, and counted.
const CAPACITY: usize = 1 << 15;

/// Of `Observer::flags`: every request is observed.
const EVERYTHING: u64 = 1 << 63;

/// Of `Observer::flags`: requests are traced; where the caller has not decided, at the sampling rate in the low bits.
const TRACED: u64 = 1 << 62;

/// The sampling rate of all requests.
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
    /// Observes every request, or those that are traced: whose caller samples them, and where the caller has not
    /// decided at this sampling rate. None: nothing is traced.
    pub fn configure(&self, everything: bool, traced: Option<f64>) {
        let share = traced.map_or(0, |share| TRACED | (share.clamp(0.0, 1.0) * ALWAYS as f64) as u64);
        self.flags.store(share | if everything { EVERYTHING } else { 0 }, Ordering::Relaxed);
    }

    /// Begins the observation of a request, if it is to be observed.
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

    /// Takes the finished observations, up to a limit.
    pub fn read(&self, limit: usize) -> Vec<Box<Observation>> {
        self.receiver.try_iter().take(limit).collect()
    }

    /// Observations that were dropped because the channel was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// The next pseudorandom number (splitmix64).
    fn next_random(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut number = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

/// Whether a `traceparent` (W3C Trace Context, section 3.2) says that its trace is recorded; None: it is not one.
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
    /// The path of its method.
    pub method: &'static str,
    /// Who asked, in gRPC's notation.
    pub peer: CompactString,
    /// Its id: the client's, or one that was made for it.
    pub request: CompactString,
    /// The caller's `traceparent`.
    pub trace_parent: CompactString,
    /// And its `tracestate`.
    pub trace_state: CompactString,
    /// Whether it is traced.
    pub sampled: bool,
    /// The model that it asks, as far as it could be read.
    pub model: CompactString,
    /// The version that answers; what was asked for where none does.
    pub version: CompactString,
    /// Its rows.
    pub rows: usize,
    /// The rows of the batch that it was computed in.
    pub batch: usize,
    /// When it came, by the clock on the wall.
    pub began: SystemTime,
    arrived: Instant,
    taken: Option<Instant>,
    computed: Option<Instant>,
    ended: Duration,
    /// How it ended.
    pub code: Code,
}

impl Observation {
    /// Sets what it asks for.
    pub fn set_request(&mut self, infer: &InferRequest) {
        self.model = infer.model.clone();
        self.version = infer.version.clone();
        if !infer.id.is_empty() {
            self.request = infer.id.clone();
        }
    }

    /// Records that it, or a part of it, was computed in a batch of so many rows.
    pub fn computed(&mut self, taken: Instant, computed: Instant, batch: usize) {
        self.taken = Some(self.taken.map_or(taken, |first| first.min(taken)));
        self.computed = Some(self.computed.map_or(computed, |last| last.max(computed)));
        self.batch = self.batch.max(batch);
    }

    /// Ends it, and sends it to the reader.
    pub fn end(mut self: Box<Self>, code: Code) {
        self.code = code;
        self.ended = self.arrived.elapsed();
        let observer = self.observer.clone();
        if observer.sender.try_send(self).is_err() {
            observer.dropped.add(1);
        }
    }

    /// From arrival to computation; None: it was not computed.
    pub fn queued(&self) -> Option<Duration> {
        self.taken.map(|taken| taken.saturating_duration_since(self.arrived))
    }

    /// The computation of its batch.
    pub fn computing(&self) -> Option<Duration> {
        Some(self.computed?.saturating_duration_since(self.taken?))
    }

    /// From arrival to answer.
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
        observer.begin(&headers, &Peer::named(String::new()), "/m").map(|observation| observation.sampled)
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
            observer.begin(&HeaderMap::new(), &Peer::named(String::new()), "/m").unwrap().end(Code::Internal);
        }
        assert_eq!(observer.dropped(), 3);
        assert_eq!(observer.read(10).len(), 10);
        assert_eq!(observer.read(usize::MAX).len(), CAPACITY - 10);
    }
}
