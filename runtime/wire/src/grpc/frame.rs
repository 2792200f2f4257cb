//! Length-prefixed messages: a compressed flag of one byte, four bytes of length, the message.

use bytes::Bytes;

use crate::grpc::budget::Reservation;
use crate::grpc::compression::Encoding;
use crate::grpc::message::IncomingMessage;
use crate::grpc::status::{Code, Status};
use crate::rope::Rope;

/// The number of bytes before each message.
pub const PREFIX: usize = 5;

/// The maximum size of a protobuf message, and of what clients receive.
const MAX_MESSAGE_LEN: usize = i32::MAX as usize;

/// Decodes messages from the pieces of a request's body.
#[derive(Debug)]
pub struct Decoder {
    buffered: Rope,
    /// The prefix that has been read of the next message: whether it is compressed, and its length.
    prefix: Option<(bool, usize)>,
    encoding: Option<Encoding>,
    limit: usize,
    /// The reservation of `buffered` in the server's memory budget.
    reservation: Reservation,
}

impl Decoder {
    /// Creates a decoder of messages in the request's encoding, each of `limit` bytes at most. `reservation`: an empty
    /// one, for the bytes of incomplete messages.
    pub fn new(encoding: Option<Encoding>, limit: usize, reservation: Reservation) -> Decoder {
        Decoder {
            buffered: Rope::default(),
            prefix: None,
            encoding,
            limit: limit.min(reservation.limit()),
            reservation,
        }
    }

    /// Appends the next piece of the body.
    pub fn push(&mut self, piece: Bytes) {
        self.buffered.push(piece);
        self.reservation.resize(self.buffered.weight());
    }

    /// Whether an incomplete message is buffered.
    pub fn is_within_message(&self) -> bool {
        self.prefix.is_some() || !self.buffered.is_empty()
    }

    /// Returns the next complete message, still compressed; None if there is none yet.
    pub fn message(&mut self) -> Result<Option<IncomingMessage>, Status> {
        let (compressed, len) = match self.prefix {
            Some(prefix) => prefix,
            None if self.buffered.len() < PREFIX => return Ok(None),
            None => self.read_prefix()?,
        };
        self.prefix = Some((compressed, len));
        if self.buffered.len() < len {
            self.reservation.check()?;
            return Ok(None);
        }
        self.prefix = None;
        let message = if self.buffered.len() == len {
            std::mem::take(&mut self.buffered)
        } else {
            let message = self.buffered.slice(0, len);
            self.buffered = self.buffered.slice(len, self.buffered.len() - len);
            message
        };
        self.reservation.resize(self.buffered.weight());
        let compression = self.encoding.filter(|_| compressed).map(|encoding| (encoding, self.limit));
        Ok(Some(IncomingMessage::new(message, compression, self.reservation.new_empty())))
    }

