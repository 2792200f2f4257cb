//! A load generator for benchmarks: sends one unary gRPC call at a given concurrency or request rate.
//!
//! ```text
//! arrivals -> call (one connection, one thread) -> Completed
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// The maximum HTTP/2 window, so that responses wait for the server and never for this client.
const WINDOW: u32 = (1 << 31) - 1;

/// When calls begin.
#[derive(Clone, Copy)]
pub enum Arrivals {
    /// A closed loop: this many calls are in flight at any time.
    Concurrency(usize),
    /// An open loop: a Poisson process with this many calls per second, independent of completions.
    RequestRate(f64),
}

/// The call that is sent repeatedly.
pub struct Call {
    authority: String,
    path: String,
    metadata: HeaderMap,
    frame: Bytes,
}

impl Call {
    /// Creates a call of a method, `/package.Service/Method`, of the server at `host:port`; an error for metadata that
    /// is not valid in a header.
    pub fn new(
        authority: String,
        path: String,
        metadata: &[(String, String)],
        message: &[u8],
    ) -> Result<Call, http::Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in metadata {
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put_slice(message);
        Ok(Call { authority, path, metadata: headers, frame: frame.freeze() })
    }

    fn request(&self) -> Result<Request<()>, http::Error> {
        let mut request = Request::post(format!("http://{}{}", self.authority, self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        request.headers_mut().extend(self.metadata.clone());
        Ok(request)
    }
}

/// The calls that have completed.
#[derive(Default)]
pub struct Completed {
    /// For each successful call, when it ended and the time since it was due.
    pub succeeded: Vec<(Instant, Duration)>,
    /// The number of calls that ended with a status other than OK.
    pub failed: u64,
    /// Why the connection is broken, so that no more calls can be sent.
    pub error: Option<String>,
}

/// A running load; ends with `stop`.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    call: Call,
    stopping: AtomicBool,
    completed: Mutex<Completed>,
}

impl Shared {
    fn completed(&self) -> MutexGuard<'_, Completed> {
        self.completed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Starts a thread that connects and sends calls.
    pub fn start(call: Call, arrivals: Arrivals) -> Load {
        let shared = Arc::new(Shared { call, stopping: AtomicBool::new(false), completed: Mutex::default() });
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(&own, arrivals) {
                own.completed().error = Some(error.to_string());
            }
        });
        Load { shared, thread }
    }

    /// Takes the calls that have completed since the previous `take`.
    pub fn take(&self) -> Completed {
        std::mem::take(&mut *self.shared.completed())
    }

    /// Stops sending calls and waits for those in flight.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // The panic hook has printed a panic of the thread.
        let _ = self.thread.join();
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn run(shared: &Arc<Shared>, arrivals: Arrivals) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpStream::connect(&shared.call.authority).await?;
        socket.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake::<_, Bytes>(socket).await?;
        tokio::spawn(connection);
        match arrivals {
            Arrivals::Concurrency(count) => run_closed_loop(shared, &sender, count).await,
            Arrivals::RequestRate(rate) => run_open_loop(shared, &sender, rate).await,
        }
    })
}

async fn run_closed_loop(
    shared: &Arc<Shared>,
    sender: &SendRequest<Bytes>,
    count: usize,
) -> Result<(), Error> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (shared, sender) = (shared.clone(), sender.clone());
        calls.spawn(async move {
            while !shared.stopping() {
                send(&shared, sender.clone(), Instant::now()).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(completed) = calls.join_next().await {
        completed??;
    }
    Ok(())
}

async fn run_open_loop(shared: &Arc<Shared>, sender: &SendRequest<Bytes>, rate: f64) -> Result<(), Error> {
    let (arrivals, mut due) = unbounded_channel();
    let own = shared.clone();
    // A thread of its own, since Tokio's timers have a resolution of a millisecond.
    std::thread::spawn(move || generate_arrivals(&own, &arrivals, rate));
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            Some(completed) = calls.join_next() => completed??,
            at = due.recv() => match at {
                Some(at) => {
                    let (shared, sender) = (shared.clone(), sender.clone());
                    calls.spawn(async move { send(&shared, sender, at).await });
                }
                None => break,
            },
        }
    }
    while let Some(completed) = calls.join_next().await {
        completed??;
    }
    Ok(())
}

/// Sends the times at which calls are due, with exponentially distributed gaps.
fn generate_arrivals(shared: &Shared, due: &UnboundedSender<Instant>, rate: f64) {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut at = Instant::now();
    while !shared.stopping() {
        // xorshift: https://www.jstatsoft.org/article/view/v008i14
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
        at += Duration::from_secs_f64(-(1.0 - uniform).ln() / rate);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if due.send(at).is_err() {
            return;
        }
    }
}

/// Sends a call and records its completion; an error if the connection can no longer be used.
async fn send(shared: &Shared, sender: SendRequest<Bytes>, due: Instant) -> Result<(), Error> {
    let ok = match exchange(&shared.call, sender).await {
        Ok(ok) => ok,
        Err(error) if error.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_reset) => false,
        Err(error) => return Err(error),
    };
    let now = Instant::now();
    let mut completed = shared.completed();
    if ok {
        completed.succeeded.push((now, now - due));
    } else {
        completed.failed += 1;
    }
    Ok(())
}

/// Returns whether a call ended with the status OK.
async fn exchange(call: &Call, sender: SendRequest<Bytes>) -> Result<bool, Error> {
    let (response, mut body) = sender.ready().await?.send_request(call.request()?, false)?;
    body.send_data(call.frame.clone(), true)?;
    let (head, mut answer) = response.await?.into_parts();
    while let Some(data) = answer.data().await {
        answer.flow_control().release_capacity(data?.len())?;
    }
    let trailers = answer.trailers().await?;
    let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
    Ok(status.is_some_and(|status| status == "0"))
}
