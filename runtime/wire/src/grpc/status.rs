//! The status of an RPC: codes, messages, and their encoding in HTTP trailers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue};

use crate::protobuf::{Malformed, put_bytes, put_integer};

/// The status codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are gRPC's")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// All codes, in order of their number.
pub const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// The error status of an RPC.
#[derive(Clone, Debug)]
pub struct Status {
    /// The status code; never Ok.
    pub code: Code,
    /// The message for people.
    pub message: String,
    /// The delay after which a retry may succeed; sent as google.rpc.RetryInfo.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// Creates a status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), retry_after: None }
    }

    /// Creates an INVALID_ARGUMENT status.
    pub fn invalid(message: impl Into<String>) -> Status {
        Status::new(Code::InvalidArgument, message)
    }

    /// Creates an INTERNAL status.
    pub fn internal(message: impl Into<String>) -> Status {
        Status::new(Code::Internal, message)
    }

    /// Creates the UNAVAILABLE status of a server that is shutting down.
    pub fn shutting_down() -> Status {
        let message = "the server is shutting down; try another server, or again later";
        Status::new(Code::Unavailable, message)
    }

    /// Writes the status to trailers.
    pub fn put(&self, trailers: &mut HeaderMap) {
        put_status(trailers, self.code, &self.message);
        if let Some(delay) = self.retry_after {
            trailers.insert("grpc-status-details-bin", binary(&self.details(delay)));
        }
    }

    /// Encodes google.rpc.Status with one google.rpc.RetryInfo.
    fn details(&self, delay: Duration) -> Vec<u8> {
        let mut duration = Vec::new();
        put_integer(&mut duration, 1, delay.as_secs());
        put_integer(&mut duration, 2, u64::from(delay.subsec_nanos()));
        let mut retry = Vec::new();
        put_bytes(&mut retry, 1, &duration);
        let mut any = Vec::new();
        put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes(&mut any, 2, &retry);
        let mut status = Vec::new();
        put_integer(&mut status, 1, self.code as u64);
        put_bytes(&mut status, 2, self.message.as_bytes());
        put_bytes(&mut status, 3, &any);
        status
    }
}

impl From<Malformed> for Status {
    /// Converts to INTERNAL, which gRPC's table of status codes specifies for requests that cannot be parsed.
    fn from(error: Malformed) -> Status {
        Status::internal(format!("the request is not a valid protobuf message: {error}"))
    }
}

/// Writes a code and a message to trailers.
pub fn put_status(trailers: &mut HeaderMap, code: Code, message: &str) {
    trailers.insert("grpc-status", code_value(code));
    if !message.is_empty() {
        trailers.insert("grpc-message", percent_encode(message));
    }
}

/// Returns a code as a header value.
pub fn code_value(code: Code) -> HeaderValue {
    const VALUES: [&str; 17] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
    HeaderValue::from_static(VALUES[code as usize])
}

/// Returns bytes as the value of a `-bin` header.
pub fn binary(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD_NO_PAD.encode(bytes)).expect("base64 is a valid header value")
}

/// The maximum bytes of a message that are sent; clients limit trailers to 8 or 16 KiB.
const MESSAGE_LIMIT: usize = 2048;

/// Encodes a message for `grpc-message`: all bytes outside printable ASCII, and %, are percent-encoded.
fn percent_encode(message: &str) -> HeaderValue {
    let end =
        (0..=MESSAGE_LIMIT.min(message.len())).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
    let more = if end < message.len() { "..." } else { "" };
    let mut encoded = Vec::with_capacity(end + more.len());
    for byte in message[..end].bytes().chain(more.bytes()) {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    HeaderValue::try_from(encoded).expect("percent-encoded text is a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_at_their_number() {
        CODES.iter().enumerate().for_each(|(number, code)| assert_eq!(*code as usize, number));
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("50% of 'é'\n"), "50%25 of '%C3%A9'%0A");
    }

    #[test]
    fn long_messages_are_cut() {
        let long = "x".to_owned() + &"é".repeat(MESSAGE_LIMIT);
        let encoded = percent_encode(&long);
        assert!(encoded.as_bytes().ends_with(b"%C3%A9..."));
        assert!(encoded.len() < 3 * MESSAGE_LIMIT + 4);
    }
}
