//! Delivery of responses from the executor that computed a batch to the workers of the connections.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::grpc::budget::{Account, reserve_until_sent};
use crate::grpc::compression::Encoding;
use crate::grpc::frame;
use crate::grpc::status::Status;
use crate::metrics::ServerMetrics;
use crate::queue::local::Local;
use crate::queue::split::Part;

/// The route of a response.
pub enum Route {
    /// The response of a unary call.
    Unary(SendResponse<Bytes>, InFlight),
    /// A message of a stream, with its position in the stream.
    Stream(mpsc::UnboundedSender<(u64, Frame)>, u64, InFlight),
    /// The body of an HTTP response.
    Http(oneshot::Sender<Answer>, InFlight),
    /// Part of the response to a split request.
    Part(Part),
    /// The response to an in-process request.
    Local(Local),
}

impl Route {
    /// Whether the receiver of the response is gone.
    pub fn is_cancelled(&mut self) -> bool {
        match self {
            // Ready: the client has reset the stream, or its connection is lost.
            Route::Unary(respond, _) => {
                respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
            }
            Route::Stream(sender, ..) => sender.is_closed(),
            Route::Http(sender, _) => sender.is_closed(),
            Route::Part(part) => part.is_cancelled(),
            Route::Local(local) => local.is_cancelled(),
        }
    }

    /// Whether this is not a part of a split request, or its first part.
    pub fn is_first(&self) -> bool {
        !matches!(self, Route::Part(part) if !part.is_first())
    }

    /// Whether the request is an in-process request.
    pub fn is_local(&self) -> bool {
        match self {
            Route::Unary(..) | Route::Stream(..) | Route::Http(..) => false,
            Route::Part(part) => part.is_local(),
            Route::Local(_) => true,
        }
    }
}

/// Counts a request as in flight until it is dropped; holds the mailbox of the worker that sends the response.
pub struct InFlight {
    mailbox: Arc<Mailbox>,
    account: Arc<Account>,
}

impl InFlight {
    /// Counts one more request of a connection as in flight.
    pub fn new(mailbox: &Arc<Mailbox>, account: &Arc<Account>) -> InFlight {
        mailbox.metrics.in_flight.add(1);
        InFlight { mailbox: mailbox.clone(), account: account.clone() }
    }

    /// Encodes the frame of a response, which counts against the server's memory budget until it is sent.
    pub fn frame(&self, framed: Vec<u8>, encoding: Option<Encoding>) -> Bytes {
        reserve_until_sent(frame::encode(framed, encoding), &self.account)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.mailbox.metrics.in_flight.subtract(1);
    }
}

/// A response as `frame::encode` takes it (for HTTP, as `rest::response::body` takes it), or an error status. It is
/// compressed by the worker, not by the executor.
pub type Answer = Result<Vec<u8>, Status>;

/// The frame of a response in a stream, or an error status.
pub type Frame = Result<Bytes, Status>;

/// Responses that are delivered together, grouped by the mailbox of the worker that sends them.
#[derive(Default)]
pub struct Outbox {
    by_mailbox: SmallVec<[(Arc<Mailbox>, Vec<Envelope>); 2]>,
}

/// A response and its route.
pub struct Envelope {
    /// The route of the response.
    pub route: Route,
    /// The encoding for the response headers.
    pub encoding: Option<Encoding>,
    /// The response.
    pub answer: Answer,
}

/// The responses that a worker is to send; those of one batch wake it once.
pub struct Mailbox {
    pub(super) envelopes: Mutex<Vec<Envelope>>,
    arrived: Notify,
    pub(super) metrics: Arc<ServerMetrics>,
}

impl Mailbox {
    /// Creates an empty mailbox.
    pub fn new(metrics: Arc<ServerMetrics>) -> Mailbox {
        Mailbox { envelopes: Mutex::default(), arrived: Notify::new(), metrics }
    }

    /// Waits for responses and takes all of them; replaces the contents of `envelopes`.
    pub async fn receive(&self, envelopes: &mut Vec<Envelope>) {
        self.arrived.notified().await;
        std::mem::swap(envelopes, &mut *self.envelopes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Outbox {
    /// Delivers all responses to their mailboxes.
    pub fn post(self) {
        for (mailbox, envelopes) in self.by_mailbox {
            let mut waiting = mailbox.envelopes.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_empty() {
                *waiting = envelopes
            } else {
                waiting.extend(envelopes)
            }
            drop(waiting);
            mailbox.arrived.notify_one();
        }
    }

    /// Adds the response to a request from a connection.
    pub fn add(&mut self, envelope: Envelope) {
        let mailbox = match &envelope.route {
            Route::Unary(_, in_flight) | Route::Stream(_, _, in_flight) | Route::Http(_, in_flight) => {
                in_flight.mailbox.clone()
            }
            Route::Part(_) | Route::Local(_) => unreachable!("they answer for themselves"),
        };
        self.insert(mailbox, envelope);
    }

    fn insert(&mut self, mailbox: Arc<Mailbox>, envelope: Envelope) {
        match self.by_mailbox.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, envelopes)) => envelopes.push(envelope),
            None => self.by_mailbox.push((mailbox, vec![envelope])),
        }
    }

    /// Appends the responses of another outbox.
    pub fn append(&mut self, other: Outbox) {
        for (mailbox, envelopes) in other.by_mailbox {
            envelopes.into_iter().for_each(|envelope| self.insert(mailbox.clone(), envelope));
        }
    }
}
