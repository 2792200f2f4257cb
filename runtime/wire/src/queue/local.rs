//! In-process requests: those that the server itself makes to answer one that it has accepted, as ensembles do.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use smallvec::SmallVec;

use crate::grpc::status::Status;
use crate::output::View;
use crate::signature::{SelectedOutput, Shape};

/// Identifies an answer to the one who asked; opaque to the queue.
pub type Token = Box<dyn Any + Send + Sync>;

/// The request that another one is made for.
pub trait Parent: Send + Sync {
    /// Whether anybody waits for its answer.
    fn is_active(&self) -> bool;
}

/// An output, without a copy where its memory can be shared.
pub struct SharedOutput {
    /// Its position in the signature.
    pub position: usize,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, in the form of raw contents.
    pub data: Bytes,
}

/// The answer to a request, and what it took.
pub struct Answer {
    /// The token of the request.
    pub token: Token,
    /// The outputs that were asked for, or what went wrong.
    pub outcome: Result<Vec<SharedOutput>, Status>,
    /// How long its batches were computed.
    pub computed: Duration,
}

/// A queue of answers for the one who asked.
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
    /// Waits for answers and takes all that are there; None once it is closed.
    pub fn take(&self) -> Option<Vec<Answer>> {
        let mut answers = vec![self.receiver.recv().ok()??];
        while let Ok(next) = self.receiver.try_recv() {
            match next {
                Some(answer) => answers.push(answer),
                None => {
                    // For the next call.
                    self.close();
                    break;
                }
            }
        }
        Some(answers)
    }

    /// Lets `take` return None behind what is there.
    pub fn close(&self) {
        self.put(None);
    }

    fn put(&self, item: Option<Answer>) {
        self.sender.send(item).expect("the receiver lives as long as the sender");
    }
}

/// The route of an answer to an in-process request.
pub struct Local {
    token: Token,
    inbox: Arc<Inbox>,
    parent: Arc<dyn Parent>,
    computed: Duration,
}

impl Local {
    /// The answer goes to `inbox`; the request is cancelled when `parent` is no longer active.
    pub fn new(token: Token, inbox: Arc<Inbox>, parent: Arc<dyn Parent>) -> Local {
        Local { token, inbox, parent, computed: Duration::ZERO }
    }

    /// Whether the parent request is cancelled or answered.
    pub fn is_cancelled(&self) -> bool {
        !self.parent.is_active()
    }

    /// Adds to the time that its batches were computed.
    pub fn computed(&mut self, took: Duration) {
        self.computed += took;
    }

    /// Answers with the outputs of a run: those that were requested, or all of them.
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

    /// Answers with a status.
    pub fn refuse(self, status: Status) {
        self.end(Err(status));
    }

    fn end(self, outcome: Result<Vec<SharedOutput>, Status>) {
        let Local { token, inbox, computed, .. } = self;
        inbox.put(Some(Answer { token, outcome, computed }));
    }
}
