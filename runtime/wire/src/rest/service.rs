//! One request: inference is served, and what is not understood is the application's.

use std::sync::Arc;

use http::Request;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::grpc::head::Head;
use crate::grpc::status::Status;
use crate::infer::Infer;
use crate::queue::pending::{Format, InFlight, Route};
use crate::rest::body::{self, Unfit};
use crate::rest::response::{self, JSON_LENGTH};
use crate::rest::target::{Api, Target};
use crate::rest::{Front, Reply, predict_request, raw, request, status};
use crate::rope::Rope;
use crate::server::Shared;
use crate::server::connection::{Error, Peer};
use crate::server::infer::{Arrival, MODEL_INFER, admit};
use crate::server::rates::Client;
use crate::server::worker::Desk;

/// Answers a request; an error is that its client is gone.
pub async fn serve(
    desk: Arc<Desk>,
    front: Arc<Front>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Reply, Error> {
    let (parts, mut body) = request.into_parts();
    let call = match Target::of(&parts)
        .filter(|_| front.inference)
        .map(|target| target.call(&desk, &parts, &peer))
    {
        None => None,
        Some(Ok(call)) => Some(call),
        Some(Err(status)) => {
            let reply = refuse(&desk, &status);
            body::discard(&desk.shared, &parts, &mut body).await;
            return Ok(reply);
        }
    };
    // Whoever answers it in the end, it counts until then.
    let (whole, hold) = match body::receive(&desk.shared, &mut body).await {
        Ok(complete) => complete,
        Err(Unfit::Gone(error)) => return Err(error),
        Err(Unfit::Refused(code, status)) => {
            if let Some(call) = call {
                call.arrival.end(&status);
            }
            let mut reply = refuse(&desk, &status);
            *reply.status_mut() = code;
            body::discard(&desk.shared, &parts, &mut body).await;
            return Ok(reply);
        }
    };
    let Some(call) = call else { return Ok(front.application.answer(parts, (whole, hold), &peer).await) };
    let asked = Asked { call, parts, whole };
    let (Asked { call, parts, whole }, decoded) = asked.decode(&desk).await?;
    let Some((infer, format)) = decoded else {
        return Ok(front.application.answer(parts, (whole, hold), &peer).await);
    };
    desk.shared.metrics.bytes_received.add(whole.len() as u64);
    // Its text is not kept until it is answered, and queues have limits of their own.
    drop((whole, hold));
    Ok(call.answer(&desk, &parts, infer, format).await)
}

/// JSON from this size on is read in a thread of its own: a worker has other connections meanwhile.
const LARGE: usize = 256 << 10;

/// A call of inference, whole.
struct Asked {
    call: Call,
    parts: Parts,
    whole: Rope,
}

impl Asked {
    async fn decode(self, desk: &Arc<Desk>) -> Result<(Asked, Option<(Infer, Format)>), Error> {
        let desk = desk.clone();
        let length = body::only(&self.parts, &JSON_LENGTH).and_then(|length| json(length, self.whole.len()));
        let is_large = length >= Some(LARGE) || self.parts.headers.contains_key(CONTENT_ENCODING);
        let decode = move || {
            let decoded = self.call.decode(&desk.shared, &self.parts, &self.whole);
            (self, decoded)
        };
        Ok(if is_large { spawn_blocking(decode).await? } else { decode() })
    }
}

/// Answers a request that failed before it reached a queue.
fn refuse(desk: &Desk, status: &Status) -> Reply {
    desk.shared.metrics.refused[status.code as usize].add(1);
    status::refuse(status)
}

impl Target {
    /// A call of inference, if the caller may make one.
    fn call(self, desk: &Desk, parts: &Parts, peer: &Arc<Peer>) -> Result<Call, Status> {
        let shared = &desk.shared;
        let arrival =
            Arrival::new(&Head::default(), shared.observer.begin(&parts.headers, peer, MODEL_INFER));
        match shared.tokens.check(&parts.headers) {
            Ok(token) => {
                Ok(Call { target: self, arrival, client: shared.rates.client(token, &parts.headers, peer) })
            }
            Err(status) => {
                arrival.end(&status);
                Err(status)
            }
        }
    }
}

/// A call of inference.
struct Call {
    target: Target,
    arrival: Arrival,
    client: Option<Client>,
}

impl Call {
    /// What its body asks for, and how that is to be answered; None where that is for the application to do.
    fn decode(&self, shared: &Shared, parts: &Parts, body: &Rope) -> Option<(Infer, Format)> {
        let Target { api, model, version } = &self.target;
        if shared.models.is_hosted(model, version) {
            return None;
        }
        let body = body::decompressed(parts, body, shared.config.max_receive_message_length)?;
        let queue = || shared.models.find(model, version).ok();
        match (api, body::only(parts, &JSON_LENGTH)?) {
            (Api::TensorflowServing, _) => {
                let (infer, rows) = predict_request::decode(&body, &queue()?.signature, model, version)?;
                Some((infer, Format::RestPredict { rows }))
            }
            (Api::OpenInference, "0") => {
                let infer = raw::decode(body, &queue()?.signature, model, version)?;
                Some((infer, Format::Rest { binary: true }))
            }
            (Api::OpenInference, length) => {
                let (infer, binary) = request::decode(&body, json(length, body.len())?, model, version)?;
                Some((infer, Format::Rest { binary }))
            }
        }
    }

    /// Answers it as gRPC's calls are.
    async fn answer(self, desk: &Arc<Desk>, parts: &Parts, infer: Infer, format: Format) -> Reply {
        let shared = &desk.shared;
        shared.metrics.calls.add(1);
        if let Err(status) = shared.rates.check(self.client.as_ref()) {
            self.arrival.end(&status);
            return refuse(desk, &status);
        }
        let admitted = match admit(&shared.models, Ok(infer), self.arrival) {
            Ok(admitted) => admitted,
            Err((_, status)) => return refuse(desk, &status),
        };
        let (sender, answer) = oneshot::channel();
        let route = Route::Http(sender, InFlight::new(&desk.mailbox));
        desk.push(admitted.pending(format, None, route));
        desk.ring_soon();
        let answer = answer.await.unwrap_or_else(|_| Err(Status::internal("the request was not answered")));
        match answer {
            Ok(answer) => {
                shared.metrics.bytes_sent.add(answer.len() as u64);
                response::reply(answer, body::accepted(parts))
            }
            Err(status) => status::refuse(&status),
        }
    }
}

/// How many bytes of a body are JSON, given what a header says of that.
fn json(length: &str, all: usize) -> Option<usize> {
    if length.is_empty() {
        return Some(all);
    }
    let is_number = length.bytes().all(|digit| digit.is_ascii_digit());
    length.parse().ok().filter(|&length| is_number && length <= all)
}
