//! What became of each request: noted where it ends, read by Python many at a time, for access lines and traces.
//!
//! As long as nobody wants to know, a request pays for one look at a number. Then it pays for an allocation, and at
//! its end for one step of a channel that never blocks: readers come and look, they do not wait in it.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use compact_str::{CompactString, format_compact};
use crossbeam_channel::{Receiver, Sender, bounded};
use http::HeaderMap;

use crate::grpc::status::Code;
use crate::infer::Infer;
use crate::metrics::Counter;
use crate::server::connection::Peer;

/// Notes that may wait for their reader; more are lost, and counted.
const ROOM: usize = 1 << 15;

/// Of `Observer::wanted`: every request is noted.
const EVERYTHING: u64 = 1 << 63;

/// Of `Observer::wanted`: requests are traced, those of which no caller decides by the share in the low bits.
const TRACED: u64 = 1 << 62;

/// The share of all requests.
const WHOLE: u64 = 1 << 32;

/// Decides which requests are noted, and keeps the notes until they are read.
pub struct Observer {
    wanted: AtomicU64,
    draws: AtomicU64,
    seed: u64,
    sender: Sender<Box<Note>>,
    receiver: Receiver<Box<Note>>,
    lost: Counter,
}

impl Default for Observer {
    fn default() -> Observer {
        let (sender, receiver) = bounded(ROOM);
        Observer {
            wanted: AtomicU64::new(0),
            draws: AtomicU64::new(0),
            seed: std::hash::RandomState::new().hash_one(0_u8),
            sender,
            receiver,
            lost: Counter::default(),
        }
    }
}

impl Observer {
    /// Notes every request, or those that are traced: whose caller traces them, and without a word of the
    /// caller this share of them. None: nothing is traced.
    pub fn want(&self, everything: bool, traced: Option<f64>) {
        let share = traced.map_or(0, |share| TRACED | (share.clamp(0.0, 1.0) * WHOLE as f64) as u64);
        self.wanted.store(share | if everything { EVERYTHING } else { 0 }, Ordering::Relaxed);
    }

    /// Begins to note a request, if it is to be noted.
    pub fn begin(
        self: &Arc<Self>,
        headers: &HeaderMap,
        peer: &Peer,
        method: &'static str,
    ) -> Option<Box<Note>> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == 0 {
            return None;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parent = text("traceparent");
        let draw = self.draw();
        let sampled = wanted & TRACED != 0
            && is_sampled(parent).unwrap_or(draw >> 32 < wanted & !(EVERYTHING | TRACED));
        if !sampled && wanted & EVERYTHING == 0 {
            return None;
        }
        let given = text("x-request-id");
        Some(Box::new(Note {
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

    /// The notes that are there, up to a limit.
    pub fn read(&self, limit: usize) -> Vec<Box<Note>> {
        self.receiver.try_iter().take(limit).collect()
    }

    /// Notes that were lost because nobody read fast enough.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// The next of a series of numbers that look random (splitmix64).
    fn draw(&self) -> u64 {
        let count = self.draws.fetch_add(1, Ordering::Relaxed);
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

/// What is known of one request.
pub struct Note {
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

impl Note {
    /// What it asks for is known.
    pub fn asks(&mut self, infer: &Infer) {
        self.model = infer.model.clone();
        self.version = infer.version.clone();
        if !infer.id.is_empty() {
            self.request = infer.id.clone();
        }
    }

    /// It, or a part of it, was computed in a batch of so many rows.
    pub fn computed(&mut self, taken: Instant, computed: Instant, batch: usize) {
        self.taken = Some(self.taken.map_or(taken, |first| first.min(taken)));
        self.computed = Some(self.computed.map_or(computed, |last| last.max(computed)));
        self.batch = self.batch.max(batch);
    }

    /// It is answered.
    pub fn end(mut self: Box<Self>, code: Code) {
        self.code = code;
        self.ended = self.arrived.elapsed();
        let observer = self.observer.clone();
        if observer.sender.try_send(self).is_err() {
            observer.lost.add(1);
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

    fn noted(observer: &Arc<Observer>, parent: &'static str) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        observer.begin(&headers, &Peer::default(), "/m").map(|note| note.sampled)
    }

    const YES: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NO: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_trace_is_continued_as_its_caller_decided() {
        let observer = Arc::new(Observer::default());
        assert_eq!(noted(&observer, YES), None);
        observer.want(false, Some(0.0));
        assert_eq!(
            (noted(&observer, YES), noted(&observer, NO), noted(&observer, "")),
            (Some(true), None, None)
        );
        observer.want(true, Some(1.0));
        assert_eq!((noted(&observer, NO), noted(&observer, "")), (Some(false), Some(true)));
        observer.want(true, None);
        assert_eq!(noted(&observer, YES), Some(false));
    }

    #[test]
    fn a_share_is_a_share() {
        let observer = Arc::new(Observer::default());
        observer.want(false, Some(0.25));
        let sampled = (0..10_000).filter(|_| noted(&observer, "").is_some()).count();
        assert!((2000..3000).contains(&sampled), "{sampled}");
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
        observer.want(true, None);
        for _ in 0..ROOM + 3 {
            observer.begin(&HeaderMap::new(), &Peer::default(), "/m").unwrap().end(Code::Internal);
        }
        assert_eq!(observer.lost(), 3);
        assert_eq!(observer.read(10).len(), 10);
        assert_eq!(observer.read(usize::MAX).len(), ROOM - 10);
    }
}
