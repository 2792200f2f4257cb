//! gRPC with hand-written HTTP/2 frames: one thread per connection.
//!
//! A call counts as answered if its response has a message; rejected calls have only trailers.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Options;
use crate::tally::Tally;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_WINDOW: i64 = (1 << 31) - 1;
const DEFAULT_WINDOW: i64 = 65_535;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

mod frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// Keeps `in_flight` calls in flight on one connection.
pub fn run(in_flight: usize, options: &Options) -> Tally {
    Connection::open(options).run(in_flight, options)
}

/// A call in flight.
struct Call {
    begun: Instant,
    window: i64,
    sent: usize,
    answered: bool,
}

struct Connection {
    socket: TcpStream,
    headers: Vec<u8>,
    body: Vec<u8>,
    calls: HashMap<u32, Call>,
    /// The streams of calls whose body has not been sent in full.
    sending: VecDeque<u32>,
    next_stream: u32,
    window: i64,
    stream_window: i64,
    frame_size: usize,
    unacknowledged: u32,
    output: Vec<u8>,
}

impl Connection {
    fn open(options: &Options) -> Connection {
        let socket = TcpStream::connect(&options.address).expect("the server listens");
        socket.set_nodelay(true).expect("TCP has this option");
        let mut connection = Connection {
            socket,
            headers: request_headers(options),
            body: framed(&options.body),
            calls: HashMap::new(),
            sending: VecDeque::new(),
            next_stream: 1,
            window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            frame_size: 16_384,
            unacknowledged: 0,
            output: PREFACE.to_vec(),
        };
        // INITIAL_WINDOW_SIZE is the maximum, ENABLE_PUSH is 0.
        connection.put(frame::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 2, 0, 0, 0, 0]);
        let more = (LARGEST_WINDOW - DEFAULT_WINDOW) as u32;
        connection.put(frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        connection
    }

    fn run(mut self, in_flight: usize, options: &Options) -> Tally {
        let mut tally = Tally::default();
        let begun = Instant::now();
        // When rejected calls are retried, in ascending order.
        let mut returns: VecDeque<Instant> = VecDeque::new();
        (0..in_flight).for_each(|_| self.begin());
        let mut input = Vec::new();
        let mut chunk = vec![0; 1 << 17];
        while !self.calls.is_empty() || !returns.is_empty() {
            self.pump();
            self.socket.write_all(&self.output).expect("the server reads");
            self.output.clear();
            input.extend_from_slice(self.read(&mut chunk, returns.front()));
            let (answered, refused) = self.consume(&mut input, &mut tally);
            let now = Instant::now();
            returns.extend(std::iter::repeat_n(now + options.backoff, refused));
            let back = returns.partition_point(|at| *at <= now);
            returns.drain(..back);
            if begun.elapsed() < options.seconds {
                (0..answered + back).for_each(|_| self.begin());
            } else {
                returns.clear();
            }
        }
        tally.seconds = begun.elapsed().as_secs_f64();
        tally
    }

    /// Reads from the socket; returns no bytes if none arrive before `until`.
    fn read<'a>(&mut self, chunk: &'a mut [u8], until: Option<&Instant>) -> &'a [u8] {
        // A timeout of zero is an error.
        let left = until.map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_micros(1)));
        self.socket.set_read_timeout(left).expect("sockets have timeouts");
        match self.socket.read(chunk) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(read) => &chunk[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => &[],
            Err(error) => panic!("the server does not answer: {error}"),
        }
    }

    fn begin(&mut self) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = std::mem::take(&mut self.headers);
        self.put(frame::HEADERS, END_HEADERS, stream, &headers);
        self.headers = headers;
        let call = Call { begun: Instant::now(), window: self.stream_window, sent: 0, answered: false };
        self.calls.insert(stream, call);
        self.sending.push_back(stream);
    }

    /// Writes as much of the bodies as the windows allow.
    fn pump(&mut self) {
        let mut blocked = VecDeque::new();
        while let Some(stream) = self.sending.pop_front() {
            let Some(call) = self.calls.get_mut(&stream) else { continue };
            while call.sent < self.body.len() {
                let allowed = call.window.min(self.window).max(0) as usize;
                let len = (self.body.len() - call.sent).min(allowed).min(self.frame_size);
                if len == 0 {
                    blocked.push_back(stream);
                    break;
                }
                let flags = if call.sent + len == self.body.len() { END_STREAM } else { 0 };
                put(&mut self.output, frame::DATA, flags, stream, &self.body[call.sent..call.sent + len]);
                call.sent += len;
                call.window -= len as i64;
                self.window -= len as i64;
            }
        }
        self.sending = blocked;
    }

    /// Consumes complete frames of the input; returns the number of answered and of rejected calls.
    fn consume(&mut self, input: &mut Vec<u8>, tally: &mut Tally) -> (usize, usize) {
        let (mut position, mut answered) = (0, 0);
        let failed = tally.failed;
        while let Some(header) = input[position..].first_chunk::<9>() {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags) = (header[3], header[4]);
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let Some(payload) = input.get(position + 9..position + 9 + len) else { break };
            let over = self.take(kind, flags, stream, payload);
            if over && let Some(call) = self.calls.remove(&stream) {
                if call.answered {
                    answered += 1;
                    tally.nanoseconds.push(call.begun.elapsed().as_nanos() as u64);
                } else {
                    tally.failed += 1;
                }
            }
            position += 9 + len;
        }
        input.drain(..position);
        (answered, (tally.failed - failed) as usize)
    }

    /// Handles a frame; returns whether it ends its stream.
    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let number =
            |at: usize| u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        match kind {
            frame::DATA => {
                if let Some(call) = self.calls.get_mut(&stream) {
                    call.answered |= !payload.is_empty();
                }
                self.unacknowledged += payload.len() as u32;
                if self.unacknowledged > 1 << 28 {
                    let size = std::mem::take(&mut self.unacknowledged);
                    self.put(frame::WINDOW_UPDATE, 0, 0, &size.to_be_bytes());
                }
            }
            frame::SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match setting[1] {
                        4 => {
                            let change = i64::from(value) - self.stream_window;
                            self.calls.values_mut().for_each(|call| call.window += change);
                            self.stream_window = i64::from(value);
                        }
                        5 => self.frame_size = value as usize,
                        _ => {}
                    }
                }
                self.put(frame::SETTINGS, ACK, 0, &[]);
            }
            frame::WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(0)),
            frame::WINDOW_UPDATE => {
                if let Some(call) = self.calls.get_mut(&stream) {
                    call.window += i64::from(number(0));
                }
            }
            frame::PING if flags & ACK == 0 => self.put(frame::PING, ACK, 0, payload),
            frame::GOAWAY => {
                panic!("the server ends the connection: {}", String::from_utf8_lossy(&payload[8..]))
            }
            frame::RST_STREAM => return true,
            _ => {}
        }
        matches!(kind, frame::DATA | frame::HEADERS) && flags & END_STREAM != 0
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        put(&mut self.output, kind, flags, stream, payload);
    }
}

/// Returns a message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn put(output: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    output.extend_from_slice(&[kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
    output.extend_from_slice(payload);
}

/// Encodes the headers of all calls in HPACK, with the static table and literals without indexing.
fn request_headers(options: &Options) -> Vec<u8> {
    // :method POST, :scheme http
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        assert!(value.len() < 127, "short values only");
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], &options.path);
    literal(&[0x01], &options.address);
    // content-type has index 31 in the static table.
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    block
}
