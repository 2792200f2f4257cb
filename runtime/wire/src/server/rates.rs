//! Rate limiting: a token bucket for each client, refilled at a steady rate (GCRA).

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use compact_str::{CompactString, format_compact};
use http::HeaderMap;

use crate::grpc::status::{Code, Status};
use crate::server::connection::Peer;
use crate::server::tokens::Hash;

/// The minimum number of buckets at which full ones are removed. The number is twice that of the remaining buckets if
/// that is more, so that the cost of a removal is amortized.
const MIN_CAPACITY: usize = 10_000;

/// A rate limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Requests per second.
    pub rate: f64,
    /// The maximum number of requests at once, after a pause.
    pub burst: u32,
}

impl Limit {
    /// The time per request.
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}

/// The identity of a client, whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// The holder of this token.
    Token(Hash),
    /// The callers from this address or network.
    Address(CompactString),
}

/// Limits the rate of each client's requests.
pub struct RateLimiter {
    limit: Option<Limit>,
    /// Locked for one lookup, and only if there is a limit.
    buckets: Mutex<Buckets>,
}

struct Buckets {
    /// The time at which each client's bucket is full again.
    full_at: HashMap<ClientKey, Instant>,
    /// The number of buckets at which full ones are removed.
    capacity: usize,
}

impl RateLimiter {
    /// Creates a limiter; without a limit, it never rejects.
    pub fn new(limit: Option<Limit>) -> RateLimiter {
        RateLimiter {
            limit,
            buckets: Mutex::new(Buckets { full_at: HashMap::new(), capacity: MIN_CAPACITY }),
        }
    }

    /// Returns the client of a call; None if the limit does not apply.
    pub fn client(&self, token: Option<Hash>, headers: &HeaderMap, peer: &Peer) -> Option<ClientKey> {
        self.limit?;
        if peer.is_forwarded(headers) {
            return None;
        }
        let address = || ClientKey::Address(network(peer.caller(headers)));
        Some(token.map_or_else(address, ClientKey::Token))
    }

    /// Counts a request; RESOURCE_EXHAUSTED, with a retry delay, if the bucket is empty.
    pub fn check(&self, client: Option<&ClientKey>) -> Result<(), Status> {
        match (self.limit, client) {
            (Some(limit), Some(client)) => self.count(limit, client, Instant::now()),
            _ => Ok(()),
        }
    }

    fn count(&self, limit: Limit, client: &ClientKey, now: Instant) -> Result<(), Status> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { full_at, capacity } = &mut *buckets;
        let from = full_at.get(client).map_or(now, |&full_at| full_at.max(now));
        let early = (from - now).saturating_sub(limit.interval() * (limit.burst - 1));
        if !early.is_zero() {
            let message = format!(
                "a client may send {} requests per second here, {} at once; try again later",
                limit.rate, limit.burst
            );
            let retry_after = Some(early.max(Duration::from_millis(1)));
            return Err(Status { retry_after, ..Status::new(Code::ResourceExhausted, message) });
        }
        if full_at.len() >= *capacity {
            full_at.retain(|_, full_at| *full_at > now);
            *capacity = MIN_CAPACITY.max(2 * full_at.len());
        }
        full_at.insert(client.clone(), from + limit.interval());
        Ok(())
    }
}

/// Returns the IPv4 address or the IPv6 /64 network of a peer: subscribers are given at least a /64 and may call from
/// each of its addresses.
fn network(peer: &str) -> CompactString {
    let address = address(peer);
    let Some(ip) = ipv6(address) else { return address.into() };
    match ip.to_ipv4_mapped() {
        Some(ip) => format_compact!("ipv4:{ip}"),
        None => format_compact!("ipv6:{}/64", Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

/// Parses the address of an IPv6 peer, without its zone; the brackets may be percent-encoded.
fn ipv6(address: &str) -> Option<Ipv6Addr> {
    let bracketed = address.strip_prefix("ipv6:")?;
    let inner = bracketed.strip_prefix("%5B").or_else(|| bracketed.strip_prefix('['))?;
    inner.split(['%', ']']).next()?.parse().ok()
}

/// Returns a peer without its port.
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

    fn client(name: &str) -> ClientKey {
        ClientKey::Address(name.into())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let rates = RateLimiter::new(Some(LIMIT));
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
        let rates = RateLimiter::new(Some(LIMIT));
        let start = Instant::now();
        for number in 0..MIN_CAPACITY {
            rates.count(LIMIT, &client(&number.to_string()), start).unwrap();
        }
        rates.count(LIMIT, &client("later"), start + Duration::from_secs(1)).unwrap();
        assert_eq!(rates.buckets.lock().unwrap().full_at.len(), 1);
    }

    /// Scanning all buckets for each request would take minutes.
    #[test]
    fn many_may_ask_whose_buckets_are_not_full() {
        let rates = RateLimiter::new(Some(LIMIT));
        let start = Instant::now();
        for number in 0..20 * MIN_CAPACITY {
            rates.count(LIMIT, &client(&number.to_string()), start).unwrap();
        }
        assert_eq!(rates.buckets.lock().unwrap().full_at.len(), 20 * MIN_CAPACITY);
    }

    #[test]
    fn an_address_counts_without_its_port_and_an_ipv6_network_as_one() {
        for (peer, expected) in [
            ("ipv4:10.0.0.1:443", "ipv4:10.0.0.1"),
            ("unix:/a", "unix:/a"),
            ("ipv6:%5B::1%5D:50", "ipv6:::/64"),
            ("ipv6:[2001:db8:1:2:3:4:5:6]:50", "ipv6:2001:db8:1:2::/64"),
            ("ipv6:[2001:db8:1:2::9]", "ipv6:2001:db8:1:2::/64"),
            ("ipv6:%5Bfe80::1%25eth0%5D:50", "ipv6:fe80::/64"),
            ("ipv6:[::ffff:10.0.0.1]:50", "ipv4:10.0.0.1"),
            ("ipv6:[what]:50", "ipv6:[what]"),
        ] {
            assert_eq!(network(peer), expected);
        }
    }
}
