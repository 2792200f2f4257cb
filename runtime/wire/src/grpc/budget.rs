//! The memory budget of a server, over all connections and models: for requests until they are answered, and for
//! answers until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::grpc::status::{Code, Status};

/// The bytes that all these messages together may take; one message alone may take all of it.
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
}

/// The part of a budget that one message has reserved; it is released when this is dropped.
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
            "the server holds more than {} bytes of requests that are not answered, and of answers that are not read; \
             try again later",
            self.budget.limit
        );
        Err(Status::new(Code::ResourceExhausted, message))
    }
}

/// Bytes of an answer from which on they count: of fewer, what one connection may have open is little.
const MIN_ANSWER_LEN: usize = 4 << 10;

/// An answer that counts against the budget until it is written to its connection, or the connection is gone. It is
/// accepted in any case: the request that it answers was.
pub fn reserve_until_sent(answer: Bytes, budget: &Arc<Budget>) -> Bytes {
    if answer.len() < MIN_ANSWER_LEN {
        return answer;
    }
    let mut reservation = Reservation::new(budget);
    reservation.resize(answer.len());
    Bytes::from_owner(Unsent { answer, _reservation: reservation })
}

/// The owner of an answer's bytes.
struct Unsent {
    answer: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_all_of_it_is_sent() {
        let budget = Arc::new(Budget::new(MIN_ANSWER_LEN));
        let mut answer = reserve_until_sent(Bytes::from(vec![7; MIN_ANSWER_LEN + 1]), &budget);
        assert_eq!(budget.reserved(), MIN_ANSWER_LEN + 1);
        assert_eq!(Reservation::new(&budget).check().unwrap_err().code, Code::ResourceExhausted);
        let sent = answer.split_to(1000);
        drop(answer);
        assert_eq!((sent[999], budget.reserved()), (7, MIN_ANSWER_LEN + 1));
        drop(sent);
        assert_eq!(budget.reserved(), 0);
    }
}
