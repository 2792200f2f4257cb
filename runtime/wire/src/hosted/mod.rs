//! Calls that are served in Python: servicers written for grpcio, in a small pool of threads.
//!
//! The worker moves bytes between the connection and a `Call`; a Python thread accesses the call only through
//! blocking methods, which are called without the GIL.

mod unary_call;

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tokio::sync::{Notify, mpsc, watch};

use crate::grpc::budget::{Budget, Reservation, reserve_until_sent};
use crate::grpc::compression::Encoding;
use crate::grpc::frame::Decoder;
use crate::grpc::head::RequestHead;
use crate::grpc::message::IncomingMessage;
use crate::grpc::status::{Code, Status, put_status};
use crate::grpc::unary;
use crate::rope::Rope;
use crate::server::Phase;
use crate::server::connection::Peer;

pub use self::unary_call::unary_call;

/// The capacity of a call's queues of messages, in each direction.
const WINDOW: usize = 8;

/// An event that a Python thread handles.
pub enum Event {
    /// A new call.
    Begun(Arc<Call>),
    /// The client has sent all of its request; follows when `Call::complete` has returned false.
    Complete(Arc<Call>),
    /// A call for which `Call::watch` was called has ended.
    Ended(Arc<Call>),
}

/// The queue of events from the workers to the Python threads.
pub struct EventQueue {
    sender: Mutex<Option<Sender<Event>>>,
    receiver: Receiver<Event>,
}

impl Default for EventQueue {
    fn default() -> EventQueue {
        let (sender, receiver) = unbounded();
        EventQueue { sender: Mutex::new(Some(sender)), receiver }
    }
}

impl EventQueue {
    /// Waits for an event; None once the queue is closed and empty.
    pub fn next(&self) -> Option<Event> {
        self.receiver.recv().ok()
    }

    /// Closes the queue: no events can be added, and waiting threads return.
    pub fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn push(&self, event: Event) -> bool {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.send(event).is_ok())
    }
}

/// A call, as accessed by a Python thread.
pub struct Call {
    /// The method's path: `/package.Service/Method`.
    pub method: String,
    /// The client's metadata.
    pub metadata: HeaderMap,
    /// The client.
    pub peer: Arc<Peer>,
    /// The deadline of the call.
    pub deadline: Option<Instant>,
    head: RequestHead,
    state: Mutex<State>,
    changed: Condvar,
    taken: Notify,
    outgoing: mpsc::Sender<Outgoing>,
    events: Arc<EventQueue>,
}

#[derive(Default)]
struct State {
    incoming: VecDeque<IncomingMessage>,
    /// The reservation of the message that Python is handling, until it receives the next.
    taken: Option<Reservation>,
    half_closed: bool,
    ended: bool,
    watched: bool,
    /// Whether an `Event::Complete` is to be sent.
    awaited: bool,
}

impl State {
    /// Whether a call that takes one message can be served, or rejected because it has two.
    fn is_complete(&self) -> bool {
        self.half_closed || self.ended || self.incoming.len() > 1
    }
}

/// An item that Python sends.
pub enum Outgoing {
    /// The initial metadata, and the encoding of messages that are compressed.
    Headers(HeaderMap, Option<Encoding>),
    /// A message with its prefix.
    Message(Bytes),
    /// The end of the call: status code, message, and trailing metadata.
    Finish(Code, String, HeaderMap),
}

impl Call {
    /// Waits for the next message; None if the client sends no more or the call has ended.
    ///
    /// The message is decompressed here: on a thread that may block, and after the call has been authorized.
    pub fn receive(&self) -> Option<Rope> {
        match self.next()?.decode() {
            Ok((message, reservation)) => {
                self.lock().taken = Some(reservation);
                Some(message)
            }
            Err(Status { code, message, .. }) => {
                self.lock().ended = true;
                self.send(Outgoing::Finish(code, message, HeaderMap::new()));
                None
            }
        }
    }

    fn next(&self) -> Option<IncomingMessage> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.incoming.pop_front() {
                state.taken = None;
                self.taken.notify_one();
                return Some(message);
            }
            if state.half_closed || state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends an item; blocks while the client reads too slowly. Returns false if the call has ended.
    pub fn send(&self, outgoing: Outgoing) -> bool {
        self.outgoing.blocking_send(outgoing).is_ok()
    }

    /// Whether the call has not ended.
    pub fn is_active(&self) -> bool {
        !self.lock().ended
    }

    /// Whether the client has sent all that a call with one message needs, or the call has ended; if not, an
    /// `Event::Complete` follows.
    ///
    /// This way no thread blocks on a client that does not finish its request.
    pub fn complete(&self) -> bool {
        let mut state = self.lock();
        let complete = state.is_complete();
        state.awaited = !complete;
        complete
    }

    /// Requests an `Event::Ended`; returns false if the call has already ended.
    pub fn watch(&self) -> bool {
        let mut state = self.lock();
        state.watched |= !state.ended;
        !state.ended
    }

    /// Returns the wanted encoding if the client accepts it.
    pub fn acceptable(&self, wanted: Option<Encoding>) -> Option<Encoding> {
        wanted.filter(|&encoding| self.head.accepts(encoding))
    }

