//! How often each client may ask: a bucket of tokens per client, filled at a steady rate (GCRA).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use http::HeaderMap;

use crate::grpc::status::{Code, Status};
use crate::server::connection::Peer;
use crate::server::tokens::Hash;

/// Clients that are remembered before those are forgotten that could ask as if for the first time. Twice those that are
/// left, if that is more: a look at all of them is not for every request.
const MANY: usize = 10_000;

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Requests per second.
    pub rate: f64,
    /// Requests that may come at once, after a pause.
    pub burst: u32,
}

impl Limit {
    /// The time for one request.
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Who has this token.
    Token(Hash),
    /// Who calls from this address.
    Address(CompactString),
}

/// What each client has asked.
pub struct Rates {
    limit: Option<Limit>,
    /// Held for one look, and only where there is a limit.
    known: Mutex<Known>,
}

struct Known {
    /// When each client's bucket is full again.
    full: HashMap<Client, Instant>,
    /// How many may be there.
    room: usize,
}

impl Rates {
    /// Holds clients to a limit, if there is one.
    pub fn new(limit: Option<Limit>) -> Rates {
        Rates { limit, known: Mutex::new(Known { full: HashMap::new(), room: MANY }) }
    }

    /// Who is to be held to the limit for a call; None: nobody is.
    pub fn client(&self, token: Option<Hash>, headers: &HeaderMap, peer: &Peer) -> Option<Client> {
        self.limit?;
        if peer.is_served_already(headers) {
            return None;
        }
        let address = || Client::Address(address(peer.caller(headers)).into());
        Some(token.map_or_else(address, Client::Token))
    }

    /// Counts a request, or refuses it and says when there is room for it.
    pub fn check(&self, client: Option<&Client>) -> Result<(), Status> {
        match (self.limit, client) {
            (Some(limit), Some(client)) => self.count(limit, client, Instant::now()),
            _ => Ok(()),
        }
    }

    fn count(&self, limit: Limit, client: &Client, now: Instant) -> Result<(), Status> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { full, room } = &mut *known;
        let from = full.get(client).map_or(now, |&full| full.max(now));
        let early = (from - now).saturating_sub(limit.interval() * (limit.burst - 1));
        if !early.is_zero() {
            let message = format!(
                "a client may send {} requests per second here, {} at once; try again later",
                limit.rate, limit.burst
            );
            let retry_after = Some(early.max(Duration::from_millis(1)));
            return Err(Status { retry_after, ..Status::new(Code::ResourceExhausted, message) });
        }
        if full.len() >= *room {
            full.retain(|_, full| *full > now);
            *room = MANY.max(2 * full.len());
        }
        full.insert(client.clone(), from + limit.interval());
        Ok(())
    }
}

/// A peer without its port.
fn address(peer: &str) -> &str {
    match peer.rsplit_once(':') {
        Some((address, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            address
        }
        _ => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 10.0, burst: 3 };

    fn client(name: &str) -> Client {
        Client::Address(name.into())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let rates = Rates::new(Some(LIMIT));
        let start = Instant::now();
        let ask = |after: u64| rates.count(LIMIT, &client("a"), start + Duration::from_millis(after));
        assert!((0..3).all(|_| ask(0).is_ok()));
        let refused = ask(40).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert_eq!(refused.retry_after, Some(Duration::from_millis(60)));
        assert_eq!(
            refused.message,
            "a client may send 10 requests per second here, 3 at once; try again later"
        );
        assert!(ask(100).is_ok());
        assert!(ask(100).is_err());
        assert!((0..3).all(|_| ask(1000).is_ok()));
        assert!(rates.count(LIMIT, &client("b"), start + Duration::from_millis(100)).is_ok());
    }

    #[test]
    fn those_who_could_ask_as_if_for_the_first_time_are_forgotten() {
        let rates = Rates::new(Some(LIMIT));
        let start = Instant::now();
        for number in 0..MANY {
            rates.count(LIMIT, &client(&number.to_string()), start).unwrap();
        }
        rates.count(LIMIT, &client("later"), start + Duration::from_secs(1)).unwrap();
        assert_eq!(rates.known.lock().unwrap().full.len(), 1);
    }

    /// To look at all of them for each would take minutes.
    #[test]
    fn many_may_ask_whose_buckets_are_not_full() {
        let rates = Rates::new(Some(LIMIT));
        let start = Instant::now();
        for number in 0..20 * MANY {
            rates.count(LIMIT, &client(&number.to_string()), start).unwrap();
        }
        assert_eq!(rates.known.lock().unwrap().full.len(), 20 * MANY);
    }

    #[test]
    fn an_address_has_no_port() {
        for (peer, expected) in
            [("ipv4:10.0.0.1:443", "ipv4:10.0.0.1"), ("ipv6:[::1]:50", "ipv6:[::1]"), ("unix:/a", "unix:/a")]
        {
            assert_eq!(address(peer), expected);
        }
    }
}
