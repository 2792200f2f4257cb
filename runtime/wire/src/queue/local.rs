//! In-process requests: those that the server itself makes to serve an accepted request, as ensembles do.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use smallvec::SmallVec;

use crate::grpc::status::Status;
use crate::output::View;
use crate::signature::{SelectedOutput, Shape};

/// Identifies a response to its requester; opaque to the queue.
pub type Token = Box<dyn Any + Send + Sync>;

/// The request for which an in-process request is made.
pub trait Parent: Send + Sync {
    /// Whether its response is still awaited.
    fn is_active(&self) -> bool;
}

/// An output; not copied if its memory can be shared.
pub struct SharedOutput {
    /// Its position in the signature.
    pub position: usize,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, in the form of raw contents.
    pub data: Bytes,
}

/// The response to a request, and its computation time.
pub struct Answer {
    /// The token of the request.
    pub token: Token,
    /// The requested outputs, or the error status.
    pub outcome: Result<Vec<SharedOutput>, Status>,
    /// The computation time of its batches.
    pub computed: Duration,
}

/// A queue of responses for one requester.
pub struct Inbox {
    sender: Sender<Option<Answer>>,
    receiver: Receiver<Option<Answer>>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        let (sender, receiver) = unbounded();
        Inbox { sender, receiver }
    }
}

impl Inbox {
    /// Waits for responses and takes all that have arrived; None once the queue is closed.
    pub fn take(&self) -> Option<Vec<Answer>> {
        let mut answers = vec![self.receiver.recv().ok()??];
        while let Ok(next) = self.receiver.try_recv() {
            match next {
                Some(answer) => answers.push(answer),
                None => {
                    // Put back for the next call.
                    self.close();
                    break;
                }
            }
        }
        Some(answers)
    }

    /// Closes the queue: `take` returns None after the responses that have arrived.
    pub fn close(&self) {
        self.put(None);
    }

    fn put(&self, item: Option<Answer>) {
        self.sender.send(item).expect("the receiver lives as long as the sender");
    }
}

/// The route of the response to an in-process request.
pub struct Local {
    token: Token,
    inbox: Arc<Inbox>,
    parent: Arc<dyn Parent>,
    computed: Duration,
}

impl Local {
    /// Creates a route to `inbox`; the request is cancelled when `parent` is no longer active.
    pub fn new(token: Token, inbox: Arc<Inbox>, parent: Arc<dyn Parent>) -> Local {
        Local { token, inbox, parent, computed: Duration::ZERO }
    }

    /// Whether the parent request has been cancelled or completed.
    pub fn is_cancelled(&self) -> bool {
        !self.parent.is_active()
    }

    /// Adds to the computation time of its batches.
    pub fn computed(&mut self, took: Duration) {
        self.computed += took;
    }

    /// Completes the request with the outputs of a run: the requested ones, or all.
    pub fn answer(self, requested: &SmallVec<[SelectedOutput; 4]>, views: &[View<'_>]) {
        let is_selected = |position: usize| {
            requested.is_empty() || requested.iter().any(|each| usize::from(each.position) == position)
        };
        let outputs = views.iter().filter(|view| is_selected(view.position)).map(|view| SharedOutput {
            position: view.position,
            shape: view.shape.clone(),
            data: view.share(),
        });
        let outcome = Ok(outputs.collect());
        self.end(outcome);
    }

    /// Completes the request with an error status.
    pub fn refuse(self, status: Status) {
        self.end(Err(status));
    }

    fn end(self, outcome: Result<Vec<SharedOutput>, Status>) {
        let Local { token, inbox, computed, .. } = self;
        inbox.put(Some(Answer { token, outcome, computed }));
    }
}
