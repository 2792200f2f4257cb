//! The server: listeners, workers, and their shared state.

mod authority;
pub mod connection;
pub mod infer;
pub mod listener;
mod metered;
pub mod rates;
pub mod tls;
pub mod tokens;
pub mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::grpc::budget::{Account, Budget, Reservation};
use crate::grpc::compression::Encoding;
use crate::grpc::frame::Decoder;
use crate::grpc::head::RequestHead;
use crate::grpc::status::Status;
use crate::hosted::EventQueue;
use crate::infer::InferRequest;
use crate::metrics::ServerMetrics;
use crate::models::Models;
use crate::observe::Observer;
use crate::rest::Frontend;
use crate::server::listener::{Address, Listener};
use crate::server::rates::{Limit, RateLimiter};
use crate::server::tls::Acceptor;
use crate::server::tokens::Tokens;
use crate::server::worker::Worker;

/// The configuration of a server; the defaults are those of gRPC where it has any.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of worker threads.
    pub workers: usize,
    /// The maximum size of a request message, in bytes.
    pub max_receive_message_length: usize,
    /// The memory budget for requests until they are answered, and for responses until they are sent, in bytes.
    pub max_buffered_bytes: usize,
    /// The maximum number of open calls per connection.
    pub max_concurrent_streams: u32,
    /// The maximum size of a request's metadata, in bytes.
    pub max_metadata_size: u32,
    /// The interval of pings to clients; None for no pings.
    pub keepalive_time: Option<Duration>,
    /// The time that a client has to acknowledge a ping.
    pub keepalive_timeout: Duration,
    /// The maximum number of open connections per gRPC port on TCP; more are closed at once. HTTP ports and UNIX
    /// sockets are not limited.
    pub max_connections: usize,
    /// Connections without calls are closed after this time.
    pub max_connection_idle: Option<Duration>,
    /// Connections are shut down gracefully at this age, plus or minus a tenth.
    pub max_connection_age: Option<Duration>,
    /// Connections are closed this long after `max_connection_age`.
    pub max_connection_age_grace: Option<Duration>,
    /// The time for the handshakes of TLS and HTTP/2, and over HTTP/1 for the headers and each piece of a body.
    pub handshake_timeout: Duration,
    /// The encoding of responses to clients that accept it.
    pub compression: Option<Encoding>,
    /// Whether several processes may listen on one port.
    pub so_reuseport: bool,
    /// Whether a servicer serves ModelInfer requests with tensors in shared memory; if not, they are rejected.
    pub host_shared_memory: bool,
    /// The rate limit of each client's inference requests.
    pub rate: Option<Limit>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            workers: 1,
            max_receive_message_length: i32::MAX as usize,
            max_buffered_bytes: usize::MAX,
            max_concurrent_streams: 4096,
            max_metadata_size: 16 << 10,
            keepalive_time: Some(Duration::from_secs(7200)),
            keepalive_timeout: Duration::from_secs(20),
            max_connections: usize::MAX,
            max_connection_idle: None,
            max_connection_age: None,
            max_connection_age_grace: None,
            handshake_timeout: Duration::from_secs(120),
            compression: None,
            so_reuseport: false,
            host_shared_memory: false,
            rate: None,
        }
    }
}

/// The phases of a graceful shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All requests are served.
    Serving,
    /// New connections and inference requests are rejected; calls in flight continue.
    Draining,
    /// Calls of servicers are ended.
    Ending,
    /// Connections are dropped.
    Ended,
}

impl Phase {
    /// Whether calls of servicers are to end.
    pub fn ends_calls(&self) -> bool {
        *self >= Phase::Ending
    }
}

/// The protocol of a port.
#[derive(Clone)]
pub enum Protocol {
    /// gRPC, with TLS if there is an acceptor.
    Grpc(Option<Acceptor>),
    /// HTTP/1, in front of an application.
    Http(Arc<Frontend>),
}

