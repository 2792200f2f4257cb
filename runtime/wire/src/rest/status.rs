//! HTTP responses, and the mapping of RPC statuses to HTTP.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use crate::grpc::status::{Code, Status};
use crate::rest::{Reply, text};

/// The HTTP status of each gRPC code (google/rpc/code.proto); all others map to 500.
const CODES: [(Code, u16); 13] = [
    (Code::Cancelled, 499),
    (Code::InvalidArgument, 400),
    (Code::FailedPrecondition, 400),
    (Code::OutOfRange, 400),
    (Code::Unauthenticated, 401),
    (Code::PermissionDenied, 403),
    (Code::NotFound, 404),
    (Code::AlreadyExists, 409),
    (Code::Aborted, 409),
    (Code::ResourceExhausted, 429),
    (Code::Unimplemented, 501),
    (Code::Unavailable, 503),
    (Code::DeadlineExceeded, 504),
];

/// Creates a response with a body of this content type.
pub fn reply(code: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Reply::new(body.into());
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Creates an error response as specified by the Open Inference Protocol.
pub fn error(code: StatusCode, message: &str) -> Reply {
    let mut body = b"{\"error\":".to_vec();
    text::put(&mut body, message);
    body.push(b'}');
    reply(code, "application/json", body.into())
}

/// Converts an RPC status to an error response.
pub fn refuse(status: &Status) -> Reply {
    let code = CODES.iter().find(|(code, _)| *code == status.code).map_or(500, |(_, http)| *http);
    let code = StatusCode::from_u16(code).expect("the table has three digits each");
    let mut reply = error(code, &status.message);
    if let Some(delay) = status.retry_after {
        let seconds = delay.as_secs_f64().round_ties_even().max(1.0) as u64;
        reply.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if status.code == Code::Unauthenticated {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}
