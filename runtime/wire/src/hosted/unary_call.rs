//! A single message that Python serves, of a call that is served in Rust.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{Notify, mpsc};

use super::{Call, Event, EventQueue, Outgoing, State, WINDOW};
use crate::grpc::budget::Reservation;
use crate::grpc::frame::PREFIX;
use crate::grpc::head::RequestHead;
use crate::grpc::message::IncomingMessage;
use crate::grpc::status::{Code, Status};
use crate::rope::Rope;
use crate::server::connection::Peer;

/// Has Python serve one message of a call that is otherwise served in Rust, as a separate unary call.
///
/// Dropping the future ends that call.
pub async fn unary_call(
    events: Arc<EventQueue>,
    (method, metadata): (String, HeaderMap),
    deadline: Option<Instant>,
    peer: Arc<Peer>,
    (message, reservation): (Rope, Reservation),
) -> Result<Bytes, Status> {
    let (sender, mut outgoing) = mpsc::channel(WINDOW);
    let state = State {
        incoming: VecDeque::from([IncomingMessage::new(message, None, reservation)]),
        half_closed: true,
        ..State::default()
    };
    let call = EndOnDrop(Arc::new(Call {
        method,
        metadata,
        peer,
        deadline,
        // No encoding is accepted, so that the response is not compressed twice.
        head: RequestHead::default(),
        state: Mutex::new(state),
        changed: Condvar::new(),
        taken: Notify::new(),
        outgoing: sender,
        events: events.clone(),
    }));
    if !events.push(Event::Begun(call.0.clone())) {
        return Err(Status::shutting_down());
    }
    let mut answer = None;
    loop {
        match outgoing.recv().await {
            Some(Outgoing::Headers(..)) => {}
            Some(Outgoing::Message(frame)) => answer = Some(frame.slice(PREFIX..)),
            Some(Outgoing::Finish(Code::Ok, ..)) => {
                return answer.ok_or_else(|| Status::internal("the servicer gave no answer"));
            }
            Some(Outgoing::Finish(code, message, _)) => return Err(Status::new(code, message)),
            None => return Err(Status::internal("the servicer ended the call without an answer")),
        }
    }
}

/// Ends a call when the future that waits for its response completes or is dropped.
struct EndOnDrop(Arc<Call>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
