//! A worker thread: an event loop with its connections and the responses to send.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::grpc::unary;
use crate::log::warn;
use crate::queue::Queue;
use crate::queue::delivery::{Envelope, Mailbox, Route};
use crate::queue::pending::Pending;
use crate::server::connection::{self, IncomingConnection};
use crate::server::listener::{AsyncListener, Listener};
use crate::server::{Phase, Protocol, Shared};

/// The interval at which cancelled and expired requests are removed from queues.
const PURGE_INTERVAL: Duration = Duration::from_millis(10);

/// The maximum number of threads of a worker for blocking tasks; they are started when needed.
const MAX_BLOCKING_THREADS: usize = 4;

/// One worker thread.
pub struct Worker {
    thread: JoinHandle<()>,
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Listen(Listener, Protocol),
    Serve(IncomingConnection, Protocol, [CountGuard; 2]),
}

/// The state that the tasks of one worker share.
pub struct WorkerContext {
    /// The state that all workers share.
    pub shared: Arc<Shared>,
    /// The mailbox of responses for this worker's connections.
    pub mailbox: Arc<Mailbox>,
    /// All workers, for new connections.
    workers: Vec<WorkerHandle>,
    /// Queues with a blocked executor to be woken.
    deferred_wakes: Mutex<Vec<Arc<Queue>>>,
    /// Notified by `flush_wakes_soon`.
    flush_requested: Notify,
}

impl WorkerContext {
    /// Pushes a request to its queue; the caller must call `flush_wakes` afterwards.
    pub fn push(&self, (queue, request): (Arc<Queue>, Pending)) {
        if queue.push(request) {
            let mut deferred_wakes = self.deferred_wakes.lock().unwrap_or_else(PoisonError::into_inner);
            if !deferred_wakes.iter().any(|known| Arc::ptr_eq(known, &queue)) {
                deferred_wakes.push(queue);
            }
        }
    }

    /// Wakes the executors of the queues that have received requests since the previous call.
    ///
    /// Wakes are deferred so that requests that arrive together are dequeued together, with one wake.
    pub fn flush_wakes(&self) {
        let mut deferred_wakes = self.deferred_wakes.lock().unwrap_or_else(PoisonError::into_inner);
        deferred_wakes.drain(..).for_each(|queue| queue.wake());
    }

    /// The same, after every runnable task has run, so that requests of different connections share a wake.
    pub fn flush_wakes_soon(&self) {
        self.flush_requested.notify_one();
    }
}

#[derive(Clone)]
struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    connections: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts the configured number of workers.
    pub fn start_all(shared: &Arc<Shared>) -> std::io::Result<Vec<Worker>> {
        let count = shared.config.workers.max(1);
        let (workers, receivers): (Vec<WorkerHandle>, Vec<_>) = (0..count)
            .map(|_| {
                let (commands, receiver) = mpsc::unbounded_channel();
                (WorkerHandle { commands, connections: Arc::default() }, receiver)
            })
            .unzip();
        receivers
            .into_iter()
            .enumerate()
            .map(|(index, receiver)| Worker::start(index, shared, &workers, receiver))
            .collect()
    }

    /// Accepts connections of a listener and distributes them to all workers.
    pub fn listen(&self, listener: Listener, protocol: Protocol) {
        // This fails only if the worker has ended; the listener is then dropped.
        let _ = self.commands.send(Command::Listen(listener, protocol));
    }

    /// Joins the thread.
    pub fn join(self) {
        drop(self.commands);
        let _ = self.thread.join();
    }

    fn start(
        index: usize,
        shared: &Arc<Shared>,
        workers: &[WorkerHandle],
        receiver: mpsc::UnboundedReceiver<Command>,
    ) -> std::io::Result<Worker> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let commands = workers[index].commands.clone();
        let worker = Arc::new(WorkerContext {
            shared: shared.clone(),
            mailbox: Arc::new(Mailbox::new(shared.metrics.clone())),
            workers: workers.to_vec(),
            deferred_wakes: Mutex::default(),
            flush_requested: Notify::new(),
        });
        let thread = std::thread::Builder::new()
            .name(format!("kerve-wire-{index}"))
            .spawn(move || runtime.block_on(run(index, worker, receiver)))?;
        Ok(Worker { thread, commands })
    }
}