/// The state that all workers share.
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The routes of models to queues.
    pub models: Models,
    /// The bearer tokens that permit calls.
    pub tokens: Tokens,
    /// The rate limiter of clients.
    pub rate_limiter: RateLimiter,
    /// The events of calls that Python serves.
    pub events: Arc<EventQueue>,
    /// The server's metrics.
    pub metrics: Arc<ServerMetrics>,
    /// The records of requests.
    pub observer: Arc<Observer>,
    /// The memory budget for requests until they are answered, and for responses until they are sent.
    pub budget: Arc<Budget>,
    phase: watch::Sender<Phase>,
}

impl Shared {
    /// Counts a call that Python serves toward the rate limit; Python itself checks whether the call is authorized.
    pub fn count(&self, headers: &http::HeaderMap, peer: &connection::Peer) -> Result<(), Status> {
        match self.tokens.check(headers) {
            Ok(token) => self.rate_limiter.check(self.rate_limiter.client(token, headers, peer).as_ref()),
            Err(_) => Ok(()),
        }
    }

    /// Subscribes to the phase of a graceful shutdown.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether a servicer in Python serves a request: its tensors are in shared memory, or its model is hosted.
    pub fn hosts(&self, infer: &InferRequest) -> bool {
        self.config.host_shared_memory && infer.shared_memory
            || self.models.is_hosted(&infer.model, &infer.version)
    }

    /// Creates a decoder for the messages of a request.
    pub fn decoder(&self, head: &RequestHead, account: &Arc<Account>) -> Decoder {
        let reservation = Reservation::waiting(account);
        Decoder::new(head.encoding, self.config.max_receive_message_length, reservation)
    }
}

/// A gRPC and HTTP server.
pub struct Server {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    listeners: Vec<(Listener, Protocol)>,
    workers: Vec<Worker>,
}

impl Server {
    /// Creates a server that does not listen yet.
    pub fn new(config: Config) -> Server {
        let shared = Shared {
            budget: Arc::new(Budget::new(config.max_buffered_bytes)),
            rate_limiter: RateLimiter::new(config.rate),
            config,
            models: Models::default(),
            tokens: Tokens::default(),
            events: Arc::default(),
            metrics: Arc::default(),
            observer: Arc::default(),
            phase: watch::Sender::new(Phase::Serving),
        };
        Server {
            shared: Arc::new(shared),
            state: Mutex::new(State { listeners: Vec::new(), workers: Vec::new() }),
        }
    }

    /// The state that the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Binds an address; returns the port, 1 for a UNIX socket.
    pub fn listen(&self, address: &str, protocol: Protocol) -> std::io::Result<u16> {
        let listener = Listener::bind(&Address::parse(address)?, self.shared.config.so_reuseport)?;
        let port = listener.port();
        let mut state = self.lock();
        match state.workers.first() {
            Some(worker) => worker.listen(listener, protocol),
            None => state.listeners.push((listener, protocol)),
        }
        Ok(port)
    }

    /// Starts the workers, which accept connections.
    pub fn start(&self) -> std::io::Result<()> {
        let mut state = self.lock();
        if !state.workers.is_empty() {
            return Ok(());
        }
        state.workers = Worker::start_all(&self.shared)?;
        for (listener, protocol) in std::mem::take(&mut state.listeners) {
            state.workers[0].listen(listener, protocol);
        }
        Ok(())
    }

    /// Rejects new requests, gives inference in flight `grace` to complete, ends all calls, and joins the workers.
    pub fn stop(&self, grace: Duration) {
        let end = Instant::now() + grace;
        self.shared.models.drain();
        self.enter(Phase::Draining);
        while self.shared.metrics.in_flight.get() > 0 && Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL);
        }
        self.enter(Phase::Ending);
        // Responses may still be in the connections' buffers.
        let end = Instant::now() + FLUSH_TIMEOUT;
        while self.shared.metrics.connections_open.get() > 0 && Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL);
        }
        self.enter(Phase::Ended);
        let workers = std::mem::take(&mut self.lock().workers);
        workers.into_iter().for_each(Worker::join);
        self.lock().listeners.clear();
        self.shared.events.close();
    }

    fn enter(&self, phase: Phase) {
        self.shared.phase.send_if_modified(|current| {
            let modified = *current < phase;
            *current = phase.max(*current);
            modified
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// How often `stop` polls the metrics.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long `stop` waits for responses to be flushed to clients.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
