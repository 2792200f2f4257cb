//! Unary calls: one request message, one response message.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::grpc::budget::Reservation;
use crate::grpc::compression::{ACCEPTED, Encoding};
use crate::grpc::frame::Decoder;
use crate::grpc::head::response_headers;
use crate::grpc::status::{Code, Status, code_value};
use crate::rope::Rope;

/// Receives the next piece of a body; releases its flow control window at once, since the message size is limited.
pub async fn next_piece(body: &mut RecvStream) -> Result<Option<Bytes>, Status> {
    match poll_fn(|context| body.poll_data(context)).await {
        None => Ok(None),
        Some(Ok(piece)) => {
            // This fails only for a stream that has ended, which needs no window.
            let _ = body.flow_control().release_capacity(piece.len());
            Ok(Some(piece))
        }
        Some(Err(error)) => {
            Err(Status::new(Code::Cancelled, format!("the client ended the request: {error}")))
        }
    }
}

/// Receives the single message of a unary call; an error if it exceeds the server's memory budget.
pub async fn receive(body: &mut RecvStream, mut decoder: Decoder) -> Result<(Rope, Reservation), Status> {
    let mut message = None;
    while let Some(piece) = next_piece(body).await? {
        decoder.push(piece);
        while let Some(next) = decoder.message()? {
            if message.replace(next).is_some() {
                return Err(cardinality("more than one"));
            }
        }
    }
    if decoder.is_within_message() {
        return Err(Status::internal("the request ends within a message"));
    }
    let (message, reservation) = message.ok_or_else(|| cardinality("none"))?.decode_async().await?;
    reservation.check().map(|()| (message, reservation))
}

/// The status that gRPC's table of status codes specifies for a call without exactly one message.
fn cardinality(got: &str) -> Status {
    Status::new(Code::Unimplemented, format!("expected one request message, got {got}"))
}

/// Sends a complete response or an error status. Errors of a disconnected client are ignored.
pub fn send(respond: &mut SendResponse<Bytes>, encoding: Option<Encoding>, answer: Result<Bytes, Status>) {
    let frame = match answer {
        Ok(frame) => frame,
        Err(status) => return refuse(respond, &status),
    };
    let Ok(mut stream) = respond.send_response(response(encoding), false) else { return };
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", code_value(Code::Ok));
    let _ = stream.send_data(frame, false).and_then(|()| stream.send_trailers(trailers));
}

/// Sends a response that consists of an error status.
pub fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = response(None);
    if status.code == Code::Unimplemented {
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
    }
    status.put(response.headers_mut());
    let _ = respond.send_response(response, true);
}

/// Sends the HTTP status that answers a request that is not gRPC.
pub fn refuse_http(respond: &mut SendResponse<Bytes>, code: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = code;
    if code == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert("allow", HeaderValue::from_static("POST"));
    }
    let _ = respond.send_response(response, true);
}

/// Creates a response with its initial headers.
pub fn response(encoding: Option<Encoding>) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = response_headers(encoding);
    response
}
