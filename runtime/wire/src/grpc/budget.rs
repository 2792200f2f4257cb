//! How many bytes of requests that are not yet complete a server holds, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::grpc::status::{Code, Status};

/// What all unfinished messages together may take; one message alone may take all of it.
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

    /// The most that can be held.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }

    /// Holds more bytes.
    pub fn take(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Holds fewer bytes.
    pub fn give(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// RESOURCE_EXHAUSTED when all requests together hold too much to wait for the rest of this one.
    pub fn check(&self) -> Result<(), Status> {
        if self.budget.held() <= self.budget.limit {
            return Ok(());
        }
        let message = format!(
            "the server holds more than {} bytes of requests that are not complete; try again later",
            self.budget.limit
        );
        Err(Status::new(Code::ResourceExhausted, message))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}
