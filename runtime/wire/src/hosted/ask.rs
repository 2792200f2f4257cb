//! One message for Python, of a call that is served in Rust.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{Notify, mpsc};

use super::{Call, Event, Host, Outgoing, State, WINDOW};
use crate::grpc::budget::Hold;
use crate::grpc::frame::PREFIX;
use crate::grpc::head::Head;
use crate::grpc::received::Received;
use crate::grpc::status::{Code, Status};
use crate::rope::Rope;
use crate::server::connection::Peer;

/// Has Python answer one message of a call that is served here, as if that were a call of its own.
///
/// Dropped before its end, it ends that call.
pub async fn ask(
    host: Arc<Host>,
    (method, metadata): (String, HeaderMap),
    deadline: Option<Instant>,
    peer: Arc<Peer>,
    (message, hold): (Rope, Hold),
) -> Result<Bytes, Status> {
    let (sender, mut outgoing) = mpsc::channel(WINDOW);
    let state = State {
        incoming: VecDeque::from([Received::new(message, None, hold)]),
        half_closed: true,
        ..State::default()
    };
    let ending = Ending(Arc::new(Call {
        method,
        metadata,
        peer,
        deadline,
        // Nothing is accepted: the answer is not compressed twice.
        head: Head::default(),
        state: Mutex::new(state),
        changed: Condvar::new(),
        taken: Notify::new(),
        outgoing: sender,
        host: host.clone(),
    }));
    if !host.post(Event::Begun(ending.0.clone())) {
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

/// Ends a call, however whoever waits for its answer ends.
struct Ending(Arc<Call>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}
