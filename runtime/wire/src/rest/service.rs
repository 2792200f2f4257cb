//! Serves a request: inference natively; other requests, and those that cannot be decoded, are forwarded.

use std::sync::Arc;

use http::Request;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::grpc::budget::Reservation;
use crate::grpc::head::RequestHead;
use crate::grpc::status::Status;
use crate::infer::InferRequest;
use crate::queue::pending::{Format, InFlight, Route};
use crate::rest::body::{self, BodyError};
use crate::rest::response::{self, JSON_LENGTH};
use crate::rest::target::{Api, Target};
use crate::rest::{Frontend, Reply, predict_request, raw, request, status};
use crate::rope::Rope;
use crate::server::Shared;
use crate::server::connection::{Error, Peer};
use crate::server::infer::{MODEL_INFER, RequestContext, admit};
use crate::server::rates::ClientKey;
use crate::server::worker::WorkerContext;

/// Serves a request; an error means that the client is gone.
pub async fn serve(
    worker: Arc<WorkerContext>,
    frontend: Arc<Frontend>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Reply, Error> {
    let (parts, mut body) = request.into_parts();
    let call = match Target::of(&parts)
        .filter(|_| frontend.inference)
        .map(|target| target.call(&worker, &parts, &peer))
    {
        None => None,
        Some(Ok(call)) => Some(call),
        Some(Err(status)) => {
            let reply = refuse(&worker, &status);
            body::discard(&worker.shared, &parts, &mut body).await;
            return Ok(reply);
        }
    };
    let (body, reservation) = match body::receive(&worker.shared, &mut body).await {
        Ok(complete) => complete,
        Err(BodyError::Disconnected(error)) => return Err(error),
        Err(BodyError::Rejected(code, status)) => {
            if let Some(call) = call {
                call.context.end(&status);
            }
            let mut reply = refuse(&worker, &status);
            *reply.status_mut() = code;
            body::discard(&worker.shared, &parts, &mut body).await;
            return Ok(reply);
        }
    };
    let Some(call) = call else {
        return Ok(frontend.application.answer(parts, (body, reservation), &peer).await);
    };
    let buffered = BufferedCall { call, parts, body };
    let (BufferedCall { call, parts, body }, decoded) = buffered.decode(&worker).await?;
    let Some((infer, format)) = decoded else {
        return Ok(frontend.application.answer(parts, (body, reservation), &peer).await);
    };
    worker.shared.metrics.bytes_received.add(body.len() as u64);
    drop(body);
    Ok(call.answer(&worker, &parts, (infer, reservation), format).await)
}

/// JSON of at least this size, like all compressed bodies, is decoded in a blocking thread, so as not to block the
/// worker's other connections.
const BLOCKING_THRESHOLD: usize = 256 << 10;

/// An inference call with its body.
struct BufferedCall {
    call: Call,
    parts: Parts,
    body: Rope,
}

impl BufferedCall {
    async fn decode(
        self,
        worker: &Arc<WorkerContext>,
    ) -> Result<(BufferedCall, Option<(InferRequest, Format)>), Error> {
        let worker = worker.clone();
        let length = body::single_header(&self.parts, &JSON_LENGTH)
            .and_then(|length| json_length(length, self.body.len()));
        let is_large =
            length >= Some(BLOCKING_THRESHOLD) || self.parts.headers.contains_key(CONTENT_ENCODING);
        let decode = move || {
            let decoded = self.call.decode(&worker.shared, &self.parts, &self.body);
            (self, decoded)
        };
        Ok(if is_large { spawn_blocking(decode).await? } else { decode() })
    }
}

/// Converts the error of a request that did not reach a queue to a response, and counts it.
fn refuse(worker: &WorkerContext, status: &Status) -> Reply {
    worker.shared.metrics.refused[status.code as usize].add(1);
    status::refuse(status)
}

impl Target {
    /// Begins an inference call; an error if the caller is not authorized.
    fn call(self, worker: &WorkerContext, parts: &Parts, peer: &Arc<Peer>) -> Result<Call, Status> {
        let shared = &worker.shared;
        let context = RequestContext::new(
            &RequestHead::default(),
            shared.observer.begin(&parts.headers, peer, MODEL_INFER),
        );
        match shared.tokens.check(&parts.headers) {
            Ok(token) => Ok(Call {
                target: self,
                context,
                client: shared.rate_limiter.client(token, &parts.headers, peer),
            }),
            Err(status) => {
                context.end(&status);
                Err(status)
            }
        }
    }
}

/// An inference call.
struct Call {
    target: Target,
    context: RequestContext,
    client: Option<ClientKey>,
}

impl Call {
    /// Decodes the body, and returns the request and the response format; None if the application must serve the call.
    fn decode(&self, shared: &Shared, parts: &Parts, body: &Rope) -> Option<(InferRequest, Format)> {
        let Target { api, model, version } = &self.target;
        if shared.models.is_hosted(model, version) {
            return None;
        }
        let body = body::decompress(parts, body, shared.config.max_receive_message_length)?;
        let queue = || shared.models.find(model, version).ok();
        match (api, body::single_header(parts, &JSON_LENGTH)?) {
            (Api::TensorflowServing, _) => {
                let (infer, rows) = predict_request::decode(&body, &queue()?.signature, model, version)?;
                Some((infer, Format::RestPredict { rows }))
            }
            (Api::OpenInference, "0") => {
                let infer = raw::decode(body, &queue()?.signature, model, version)?;
                Some((infer, Format::Rest { binary: true }))
            }
            (Api::OpenInference, length) => {
                let (infer, binary) =
                    request::decode(&body, json_length(length, body.len())?, model, version)?;
                Some((infer, Format::Rest { binary }))
            }
        }
    }

    /// Serves the call like a gRPC call.
    async fn answer(
        self,
        worker: &Arc<WorkerContext>,
        parts: &Parts,
        (infer, reservation): (InferRequest, Reservation),
        format: Format,
    ) -> Reply {
        let shared = &worker.shared;
        shared.metrics.calls.add(1);
        let allowed = shared.rate_limiter.check(self.client.as_ref()).and_then(|()| reservation.check());
        if let Err(status) = allowed {
            self.context.end(&status);
            return refuse(worker, &status);
        }
        let admitted = match admit(&shared.models, Ok(infer), self.context) {
            Ok(admitted) => admitted,
            Err((_, status)) => return refuse(worker, &status),
        };
        let (sender, answer) = oneshot::channel();
        let route = Route::Http(sender, InFlight::new(&worker.mailbox));
        worker.push(admitted.pending(format, None, route, reservation));
        worker.flush_wakes_soon();
        let answer = answer.await.unwrap_or_else(|_| Err(Status::internal("the request was not answered")));
        match answer {
            Ok(answer) => {
                shared.metrics.bytes_sent.add(answer.len() as u64);
                response::reply(answer, body::accepted_encoding(parts))
            }
            Err(status) => status::refuse(&status),
        }
    }
}

/// Returns the length of the JSON in a body of `all` bytes, given the value of the `JSON_LENGTH` header.
fn json_length(length: &str, all: usize) -> Option<usize> {
    if length.is_empty() {
        return Some(all);
    }
    let is_number = length.bytes().all(|digit| digit.is_ascii_digit());
    length.parse().ok().filter(|&length| is_number && length <= all)
}
