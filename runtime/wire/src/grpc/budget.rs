//! The memory budget of a server for requests that are incomplete or wait for Python, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::grpc::status::{Code, Status};

/// The bytes that all such messages together may take; one message alone may take all of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    reserved: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, reserved: AtomicUsize::new(0) }
    }

    /// The bytes that are reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Reserves so many bytes; RESOURCE_EXHAUSTED when that exceeds the budget.
    pub fn reserve(self: &Arc<Budget>, bytes: usize) -> Result<Reservation, Status> {
        let mut reservation = Reservation::new(self);
        reservation.resize(bytes);
        reservation.check().map(|()| reservation)
    }
}

/// The part of a budget that one request has reserved; it is released when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// An empty reservation.
    pub fn new(budget: &Arc<Budget>) -> Reservation {
        Reservation { budget: budget.clone(), bytes: 0 }
    }

    /// An empty reservation of the same budget.
    pub fn new_empty(&self) -> Reservation {
        Reservation::new(&self.budget)
    }

    /// The size of the budget.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }

    /// Changes the reservation to so many bytes; does not check the budget.
    pub fn resize(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.budget.reserved.fetch_add(more, Ordering::Relaxed),
            None => self.budget.reserved.fetch_sub(before - bytes, Ordering::Relaxed),
        };
    }

    /// Changes the reservation to so many bytes, if that is more than before.
    pub fn grow_to(&mut self, bytes: usize) {
        self.resize(bytes.max(self.bytes));
    }

    /// RESOURCE_EXHAUSTED when all reservations together exceed the budget.
    pub fn check(&self) -> Result<(), Status> {
        if self.budget.reserved() <= self.budget.limit {
            return Ok(());
        }
        let message = format!(
            "the server holds more than {} bytes of requests that are not complete or not taken up; try again later",
            self.budget.limit
        );
        Err(Status::new(Code::ResourceExhausted, message))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}
