//! The memory budget of a server, for all connections and models: it limits the bytes of requests that are not
//! answered, and of responses that are not sent.
//!
//! Each connection has an account of the bytes that wait for its client: incomplete requests and unread responses.
//! While other requests are refused, connections whose clients neither send nor read are closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::grpc::status::{Code, Status};

/// The total bytes that these messages may take; a single message may take all of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    reserved: AtomicUsize,
    /// Number of refused requests.
    refusals: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, reserved: AtomicUsize::new(0), refusals: AtomicUsize::new(0) }
    }

    /// The number of bytes that are currently reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}

/// The bytes that the server holds for one connection, and the bytes transferred over it.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    /// Bytes that wait for the client.
    held: AtomicUsize,
    /// Bytes received and sent since the last sample.
    moved: AtomicUsize,
}

/// A client is stalled if it would need more than this number of sampling intervals for the bytes that wait for it.
const MAX_INTERVALS: usize = 64;

impl Account {
    /// Creates the account of a new connection.
    pub fn new(budget: &Arc<Budget>) -> Arc<Account> {
        Arc::new(Account { budget: budget.clone(), held: AtomicUsize::new(0), moved: AtomicUsize::new(0) })
    }

    /// Records that bytes have been received or sent.
    pub fn add_moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until the client has stalled while other requests were refused; returns the bytes held. Samples the
    /// account at the given interval.
    pub async fn stalled(&self, interval: Duration) -> usize {
        let mut last = self.sample();
        loop {
            sleep(interval).await;
            let now = self.sample();
            if now.is_stalled_since(&last) {
                return now.held;
            }
            last = now;
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            held: self.held.load(Ordering::Relaxed),
            moved: self.moved.swap(0, Ordering::Relaxed),
            refusals: self.budget.refusals.load(Ordering::Relaxed),
        }
    }
}

/// A sample of an account.
struct Sample {
    held: usize,
    /// Since the last sample.
    moved: usize,
    refusals: usize,
}

impl Sample {
    fn is_stalled_since(&self, last: &Sample) -> bool {
        self.refusals != last.refusals && self.moved < self.held.min(last.held).div_ceil(MAX_INTERVALS)
    }
}

/// The part of a budget that is reserved for one message; it is released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    /// The account of the client that the message waits for.
    account: Option<Arc<Account>>,
    bytes: usize,
}

impl Reservation {
    /// Creates an empty reservation.
    pub fn new(budget: &Arc<Budget>) -> Reservation {
        Reservation { budget: budget.clone(), account: None, bytes: 0 }
    }

    /// Creates an empty reservation for a message that waits for a client.
    pub fn waiting(account: &Arc<Account>) -> Reservation {
        Reservation { budget: account.budget.clone(), account: Some(account.clone()), bytes: 0 }
    }

    /// Creates an empty reservation of the same budget, for a message that does not wait for a client.
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
        let held = self.account.as_ref().map(|account| &account.held);
        for counter in std::iter::once(&self.budget.reserved).chain(held) {
            match bytes.checked_sub(before) {
                Some(more) => counter.fetch_add(more, Ordering::Relaxed),
                None => counter.fetch_sub(before - bytes, Ordering::Relaxed),
            };
        }
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
        self.budget.refusals.fetch_add(1, Ordering::Relaxed);
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

/// Counts a response against the budget until it is written to its connection, or the connection is closed. It is never
/// refused, since its request was accepted.
pub fn reserve_until_sent(answer: Bytes, account: &Arc<Account>) -> Bytes {
    if answer.len() < MIN_ANSWER_LEN {
        return answer;
    }
    let mut reservation = Reservation::waiting(account);
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
        let account = Account::new(&budget);
        let mut answer = reserve_until_sent(Bytes::from(vec![7; MIN_ANSWER_LEN + 1]), &account);
        assert_eq!(budget.reserved(), MIN_ANSWER_LEN + 1);
        assert_eq!(Reservation::new(&budget).check().unwrap_err().code, Code::ResourceExhausted);
        let sent = answer.split_to(1000);
        drop(answer);
        assert_eq!((sent[999], budget.reserved()), (7, MIN_ANSWER_LEN + 1));
        drop(sent);
        assert_eq!((budget.reserved(), account.held.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_stalled_client_is_distinguished_from_a_slow_one() {
        // Bytes waiting at the last sample, bytes transferred since, and whether other requests were refused.
        for (before, moved, refused, expected) in [
            (640, 0, true, true),
            (640, 9, true, true),
            (640, 10, true, false),
            (0, 0, true, false),
            (640, 0, false, false),
        ] {
            let account = Account::new(&Arc::new(Budget::new(1000)));
            let (mut waiting, mut other) =
                (Reservation::waiting(&account), Reservation::new(&account.budget));
            waiting.resize(before);
            let last = account.sample();
            waiting.resize(640);
            other.resize(if refused { 640 } else { 0 });
            assert_eq!(other.check().is_err(), refused);
            account.add_moved(moved);
            assert_eq!(account.sample().is_stalled_since(&last), expected, "{before} {moved} {refused}");
        }
    }
}