    fn read_prefix(&mut self) -> Result<(bool, usize), Status> {
        let mut prefix = [0; PREFIX];
        self.buffered.slice(0, PREFIX).copy_to(&mut prefix);
        self.buffered = self.buffered.slice(PREFIX, self.buffered.len() - PREFIX);
        self.reservation.resize(self.buffered.weight());
        let [flag, length @ ..] = prefix;
        let len = u32::from_be_bytes(length) as usize;
        if len > self.limit {
            let message = format!("Received message larger than max ({len} vs. {})", self.limit);
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        match flag {
            0 => Ok((false, len)),
            1 if self.encoding.is_some() => Ok((true, len)),
            1 => Err(Status::internal("a message is compressed, but the request has no grpc-encoding")),
            _ => Err(Status::internal(format!("a message begins with {flag}; expected 0 or 1 (compressed)"))),
        }
    }
}

/// Returns a message with space for its prefix, or an error if it exceeds the maximum size.
pub fn check(framed: Vec<u8>) -> Result<Vec<u8>, Status> {
    match framed.len() - PREFIX {
        ..=MAX_MESSAGE_LEN => Ok(framed),
        got => Err(Status::new(
            Code::ResourceExhausted,
            format!(
                "the response is too large: expected at most {MAX_MESSAGE_LEN} bytes, got {got}; request fewer rows or outputs at a time"
            ),
        )),
    }
}

/// Fills in the prefix of a message; compresses the message if an encoding is given and makes it smaller.
pub fn encode(mut framed: Vec<u8>, encoding: Option<Encoding>) -> Bytes {
    if let Some(compressed) = encoding.and_then(|encoding| encoding.compress(&framed[PREFIX..])) {
        framed.truncate(PREFIX);
        framed.extend_from_slice(&compressed);
        framed[0] = 1;
    }
    let len = (framed.len() - PREFIX) as u32;
    framed[1..PREFIX].copy_from_slice(&len.to_be_bytes());
    framed.into()
}

/// Creates a vector that holds an unset prefix, with capacity for a message; `encode` fills in the prefix.
pub fn begin(capacity: usize) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + capacity);
    framed.resize(PREFIX, 0);
    framed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::grpc::budget::Budget;

    fn next(decoder: &mut Decoder) -> Result<Option<Rope>, Status> {
        let decoded = decoder.message()?.map(IncomingMessage::decode).transpose()?;
        Ok(decoded.map(|(message, _)| message))
    }

    fn decoder(encoding: Option<Encoding>, limit: usize) -> Decoder {
        Decoder::new(encoding, limit, Reservation::new(&Arc::new(Budget::new(1 << 20))))
    }

    #[test]
    fn what_is_not_complete_is_held_against_the_budget() {
        let budget = Arc::new(Budget::new(200));
        let piece = |len: usize| Bytes::from([&[0, 0, 0, 0, 190][..], &vec![7; len]].concat());
        let decoder = || Decoder::new(None, 1000, Reservation::new(&budget));
        let (mut first, mut second) = (decoder(), decoder());
        first.push(piece(120));
        assert!(next(&mut first).unwrap().is_none());
        second.push(piece(120));
        assert_eq!(next(&mut second).unwrap_err().code, Code::ResourceExhausted);
        drop(second);
        assert_eq!(budget.reserved(), 120);
        first.push(Bytes::from(vec![7; 140]));
        assert_eq!(next(&mut first).unwrap().unwrap().len(), 190);
        assert_eq!(budget.reserved(), 70);
        drop(first);
        assert_eq!(budget.reserved(), 0);
        let mut large = decoder();
        large.push(Bytes::from_static(&[0, 0, 0, 0, 201]));
        assert_eq!(next(&mut large).unwrap_err().code, Code::ResourceExhausted);
    }

    #[test]
    fn small_pieces_are_no_way_around_the_budget() {
        let budget = Arc::new(Budget::new(100_000));
        let mut decoder = Decoder::new(None, 1 << 20, Reservation::new(&budget));
        decoder.push(Bytes::from_static(&[0, 0, 1, 0, 0]));
        let refused = (0..10_000).find_map(|_| {
            decoder.push(Bytes::from_static(b"x"));
            next(&mut decoder).err()
        });
        assert_eq!(refused.unwrap().code, Code::ResourceExhausted);
    }

    #[test]
    fn messages_come_out_of_any_split() {
        let mut body = Vec::new();
        for message in [&b"one"[..], b"", b"three"] {
            let mut framed = begin(0);
            framed.extend_from_slice(message);
            body.extend_from_slice(&encode(framed, None));
        }
        for size in 1..=body.len() {
            let mut decoder = decoder(None, 100);
            let mut messages = Vec::new();
            for chunk in body.chunks(size) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = next(&mut decoder).unwrap() {
                    messages.push(message.into_bytes());
                }
            }
            assert_eq!(messages, [&b"one"[..], b"", b"three"]);
            assert!(!decoder.is_within_message());
        }
    }

    #[test]
    fn compressed_messages_come_back() {
        let message = b"again and ".repeat(1000);
        let mut framed = begin(message.len());
        framed.extend_from_slice(&message);
        let body = encode(framed, Some(Encoding::Gzip));
        assert!(body.len() < 200);
        let mut decoder = decoder(Some(Encoding::Gzip), message.len());
        decoder.push(body);
        assert_eq!(next(&mut decoder).unwrap().unwrap().into_bytes(), message);
    }

    #[test]
    fn what_no_prefix_can_tell_of_is_no_message() {
        assert!(check(vec![0; PREFIX + MAX_MESSAGE_LEN]).is_ok());
        let refused = check(vec![0; PREFIX + MAX_MESSAGE_LEN + 1]).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(refused.message.contains("at most 2147483647 bytes, got 2147483648"), "{}", refused.message);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        let refuse = |prefix: [u8; 5]| {
            let mut decoder = decoder(None, 100);
            decoder.push(Bytes::copy_from_slice(&prefix));
            next(&mut decoder).unwrap_err().code
        };
        assert_eq!(refuse([0, 0, 0, 0, 101]), Code::ResourceExhausted);
        assert_eq!(refuse([1, 0, 0, 0, 1]), Code::Internal);
        assert_eq!(refuse([2, 0, 0, 0, 1]), Code::Internal);
    }
}
