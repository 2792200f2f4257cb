//! Request bodies, received as a whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, EXPECT, HeaderName};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::grpc::budget::{Account, Reservation};
use crate::grpc::compression::Encoding;
use crate::grpc::status::{Code, Status};
use crate::rope::Rope;
use crate::server::Shared;
use crate::server::connection::Error;

/// Why a body was not received.
pub enum BodyError {
    /// It is rejected with an HTTP status and a message.
    Rejected(StatusCode, Status),
    /// The client is disconnected or too slow.
    Disconnected(Error),
}

/// Receives a request's body. It counts against the server's budget until the reservation is dropped.
pub async fn receive(
    shared: &Shared,
    account: &Arc<Account>,
    body: &mut Incoming,
) -> Result<(Rope, Reservation), BodyError> {
    let limit = shared.config.max_receive_message_length;
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes, the maximum of this server");
        BodyError::Rejected(StatusCode::PAYLOAD_TOO_LARGE, Status::new(Code::ResourceExhausted, message))
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut reservation = Reservation::waiting(account);
    let mut whole = Rope::default();
    while let Some(piece) =
        next(body, shared.config.handshake_timeout).await.map_err(BodyError::Disconnected)?
    {
        whole.push(piece);
        reservation.resize(whole.weight());
        if whole.len() > limit {
            return Err(too_large());
        }
        if !body.is_end_stream() {
            reservation
                .check()
                .map_err(|status| BodyError::Rejected(StatusCode::TOO_MANY_REQUESTS, status))?;
        }
    }
    let mut complete = reservation.new_empty();
    complete.resize(whole.weight());
    Ok((whole, complete))
}

/// Reads and drops the rest of a body, up to a limit: many clients read a response only after sending the body. One
/// that expects 100-continue (RFC 9110, section 10.1.1) has not sent any.
pub async fn discard(shared: &Shared, parts: &Parts, body: &mut Incoming) {
    let mut left = shared.config.max_receive_message_length;
    while !parts.headers.contains_key(EXPECT)
        && left > 0
        && let Ok(Some(piece)) = next(body, shared.config.handshake_timeout).await
    {
        left = left.saturating_sub(piece.len());
    }
}

/// Receives the next piece, within a time limit; ignores trailers.
async fn next(body: &mut Incoming, within: Duration) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = timeout(within, body.frame()).await? {
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// Decompresses a body; None if its encoding is unknown, or it cannot be decompressed.
pub fn decompress(parts: &Parts, body: &Rope, limit: usize) -> Option<Rope> {
    match single_header(parts, &CONTENT_ENCODING)? {
        "" | "identity" => Some(body.clone()),
        name => Encoding::from_name(name)?.decompress(body, limit).ok(),
    }
}

/// Returns the encoding for the response: one that the client accepts without a weight.
pub fn accepted_encoding(parts: &Parts) -> Option<Encoding> {
    let values = || parts.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let accepts = |encoding: &Encoding| {
        values().any(|value| value.split([',', ' ']).any(|name| name == encoding.name()))
    };
    [Encoding::Gzip, Encoding::Deflate].into_iter().find(accepts)
}

/// Returns the value of a header; empty if absent, None if there are several or it is not text.
pub fn single_header<'a>(parts: &'a Parts, name: &HeaderName) -> Option<&'a str> {
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(""),
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
