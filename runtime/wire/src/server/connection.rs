//! Serves a connection.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::grpc::budget::Account;
#[cfg(test)]
use crate::grpc::budget::Budget;
use crate::grpc::status::Status;
use crate::grpc::unary;
use crate::log;
use crate::metrics::ServerMetrics;
use crate::rest;
use crate::server::authority::RewriteAuthority;
use crate::server::metered::Metered;
use crate::server::tls::{Acceptor, identity};
use crate::server::worker::WorkerContext;
use crate::server::{Config, Phase, Protocol, infer};

/// The flow control window of a stream: a request of 600 KB needs no window update.
const STREAM_WINDOW: u32 = 4 << 20;

/// The flow control window of a connection.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The maximum frame size. With large frames, most requests arrive in one piece, which need not be joined.
const FRAME_SIZE: u32 = 1 << 20;

/// The maximum bytes of headers that h2 reads; the limit of a call is lower. Beyond this h2 itself rejects the call
/// with an HTTP status, which gRPC's clients do not understand; beyond four times this it closes the connection, with
/// all other calls on it.
const HEADERS_SIZE: u32 = 1 << 20;

/// An accepted connection that has not been read from.
pub struct IncomingConnection {
    /// The socket.
    pub stream: Stream,
    /// The client's address, in gRPC's notation.
    pub peer: String,
}

/// A socket that is not yet registered with an event loop.
pub enum Stream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A UNIX socket.
    Unix(std::os::unix::net::UnixStream),
}

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address, in gRPC's notation.
    pub name: String,
    /// The client's TLS identity, by gRPC's property names; empty without TLS.
    pub identity: Vec<(&'static str, Vec<u8>)>,
    /// The bytes that the server holds for the client.
    pub account: Arc<Account>,
}

/// Metadata of calls that this process forwards to itself over a UNIX socket: the original caller.
const FORWARDED: &str = "kerve-peer";
/// Metadata of such calls: the request has already passed rate limits and caches.
const SERVED: &str = "kerve-served";

impl Peer {
    /// Creates a peer without a TLS identity.
    pub fn new(name: String, account: Arc<Account>) -> Peer {
        Peer { name, identity: Vec::new(), account }
    }

    /// Creates a peer with its own account, for tests.
    #[cfg(test)]
    pub fn named(name: String) -> Peer {
        Peer::new(name, Account::new(&Arc::new(Budget::new(usize::MAX))))
    }

    /// The original caller, in gRPC's notation: the one in the metadata of a forwarded call, otherwise the peer itself.
    pub fn caller<'a>(&'a self, headers: &'a HeaderMap) -> &'a str {
        let forwarded =
            headers.get(FORWARDED).filter(|_| self.is_local()).and_then(|peer| peer.to_str().ok());
        forwarded.unwrap_or(&self.name)
    }

    /// Whether this process forwarded the call to itself, after rate limits and caches.
    pub fn is_forwarded(&self, headers: &HeaderMap) -> bool {
        self.is_local() && headers.contains_key(SERVED)
    }

    fn is_local(&self) -> bool {
        self.name.starts_with("unix:")
    }
}

/// Serves a connection to its end.
pub async fn serve(worker: Arc<WorkerContext>, accepted: IncomingConnection, protocol: Protocol) {
    let _guard = ConnectionGuard::new(&worker.shared.metrics);
    let account = Account::new(&worker.shared.budget);
    let peer = Peer::new(accepted.peer.clone(), account.clone());
    // The server's own calls come through UNIX sockets.
    let is_local = peer.is_local();
    // Errors end only this connection, and its client has been notified.
    let served = async {
        match accepted.stream {
            Stream::Tcp(stream) => {
                serve_protocol(&worker, TcpStream::from_std(stream)?, peer, protocol).await
            }
            Stream::Unix(stream) => {
                serve_protocol(&worker, UnixStream::from_std(stream)?, peer, protocol).await
            }
        }
    };
    let mut phase = worker.shared.phase();
    tokio::select! {
        _ = served => {}
        held = account.stalled(worker.shared.config.keepalive_timeout), if !is_local => log::warn(&format!(
            "the connection of {} is closed: {held} bytes of its incomplete requests and unread answers have waited too \
             long while the memory budget is exhausted and other requests are refused",
            accepted.peer
        )),
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
    }
}

/// Counts a connection as open until it is dropped.
struct ConnectionGuard(Arc<ServerMetrics>);

impl ConnectionGuard {
    fn new(metrics: &Arc<ServerMetrics>) -> ConnectionGuard {
        metrics.connections.add(1);
        metrics.connections_open.add(1);
        ConnectionGuard(metrics.clone())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections_open.subtract(1);
    }
}

async fn serve_protocol<S>(
    worker: &Arc<WorkerContext>,
    stream: S,
    peer: Peer,
    protocol: Protocol,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let stream = Metered::new(stream, &peer.account);
    match protocol {
        Protocol::Grpc(acceptor) => serve_grpc(worker, stream, peer, acceptor).await,
        Protocol::Http(frontend) => rest::connection::serve_http1(worker, stream, peer, &frontend).await,
    }
}

