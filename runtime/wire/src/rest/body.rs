//! Bodies of requests, whole.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, EXPECT, HeaderName};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::grpc::budget::Hold;
use crate::grpc::compression::Encoding;
use crate::grpc::status::{Code, Status};
use crate::rope::Rope;
use crate::server::Shared;
use crate::server::connection::Error;

/// Why there is no body.
pub enum Unfit {
    /// It is not taken, and this is what HTTP calls it.
    Refused(StatusCode, Status),
    /// The client is gone, or as good as that.
    Gone(Error),
}

/// A request's body. It counts against the budget of the server for as long as what comes with it lives.
pub async fn receive(shared: &Shared, body: &mut Incoming) -> Result<(Rope, Hold), Unfit> {
    let limit = shared.config.max_receive_message_length;
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes, the most that is taken here");
        Unfit::Refused(StatusCode::PAYLOAD_TOO_LARGE, Status::new(Code::ResourceExhausted, message))
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut hold = Hold::new(&shared.budget);
    let mut whole = Rope::default();
    while let Some(piece) = next(body, shared.config.handshake_timeout).await.map_err(Unfit::Gone)? {
        whole.push(piece);
        hold.set(whole.weight());
        if whole.len() > limit {
            return Err(too_large());
        }
        if !body.is_end_stream() {
            hold.check().map_err(|status| Unfit::Refused(StatusCode::TOO_MANY_REQUESTS, status))?;
        }
    }
    Ok((whole, hold))
}

/// Reads what nobody wants, up to a limit: clients listen to an answer only when they have said all. One that asks
/// whether it is to go on (RFC 9110, section 10.1.1) is not kept.
pub async fn discard(shared: &Shared, parts: &Parts, body: &mut Incoming) {
    let mut left = shared.config.max_receive_message_length;
    while !parts.headers.contains_key(EXPECT)
        && left > 0
        && let Ok(Some(piece)) = next(body, shared.config.handshake_timeout).await
    {
        left = left.saturating_sub(piece.len());
    }
}

/// The next piece, for which a client has some time; trailers say nothing.
async fn next(body: &mut Incoming, within: Duration) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = timeout(within, body.frame()).await? {
        if let Ok(piece) = frame?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// What a body says without its compression; None: it is compressed in a way that is not known here, or not well.
pub fn decompressed(parts: &Parts, body: &Rope, limit: usize) -> Option<Rope> {
    match only(parts, &CONTENT_ENCODING)? {
        "" | "identity" => Some(body.clone()),
        name => Encoding::from_name(name)?.decompress(body, limit).ok(),
    }
}

/// How an answer may be compressed, of what the client accepts without a weight.
pub fn accepted(parts: &Parts) -> Option<Encoding> {
    let values = || parts.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let accepts = |encoding: &Encoding| {
        values().any(|value| value.split([',', ' ']).any(|name| name == encoding.name()))
    };
    [Encoding::Gzip, Encoding::Deflate].into_iter().find(accepts)
}

/// The value of a header; empty without one, None where there are several or it is no text.
pub fn only<'a>(parts: &'a Parts, name: &HeaderName) -> Option<&'a str> {
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(""),
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
