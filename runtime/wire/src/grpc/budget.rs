//! How many bytes of requests that are not yet complete, or not yet taken up, a server holds, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::grpc::status::{Code, Status};

/// What all messages that wait together may take; one message alone may take all of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, held: AtomicUsize::new(0) }
    }

    /// The bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Holds so many bytes for as long as what is returned lives; RESOURCE_EXHAUSTED when that is too much.
    pub fn hold(self: &Arc<Budget>, bytes: usize) -> Result<Hold, Status> {
        let mut hold = Hold::new(self);
        hold.set(bytes);
        hold.check().map(|()| hold)
    }
}

/// The part of a budget that one request holds; it goes back when the request is dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Hold {
    /// Nothing yet.
    pub fn new(budget: &Arc<Budget>) -> Hold {
        Hold { budget: budget.clone(), bytes: 0 }
    }

    /// Nothing yet, of the same budget.
    pub fn another(&self) -> Hold {
        Hold::new(&self.budget)
    }

    /// The most that can be held.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }

    /// Holds so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.budget.held.fetch_add(more, Ordering::Relaxed),
            None => self.budget.held.fetch_sub(before - bytes, Ordering::Relaxed),
        };
    }

    /// Holds so many bytes, if that is more than before.
    pub fn raise(&mut self, bytes: usize) {
        self.set(bytes.max(self.bytes));
    }

    /// RESOURCE_EXHAUSTED when all requests together hold too much for this one to wait.
    pub fn check(&self) -> Result<(), Status> {
        if self.budget.held() <= self.budget.limit {
            return Ok(());
        }
        let message = format!(
            "the server holds more than {} bytes of requests that are not complete or not taken up; try again later",
            self.budget.limit
        );
        Err(Status::new(Code::ResourceExhausted, message))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
    }
}