async fn run(index: usize, worker: Arc<WorkerContext>, mut commands: mpsc::UnboundedReceiver<Command>) {
    tokio::spawn(send_answers(worker.clone()));
    tokio::spawn(flush_wakes_when_requested(worker.clone()));
    if index == 0 {
        tokio::spawn(purge_queues(worker.shared.clone()));
    }
    let mut phase = worker.shared.phase();
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => None,
        };
        match command {
            Some(Command::Listen(listener, protocol)) => {
                drop(tokio::spawn(accept(worker.clone(), listener, protocol)))
            }
            Some(Command::Serve(accepted, protocol, counted)) => {
                let worker = worker.clone();
                tokio::spawn(async move {
                    connection::serve(worker, accepted, protocol).await;
                    drop(counted);
                });
            }
            None => return,
        }
    }
}

/// Accepts connections and assigns each to the worker with the fewest connections.
async fn accept(worker: Arc<WorkerContext>, listener: Listener, protocol: Protocol) {
    let mut phase = worker.shared.phase();
    let listener = match listener.into_async() {
        Ok(listener) => listener,
        Err(error) => return warn(&format!("cannot accept connections: {error}")),
    };
    // HTTP carries health checks, and UNIX sockets are used by the server itself: neither is limited.
    let most = match (&listener, &protocol) {
        (AsyncListener::Tcp(_), Protocol::Grpc(_)) => worker.shared.config.max_connections,
        _ => usize::MAX,
    };
    let open: Arc<AtomicUsize> = Arc::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        match accepted {
            Ok(accepted) => {
                if open.load(Ordering::Relaxed) >= most {
                    continue;
                }
                let chosen =
                    worker.workers.iter().min_by_key(|each| each.connections.load(Ordering::Relaxed));
                let Some(chosen) = chosen else { return };
                let counted = [CountGuard::new(&chosen.connections), CountGuard::new(&open)];
                if chosen.commands.send(Command::Serve(accepted, protocol.clone(), counted)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Most likely out of file descriptors: connections must end before others can be accepted.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Counts a connection until it is dropped.
struct CountGuard(Arc<AtomicUsize>);

impl CountGuard {
    fn new(counter: &Arc<AtomicUsize>) -> CountGuard {
        counter.fetch_add(1, Ordering::Relaxed);
        CountGuard(counter.clone())
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task behind `flush_wakes_soon`: when it runs, every task that was runnable before has run.
async fn flush_wakes_when_requested(worker: Arc<WorkerContext>) {
    loop {
        worker.flush_requested.notified().await;
        worker.flush_wakes();
    }
}

async fn send_answers(worker: Arc<WorkerContext>) {
    let mut envelopes = Vec::new();
    loop {
        worker.mailbox.receive(&mut envelopes).await;
        for envelope in envelopes.drain(..) {
            // A panic has been reported by its hook; the other responses are still sent.
            let _ = catch_unwind(AssertUnwindSafe(|| deliver(&worker.shared, envelope)));
        }
    }
}

fn deliver(shared: &Shared, Envelope { route, encoding, answer }: Envelope) {
    match route {
        Route::Unary(mut respond, in_flight) => {
            let answer = answer.map(|framed| in_flight.frame(framed, encoding));
            if let Ok(frame) = &answer {
                shared.metrics.bytes_sent.add(frame.len() as u64);
            }
            unary::send(&mut respond, encoding, answer);
        }
        // The stream's task sends the response; if that has ended, the response is dropped.
        Route::Stream(sender, sequence, in_flight) => {
            let answer = answer.map(|framed| in_flight.frame(framed, encoding));
            drop(sender.send((sequence, answer)));
        }
        // The connection's task sends the response; if that has ended, the client has disconnected.
        Route::Http(sender, in_flight) => drop((sender.send(answer), in_flight)),
        Route::Part(_) | Route::Local(_) => unreachable!("they answer for themselves"),
    }
}

async fn purge_queues(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PURGE_INTERVAL);
    loop {
        ticks.tick().await;
        shared.models.queues().iter().for_each(|queue| queue.purge());
    }
}