async fn serve_grpc<S>(
    worker: &Arc<WorkerContext>,
    stream: S,
    mut peer: Peer,
    acceptor: Option<Acceptor>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Some(acceptor) = acceptor else {
        return serve_http2(worker, stream, peer).await;
    };
    let handshake = async { acceptor.acceptor().await.accept(stream).await };
    let stream = timeout(worker.shared.config.handshake_timeout, handshake).await??;
    peer.identity.push(("transport_security_type", b"ssl".to_vec()));
    if let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() {
        peer.identity.extend(identity(certificate));
    }
    serve_http2(worker, stream, peer).await
}

/// An error that ends a connection.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve_http2<S>(worker: &Arc<WorkerContext>, stream: S, peer: Peer) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = &worker.shared.config;
    let stream = RewriteAuthority::new(stream, peer.name.starts_with("unix:"));
    let handshake = builder(config).handshake(stream);
    let mut connection = timeout(config.handshake_timeout, handshake).await??;
    let peer = Arc::new(peer);
    let mut phase = worker.shared.phase();
    let mut keepalive =
        pin!(keep_alive(connection.ping_pong(), config.keepalive_time, config.keepalive_timeout));
    let mut max_age = pin!(sleep_or_pending(config.max_connection_age.map(with_jitter)));
    let mut max_age_grace = pin!(sleep_or_pending(None));
    let mut idle = pin!(sleep_or_pending(config.max_connection_idle));
    let mut last_call = Instant::now();
    let mut shutting_down = false;
    loop {
        tokio::select! {
            biased;
            call = accept(worker, &mut connection) => match call {
                Some(Ok((request, respond))) => {
                    start_call(worker, &peer, request, respond);
                    if config.max_connection_idle.is_some() {
                        last_call = Instant::now();
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !shutting_down => {
                shutting_down = true;
                connection.graceful_shutdown();
            }
            () = &mut max_age, if !shutting_down => {
                shutting_down = true;
                connection.graceful_shutdown();
                max_age_grace.set(sleep_or_pending(config.max_connection_age_grace));
            }
            () = &mut idle, if !shutting_down => {
                let limit = config.max_connection_idle.unwrap_or_default();
                let left = limit.saturating_sub(last_call.elapsed());
                if left.is_zero() && !connection.has_streams() {
                    shutting_down = true;
                    connection.graceful_shutdown();
                }
                idle.set(sleep_or_pending(Some(if left.is_zero() { limit } else { left })));
            }
            () = &mut max_age_grace => return Ok(()),
            () = &mut keepalive => return Ok(()),
        }
    }
}

/// Accepts the next call; wakes executors once all calls that have been read are queued.
async fn accept<S>(
    worker: &WorkerContext,
    connection: &mut Connection<S, Bytes>,
) -> Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|context| {
        let polled = pin!(connection.accept()).poll(context);
        if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
            worker.flush_wakes();
        }
        polled
    })
    .await
}

fn builder(config: &Config) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_concurrent_streams(config.max_concurrent_streams)
        // A client may cancel all of its calls at once; h2's default of 20 would close its connection.
        .max_pending_accept_reset_streams(config.max_concurrent_streams as usize)
        .max_header_list_size(HEADERS_SIZE.max(config.max_metadata_size));
    builder
}

/// Starts a call. A panic ends only this call.
fn start_call(
    worker: &Arc<WorkerContext>,
    peer: &Arc<Peer>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    worker.shared.metrics.calls.add(1);
    let call = infer::serve(worker.clone(), peer.clone(), request, respond);
    let mut call: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(call);
    // Small requests have been received in full and need no task of their own.
    let now = &mut Context::from_waker(Waker::noop());
    // A panic has been reported by its hook; dropping the call resets its stream.
    let pending = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(now).is_pending())).unwrap_or(false);
    if pending {
        // The task polls again and thereby registers its waker.
        let worker = worker.clone();
        tokio::spawn(poll_fn(move |context| {
            let polled = call.as_mut().poll(context);
            worker.flush_wakes();
            polled
        }));
    }
}

/// Rejects a call that did not reach a queue or a servicer.
pub fn refuse(worker: &WorkerContext, respond: &mut SendResponse<Bytes>, status: &Status) {
    worker.shared.metrics.refused[status.code as usize].add(1);
    unary::refuse(respond, status);
}

/// Resolves when the client does not acknowledge a ping in time.
async fn keep_alive(pings: Option<PingPong>, every: Option<Duration>, within: Duration) {
    let (Some(mut pings), Some(every)) = (pings, every) else { return pending().await };
    loop {
        sleep(every).await;
        match timeout(within, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Sleeps for a duration; never resolves without one.
async fn sleep_or_pending(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// Returns a duration varied by up to a tenth, so that connections that started together do not end together.
fn with_jitter(time: Duration) -> Duration {
    use std::hash::BuildHasher;
    let random = std::hash::RandomState::new().hash_one(0_u8);
    time.mul_f64(0.9 + 0.2 * (random as f64 / u64::MAX as f64))
}
