//! A thread that moves bytes: one event loop, its connections, and the answers it is to send.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::grpc::{frame, unary};
use crate::log::warn;
use crate::queue::Queue;
use crate::queue::pending::{Letter, Mailbox, Pending, Route};
use crate::server::connection::{self, Accepted};
use crate::server::listener::{AsyncListener, Listener};
use crate::server::{Phase, Protocol, Shared};

/// How often queues are rid of requests that nobody waits for.
const SWEEP: Duration = Duration::from_millis(10);

/// Threads that a worker may have for what takes long; there are none until then.
const BLOCKING: usize = 4;

/// One worker thread.
pub struct Worker {
    thread: JoinHandle<()>,
    intake: mpsc::UnboundedSender<Work>,
}

enum Work {
    Listen(Listener, Protocol),
    Serve(Accepted, Protocol, [Counted; 2]),
}

/// What the tasks of one worker share.
pub struct Desk {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Where answers for this worker's connections arrive.
    pub mailbox: Arc<Mailbox>,
    /// All workers, for new connections.
    colleagues: Vec<Colleague>,
    /// Queues whose executors are to be woken.
    bells: Mutex<Vec<Arc<Queue>>>,
    /// Somebody asked for that.
    bell: Notify,
}

impl Desk {
    /// Puts a request into its queue; `ring` is to follow.
    pub fn push(&self, (queue, request): (Arc<Queue>, Pending)) {
        if queue.push(request) {
            let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
            if !bells.iter().any(|bell| Arc::ptr_eq(bell, &queue)) {
                bells.push(queue);
            }
        }
    }

    /// Wakes the executors that have work.
    ///
    /// Not at once for each request: what came together is to be taken together, with one wake.
    pub fn ring(&self) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.drain(..).for_each(|queue| queue.wake());
    }

    /// The same, once every task has run that can: connections that carry one request at a time each have theirs.
    pub fn ring_soon(&self) {
        self.bell.notify_one();
    }
}

#[derive(Clone)]
struct Colleague {
    intake: mpsc::UnboundedSender<Work>,
    connections: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts as many workers as the configuration says.
    pub fn start_all(shared: &Arc<Shared>) -> std::io::Result<Vec<Worker>> {
        let count = shared.config.workers.max(1);
        let (colleagues, intakes): (Vec<Colleague>, Vec<_>) = (0..count)
            .map(|_| {
                let (intake, receiver) = mpsc::unbounded_channel();
                (Colleague { intake, connections: Arc::default() }, receiver)
            })
            .unzip();
        intakes
            .into_iter()
            .enumerate()
            .map(|(index, receiver)| Worker::start(index, shared, &colleagues, receiver))
            .collect()
    }

    /// Accepts connections of a listener, for all workers.
    pub fn listen(&self, listener: Listener, protocol: Protocol) {
        // It fails only when the worker has ended, and then nobody listens.
        let _ = self.intake.send(Work::Listen(listener, protocol));
    }

    /// Waits for the thread's end.
    pub fn join(self) {
        drop(self.intake);
        let _ = self.thread.join();
    }

    fn start(
        index: usize,
        shared: &Arc<Shared>,
        colleagues: &[Colleague],
        receiver: mpsc::UnboundedReceiver<Work>,
    ) -> std::io::Result<Worker> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING)
            .enable_all()
            .build()?;
        let intake = colleagues[index].intake.clone();
        let desk = Arc::new(Desk {
            shared: shared.clone(),
            mailbox: Arc::new(Mailbox::new(shared.metrics.clone())),
            colleagues: colleagues.to_vec(),
            bells: Mutex::default(),
            bell: Notify::new(),
        });
        let thread = std::thread::Builder::new()
            .name(format!("kerve-wire-{index}"))
            .spawn(move || runtime.block_on(run(index, desk, receiver)))?;
        Ok(Worker { thread, intake })
    }
}

async fn run(index: usize, desk: Arc<Desk>, mut intake: mpsc::UnboundedReceiver<Work>) {
    tokio::spawn(send_answers(desk.mailbox.clone()));
    tokio::spawn(ring(desk.clone()));
    if index == 0 {
        tokio::spawn(sweep(desk.shared.clone()));
    }
    let mut phase = desk.shared.phase();
    loop {
        let work = tokio::select! {
            work = intake.recv() => work,
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => None,
        };
        match work {
            Some(Work::Listen(listener, protocol)) => {
                drop(tokio::spawn(accept(desk.clone(), listener, protocol)))
            }
            Some(Work::Serve(accepted, protocol, counted)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    connection::serve(desk, accepted, protocol).await;
                    drop(counted);
                });
            }
            None => return,
        }
    }
}

/// Hands connections to the worker that has the fewest.
async fn accept(desk: Arc<Desk>, listener: Listener, protocol: Protocol) {
    let mut phase = desk.shared.phase();
    let listener = match listener.into_async() {
        Ok(listener) => listener,
        Err(error) => return warn(&format!("cannot accept connections: {error}")),
    };
    // HTTP is where others look whether the server lives, and UNIX sockets are its own.
    let most = match (&listener, &protocol) {
        (AsyncListener::Tcp(_), Protocol::Grpc(_)) => desk.shared.config.max_connections,
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
                let idlest =
                    desk.colleagues.iter().min_by_key(|each| each.connections.load(Ordering::Relaxed));
                let Some(colleague) = idlest else { return };
                let counted = [Counted::new(&colleague.connections), Counted::new(&open)];
                if colleague.intake.send(Work::Serve(accepted, protocol.clone(), counted)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of file descriptors, most likely: others must go before more can come.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Counts a connection in, and out however its task ends.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Counted {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Wakes executors for whoever asked that it be done soon: by its turn, everybody who was to run before has.
async fn ring(desk: Arc<Desk>) {
    loop {
        desk.bell.notified().await;
        desk.ring();
    }
}

async fn send_answers(mailbox: Arc<Mailbox>) {
    let mut letters = Vec::new();
    loop {
        mailbox.receive(&mut letters).await;
        for letter in letters.drain(..) {
            // A panic has been reported by its hook; the other answers are sent all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| deliver(&mailbox, letter)));
        }
    }
}

fn deliver(mailbox: &Mailbox, Letter { route, encoding, answer }: Letter) {
    match route {
        Route::Unary(mut respond, in_flight) => {
            let answer = answer.map(|framed| frame::encode(framed, encoding));
            if let Ok(frame) = &answer {
                mailbox.metrics().bytes_sent.add(frame.len() as u64);
            }
            unary::send(&mut respond, encoding, answer);
            drop(in_flight);
        }
        // The stream's own task sends; when that has ended, nobody wants the answer.
        Route::Stream(sender, sequence, in_flight) => drop((sender.send((sequence, answer)), in_flight)),
        // The connection's own task sends; when that has ended, the client is gone.
        Route::Http(sender, in_flight) => drop((sender.send(answer), in_flight)),
        Route::Share(_) | Route::Local(_) => unreachable!("they answer for themselves"),
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        shared.models.queues().iter().for_each(|queue| queue.sweep());
    }
}
