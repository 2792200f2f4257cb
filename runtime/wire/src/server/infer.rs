//! From a request's head to whoever serves it; and the unary inference calls, which are served here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};

use crate::grpc::compression::Encoding;
use crate::grpc::head::{Head, Refusal};
use crate::grpc::status::{Code, Status};
use crate::grpc::unary;
use crate::hosted::{self, Hosting};
use crate::infer::{Infer, Parameter};
use crate::models::Models;
use crate::observe::Note;
use crate::oip;
use crate::protobuf::Malformed;
use crate::queue::Queue;
use crate::queue::pending::{Format, InFlight, Pending, Responder, Route};
use crate::rope::Rope;
use crate::server::connection::{Peer, refuse};
use crate::server::rates::Client;
use crate::server::worker::Desk;
use crate::signature::Checked;
use crate::tfs;

/// The unary calls that are served here: path, decoder, and the format of the answer.
const NATIVE: [(&str, Decode, Format); 2] = [
    (MODEL_INFER, oip::request::decode, Format::Oip),
    ("/tensorflow.serving.PredictionService/Predict", tfs::request::decode, Format::TensorflowServing),
];

/// The unary call of the Open Inference Protocol.
pub const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What Python serves and is inference all the same: a call counts as one request of its client.
const COUNTED: [&str; 2] =
    ["/kerve.evaluation.v1.EvaluationService/Evaluate", "/kerve.evaluation.v1.EvaluationService/Compare"];

/// The streaming call that is served here.
pub const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

type Decode = fn(&Rope) -> Result<Infer, Malformed>;

/// Who calls, and what the call's metadata say.
pub struct Caller<'a> {
    /// The metadata.
    pub headers: &'a HeaderMap,
    /// Who is at the other end.
    pub peer: &'a Arc<Peer>,
    /// Whose requests are counted together with those of this call, where they are.
    pub client: Option<Client>,
}

/// How a unary call is served.
struct Unary {
    decode: Decode,
    format: Format,
    /// Whether Python may see to it first.
    may_be_hosted: bool,
}

/// Serves one call, or hands it to Python.
pub async fn serve(
    desk: Arc<Desk>,
    peer: Arc<Peer>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let head = match Head::read(&parts, desk.shared.config.max_metadata_size as usize) {
        Ok(head) => head,
        Err(Refusal::Http(code)) => return unary::refuse_http(&mut respond, code),
        Err(Refusal::Grpc(status)) => return refuse(&desk, &mut respond, &status),
    };
    let path = method(&parts);
    let unary = NATIVE.iter().find(|(native, ..)| *native == path);
    if unary.is_none() && path != STREAM {
        if COUNTED.contains(&path)
            && let Err(status) = desk.shared.count(&parts.headers, &peer)
        {
            return refuse(&desk, &mut respond, &status);
        }
        return host(&desk, parts, head, peer, body, respond, None).await;
    }
    let client = desk.shared.tokens.check(&parts.headers).and_then(|token| {
        let client = desk.shared.rates.client(token, &parts.headers, &peer);
        // Of a stream, the requests in it are counted.
        desk.shared.rates.check(client.as_ref().filter(|_| unary.is_some()))?;
        Ok(client)
    });
    let client = match client {
        Ok(client) => client,
        Err(status) => {
            let method = unary.map_or(STREAM, |(method, ..)| method);
            let note = desk.shared.observer.begin(&parts.headers, &peer, method);
            Arrival::new(&head, note).end(&status);
            return refuse(&desk, &mut respond, &status);
        }
    };
    let Some((method, decode, format)) = unary else {
        let caller = Caller { headers: &parts.headers, peer: &peer, client };
        return oip::stream::serve(&desk, head, caller, body, respond).await;
    };
    let arrival = Arrival::new(&head, desk.shared.observer.begin(&parts.headers, &peer, method));
    let may_be_hosted = !peer.is_served_already(&parts.headers);
    let call = Unary { decode: *decode, format: *format, may_be_hosted };
    let handed_back = unary_infer(&desk, head, arrival, call, body, respond).await;
    if let Some((message, body, respond)) = handed_back {
        host(&desk, parts, head, peer, body, respond, Some(message)).await;
    }
}

/// Hands a call to Python, with the message that has been read from its body, if one has.
async fn host(
    desk: &Arc<Desk>,
    parts: Parts,
    head: Head,
    peer: Arc<Peer>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    first: Option<Rope>,
) {
    let hosting = Hosting {
        host: desk.shared.host.clone(),
        decoder: desk.shared.decoder(&head),
        budget: desk.shared.budget.clone(),
        ending: desk.shared.phase(),
    };
    let method = (method(&parts).to_owned(), parts.headers);
    hosted::serve(hosting, method, head, peer, body, respond, first).await;
}

