//! One message in, one out.

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

/// The next piece of a body; its flow control is given back at once, as the message's size is limited.
pub async fn next_piece(body: &mut RecvStream) -> Result<Option<Bytes>, Status> {
    match poll_fn(|context| body.poll_data(context)).await {
        None => Ok(None),
        Some(Ok(piece)) => {
            // It fails only for a stream that has ended, to which nobody sends any more.
            let _ = body.flow_control().release_capacity(piece.len());
            Ok(Some(piece))
        }
        Some(Err(error)) => {
            Err(Status::new(Code::Cancelled, format!("the client ended the request: {error}")))
        }
    }
}

/// The single message of a unary call, if the server's memory budget has room for it.
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

/// What gRPC's table of codes asks for when a call has not exactly one message.
fn cardinality(got: &str) -> Status {
    Status::new(Code::Unimplemented, format!("expected one request message, got {got}"))
}

/// Sends a whole answer. A client that is gone does not get it, and that is no error.
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

/// Sends nothing but a status.
pub fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = response(None);
    if status.code == Code::Unimplemented {
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
    }
    status.put(response.headers_mut());
    let _ = respond.send_response(response, true);
}

/// Answers what is not gRPC.
pub fn refuse_http(respond: &mut SendResponse<Bytes>, code: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = code;
    if code == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert("allow", HeaderValue::from_static("POST"));
    }
    let _ = respond.send_response(response, true);
}

/// The beginning of an answer.
pub fn response(encoding: Option<Encoding>) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = response_headers(encoding);
    response
}
