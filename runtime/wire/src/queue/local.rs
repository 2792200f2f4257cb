//! Requests that the server itself makes, to answer one that it has accepted: what a chain of models is made of.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use smallvec::SmallVec;

use crate::grpc::status::Status;
use crate::output::View;
use crate::signature::{Requested, Shape};

/// How whoever asked knows an answer again: nothing that the queue looks at.
pub type Token = Box<dyn Any + Send + Sync>;

/// The request that another one helps to answer.
pub trait Parent: Send + Sync {
    /// Whether anybody waits for its answer.
    fn is_wanted(&self) -> bool;
}

/// An output, without a copy where its memory can be shared.
pub struct Piece {
    /// Its position in the signature.
    pub position: usize,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, in the form of raw contents.
    pub data: Bytes,
}

/// The answer to a request, and what it took.
pub struct Answer {
    /// What was asked with it.
    pub token: Token,
    /// The outputs that were asked for, or what went wrong.
    pub outcome: Result<Vec<Piece>, Status>,
    /// How long its batches were computed.
    pub computed: Duration,
}

/// Where answers wait for whoever asked.
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
                    // For the next look.
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

/// The way of an answer back to the server itself.
pub struct Local {
    token: Token,
    inbox: Arc<Inbox>,
    parent: Arc<dyn Parent>,
    computed: Duration,
}

impl Local {
    /// The answer goes to `inbox`, for as long as `parent` is wanted.
    pub fn new(token: Token, inbox: Arc<Inbox>, parent: Arc<dyn Parent>) -> Local {
        Local { token, inbox, parent, computed: Duration::ZERO }
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_gone(&self) -> bool {
        !self.parent.is_wanted()
    }

    /// Notes that so much time went into it.
    pub fn computed(&mut self, took: Duration) {
        self.computed += took;
    }

    /// Answers with the outputs of a run: those that were requested, or all of them.
    pub fn answer(self, requested: &SmallVec<[Requested; 4]>, views: &[View<'_>]) {
        let wanted = |position: usize| {
            requested.is_empty() || requested.iter().any(|each| usize::from(each.position) == position)
        };
        let pieces = views.iter().filter(|view| wanted(view.position)).map(|view| Piece {
            position: view.position,
            shape: view.shape.clone(),
            data: view.share(),
        });
        let outcome = Ok(pieces.collect());
        self.end(outcome);
    }

    /// Answers with a status.
    pub fn refuse(self, status: Status) {
        self.end(Err(status));
    }

    fn end(self, outcome: Result<Vec<Piece>, Status>) {
        let Local { token, inbox, computed, .. } = self;
        inbox.put(Some(Answer { token, outcome, computed }));
    }
}