/// The method that is called: all of the path, as gRPC has no queries.
fn method(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// Serves a unary call; gives it back when its tensors are in shared memory or its model is one that Python sees to.
async fn unary_infer(
    desk: &Arc<Desk>,
    head: Head,
    arrival: Arrival,
    call: Unary,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Option<(Rope, RecvStream, SendResponse<Bytes>)> {
    let config = &desk.shared.config;
    let message = match arrival.in_time(unary::receive(&mut body, desk.shared.decoder(&head))).await {
        Ok(message) => message,
        Err(status) => {
            arrival.end(&status);
            refuse(desk, &mut respond, &status);
            return None;
        }
    };
    desk.shared.metrics.bytes_received.add(message.len() as u64);
    let decoded = (call.decode)(&message);
    if call.may_be_hosted
        && let Ok(infer) = &decoded
        && desk.shared.hosts(infer)
    {
        return Some((message, body, respond));
    }
    match admit(&desk.shared.models, decoded, arrival) {
        Ok(admitted) => {
            let encoding = config.compression.filter(|&encoding| head.accepts(encoding));
            let route = Route::Unary(respond, InFlight::new(&desk.mailbox));
            desk.push(admitted.pending(call.format, encoding, route));
        }
        Err((_, status)) => refuse(desk, &mut respond, &status),
    }
    None
}

/// When a request came, and until when it is wanted.
pub struct Arrival {
    arrived: Instant,
    deadline: Option<Instant>,
    /// What is known of it, where that is noted.
    note: Option<Box<Note>>,
}

impl Arrival {
    /// It comes now.
    pub fn new(head: &Head, note: Option<Box<Note>>) -> Arrival {
        let arrived = Instant::now();
        Arrival { arrived, deadline: head.timeout.and_then(|timeout| arrived.checked_add(timeout)), note }
    }

    /// Until when it is wanted.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Another message of the same call.
    pub fn again(&self, note: Option<Box<Note>>) -> Arrival {
        Arrival { arrived: Instant::now(), deadline: self.deadline, note }
    }

    /// It is refused.
    pub fn end(self, status: &Status) {
        if let Some(note) = self.note {
            note.end(status.code);
        }
    }

    /// Whatever it is, unless the deadline comes first.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Some(deadline) = self.deadline else { return work.await };
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(result) if result.is_err() || Instant::now() < deadline => result,
            // What ends after the deadline is late even where the timer has not said so yet.
            _ => Err(Status::new(
                Code::DeadlineExceeded,
                "the deadline passed before the request was complete",
            )),
        }
    }
}

/// A request that fits its model, on its way into the queue.
pub struct Admitted {
    queue: Arc<Queue>,
    checked: Checked,
    id: CompactString,
    parameters: Vec<(CompactString, Parameter)>,
    arrival: Arrival,
}

/// Finds the queue of a request and holds it against the model's signature.
///
/// An error comes with the request's id, as far as that is known.
pub fn admit(
    models: &Models,
    decoded: Result<Infer, Malformed>,
    mut arrival: Arrival,
) -> Result<Admitted, (CompactString, Status)> {
    let mut infer = match decoded {
        Ok(infer) => infer,
        Err(malformed) => {
            let status = malformed.into();
            arrival.end(&status);
            return Err((CompactString::default(), status));
        }
    };
    if let Some(note) = &mut arrival.note {
        note.asks(&infer);
    }
    let id = std::mem::take(&mut infer.id);
    let parameters = std::mem::take(&mut infer.parameters);
    let checked = models.find(&infer.model, &infer.version).and_then(|queue| {
        let checked = queue.signature.check(infer)?;
        Ok((queue, checked))
    });
    match checked {
        Ok((queue, checked)) => Ok(Admitted { queue, checked, id, parameters, arrival }),
        Err(status) => {
            arrival.end(&status);
            Err((id, status))
        }
    }
}

impl Admitted {
    /// The client's id of the request.
    pub fn id(&self) -> &CompactString {
        &self.id
    }

    /// The request as it waits, and its queue, which will answer it.
    pub fn pending(self, format: Format, encoding: Option<Encoding>, route: Route) -> (Arc<Queue>, Pending) {
        let Admitted { queue, checked, id, parameters, arrival } = self;
        // As in a protobuf map, the last of several entries counts.
        let number = |name: &str| {
            let found = parameters.iter().rev().find(|(key, _)| key == name);
            found.and_then(|(_, value)| value.unsigned()).filter(|&value| value > 0)
        };
        let level = queue.options.level(number("priority").unwrap_or(0));
        let timeout = queue.options.policies[level].timeout(number("timeout").map(Duration::from_micros));
        let batched = queue.signature.batched;
        let key = checked.key(batched);
        let Checked { tensors, rows, requested } = checked;
        let Arrival { arrived, deadline, mut note } = arrival;
        if let Some(note) = &mut note {
            note.version = queue.signature.version.to_compact_string();
            note.rows = rows;
        }
        let expires = timeout.and_then(|timeout| arrived.checked_add(timeout));
        let responder = Responder { format, id, requested, encoding, route, note };
        let pending = Pending {
            tensors,
            rows,
            batched,
            key,
            level,
            counts: true,
            arrived,
            deadline,
            expires,
            parameters,
            responder,
        };
        (queue, pending)
    }
}
