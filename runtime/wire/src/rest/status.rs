//! Answers in HTTP: what they have in common, and how the status of an RPC is mapped to HTTP.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use crate::grpc::status::{Code, Status};
use crate::rest::{Reply, text};

/// gRPC's codes in HTTP (google/rpc/code.proto); all others are 500.
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

/// An answer with a body of this type.
pub fn reply(code: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Reply::new(body);
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// What went wrong, in the form that the clients of the Open Inference Protocol read.
pub fn error(code: StatusCode, message: &str) -> Reply {
    let mut body = b"{\"error\":".to_vec();
    text::put(&mut body, message);
    body.push(b'}');
    reply(code, "application/json", body.into())
}

/// A failure.
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
