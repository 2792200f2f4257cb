//! The memory budget of a server, across all connections and models: for requests until they are answered, and for
//! responses until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::grpc::status::{Code, Status};

/// The total bytes that these messages may take; a single message may take all of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    reserved: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, reserved: AtomicUsize::new(0) }
    }

    /// The number of bytes that are currently reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}

/// The part of a budget that one message has reserved; released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Creates an empty reservation.
    pub fn new(budget: &Arc<Budget>) -> Reservation {
        Reservation { budget: budget.clone(), bytes: 0 }
    }

    /// Creates an empty reservation of the same budget.
    pub fn new_empty(&self) -> Reservation {
        Reservation::new(&self.budget)
    }

    /// The size of the budget.
    pub fn limit(&self) -> usize {
        self.budget.limit
    }

    /// Sets the size of the reservation; does not check the budget.
    pub fn resize(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.budget.reserved.fetch_add(more, Ordering::Relaxed),
            None => self.budget.reserved.fetch_sub(before - bytes, Ordering::Relaxed),
        };
    }

    /// Sets the size of the reservation if that is more than before; does not check the budget.
    pub fn grow_to(&mut self, bytes: usize) {
        self.resize(bytes.max(self.bytes));
    }

    /// Returns RESOURCE_EXHAUSTED if the sum of all reservations exceeds the budget.
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

/// The minimum size of a response that is counted; smaller ones of all open streams of a connection take little memory.
const MIN_ANSWER_LEN: usize = 4 << 10;

/// Counts a response against the budget until it is written to its connection or the connection is closed. It is
/// never rejected, since its request was accepted.
pub fn reserve_until_sent(answer: Bytes, budget: &Arc<Budget>) -> Bytes {
    if answer.len() < MIN_ANSWER_LEN {
        return answer;
    }
    let mut reservation = Reservation::new(budget);
    reservation.resize(answer.len());
    Bytes::from_owner(Unsent { answer, _reservation: reservation })
}

/// The owner of a response's bytes.
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