    /// Changes the state and notifies all waiters.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let complete = state.is_complete() && std::mem::take(&mut state.awaited);
        drop(state);
        self.changed.notify_all();
        if complete {
            self.events.push(Event::Complete(self.clone()));
        }
    }

    fn end(self: &Arc<Self>) {
        self.change(|state| (state.ended, state.taken) = (true, None));
        if self.lock().watched {
            self.events.push(Event::Ended(self.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's resources that a call served in Python needs.
pub struct CallContext {
    /// The queue of the call's events.
    pub events: Arc<EventQueue>,
    /// Decodes the messages of the request's body.
    pub decoder: Decoder,
    /// The memory budget that messages count against until Python has handled them.
    pub budget: Arc<Budget>,
    /// The server's phase; tells when open calls are to be ended.
    pub phase: watch::Receiver<Phase>,
}

/// Serves one call to its end; `first` is a message that has already been read from its body.
pub async fn serve(
    mut context: CallContext,
    (method, metadata): (String, HeaderMap),
    head: RequestHead,
    peer: Arc<Peer>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    first: Option<Rope>,
) {
    let (sender, outgoing) = mpsc::channel(WINDOW);
    let deadline = head.timeout.map(|timeout| Instant::now() + timeout);
    let mut response = ResponseWriter { respond, stream: None };
    let first = match first.map(|message| IncomingMessage::uncompressed(message, &context.budget)).transpose()
    {
        Ok(first) => first,
        Err(status) => return response.refuse(status),
    };
    let call = Arc::new(Call {
        method,
        metadata,
        peer,
        deadline,
        head,
        state: Mutex::new(State { incoming: first.into_iter().collect(), ..State::default() }),
        changed: Condvar::new(),
        taken: Notify::new(),
        outgoing: sender,
        events: context.events.clone(),
    });
    let mut receiving = pin!(receive(&call, body, context.decoder));
    // Data that has already arrived is read first, so that most calls are complete when Python receives them.
    if let Poll::Ready(status) = poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context))).await {
        return response.refuse(status);
    }
    if !context.events.push(Event::Begun(call.clone())) {
        return response.refuse(Status::shutting_down());
    }
    let expired = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => pending().await,
        }
    };
    let status = tokio::select! {
        status = receiving => Some(status),
        () = response.send_all(outgoing, &call.peer) => None,
        () = expired => Some(Status::new(Code::DeadlineExceeded, "Deadline Exceeded")),
        _ = context.phase.wait_for(Phase::ends_calls) => Some(Status::shutting_down()),
    };
    call.end();
    if let Some(status) = status {
        response.refuse(status);
    }
}

/// Queues messages for Python, up to `WINDOW` ahead; returns only on an error.
async fn receive(call: &Arc<Call>, mut body: RecvStream, mut decoder: Decoder) -> Status {
    loop {
        while call.lock().incoming.len() >= WINDOW {
            call.taken.notified().await;
        }
        match decoder.message() {
            Ok(Some(message)) => {
                if let Err(status) = message.check() {
                    return status;
                }
                call.change(|state| state.incoming.push_back(message));
                continue;
            }
            Ok(None) => {}
            Err(status) => return status,
        }
        match unary::next_piece(&mut body).await {
            Ok(Some(piece)) => decoder.push(piece),
            Ok(None) if decoder.is_within_message() => {
                return Status::internal("the request ends within a message");
            }
            Ok(None) => break,
            Err(status) => return status,
        }
    }
    call.change(|state| state.half_closed = true);
    pending().await
}

/// The sending half of a call.
struct ResponseWriter {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
}

impl ResponseWriter {
    /// Sends the messages from Python, until the call ends or the client disconnects.
    async fn send_all(&mut self, mut outgoing: mpsc::Receiver<Outgoing>, peer: &Peer) {
        loop {
            let next = tokio::select! {
                next = outgoing.recv() => next,
                () = self.reset() => return,
            };
            match next {
                None => return,
                Some(Outgoing::Headers(metadata, encoding)) => self.begin(metadata, encoding),
                Some(Outgoing::Message(frame)) => {
                    self.begin(HeaderMap::new(), None);
                    if !self.send(reserve_until_sent(frame, &peer.account)).await {
                        return;
                    }
                }
                Some(Outgoing::Finish(code, message, mut trailers)) => {
                    put_status(&mut trailers, code, &message);
                    return self.finish(trailers);
                }
            }
        }
    }

    /// Sends the response headers, once.
    fn begin(&mut self, metadata: HeaderMap, encoding: Option<Encoding>) {
        if self.stream.is_none() {
            let mut response = unary::response(encoding);
            response.headers_mut().extend(metadata);
            self.stream = self.respond.send_response(response, false).ok();
        }
    }

    /// Sends a frame, subject to flow control; returns false if the client is gone.
    async fn send(&mut self, mut frame: Bytes) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        while !frame.is_empty() {
            stream.reserve_capacity(frame.len());
            let capacity = match poll_fn(|context| stream.poll_capacity(context)).await {
                Some(Ok(capacity)) => capacity,
                _ => return false,
            };
            let piece = frame.split_to(capacity.min(frame.len()));
            if stream.send_data(piece, false).is_err() {
                return false;
            }
        }
        true
    }

    fn refuse(&mut self, status: Status) {
        let mut trailers = HeaderMap::new();
        status.put(&mut trailers);
        self.finish(trailers);
    }

    /// Ends the call with trailers.
    fn finish(&mut self, trailers: HeaderMap) {
        match &mut self.stream {
            // Errors of a disconnected client are ignored.
            Some(stream) => drop(stream.send_trailers(trailers)),
            None => {
                let mut response = unary::response(None);
                response.headers_mut().extend(trailers);
                drop(self.respond.send_response(response, true));
            }
        }
    }

    /// Waits until the client resets the stream.
    async fn reset(&mut self) {
        let ResponseWriter { respond, stream } = self;
        drop(match stream {
            Some(stream) => poll_fn(|context| stream.poll_reset(context)).await,
            None => poll_fn(|context| respond.poll_reset(context)).await,
        });
    }
}
