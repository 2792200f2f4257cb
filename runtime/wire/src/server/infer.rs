//! Routes calls by their method, and serves unary inference calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};

use crate::grpc::budget::{Account, Reservation};
use crate::grpc::compression::Encoding;
use crate::grpc::head::{Refusal, RequestHead};
use crate::grpc::status::{Code, Status};
use crate::grpc::unary;
use crate::hosted::{self, CallContext};
use crate::infer::{InferRequest, Parameter};
use crate::models::Models;
use crate::observe::Observation;
use crate::oip;
use crate::protobuf::Malformed;
use crate::queue::Queue;
use crate::queue::delivery::{InFlight, Route};
use crate::queue::pending::{Format, Pending, Responder};
use crate::rope::Rope;
use crate::server::connection::{Peer, refuse};
use crate::server::rates::ClientKey;
use crate::server::worker::WorkerContext;
use crate::signature::ValidRequest;
use crate::tfs;

/// The unary calls that are served natively: path, decoder, and response format.
const NATIVE_METHODS: [(&str, Decode, Format); 2] = [
    (MODEL_INFER, oip::request::decode, Format::Oip),
    ("/tensorflow.serving.PredictionService/Predict", tfs::request::decode, Format::TensorflowServing),
];

/// The unary inference call of the Open Inference Protocol.
pub const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Methods served in Python that count against the rate limit, each call as one request.
const RATE_LIMITED: [&str; 2] =
    ["/kerve.evaluation.v1.EvaluationService/Evaluate", "/kerve.evaluation.v1.EvaluationService/Compare"];

/// The streaming call that is served natively.
pub const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

type Decode = fn(&Rope) -> Result<InferRequest, Malformed>;

/// The caller of a stream, and its metadata.
pub struct Caller<'a> {
    /// The metadata.
    pub headers: &'a HeaderMap,
    /// The client of the connection.
    pub peer: &'a Arc<Peer>,
    /// The client whose rate limit applies; None if no limit applies.
    pub client: Option<ClientKey>,
}

/// How a unary call is served.
struct UnaryMethod<'a> {
    decode: Decode,
    format: Format,
    /// Whether a servicer in Python may serve it.
    may_be_hosted: bool,
    /// The account of its connection.
    account: &'a Arc<Account>,
}

/// Serves a call, or passes it to Python.
pub async fn serve(
    worker: Arc<WorkerContext>,
    peer: Arc<Peer>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let head = match RequestHead::read(&parts, worker.shared.config.max_metadata_size as usize) {
        Ok(head) => head,
        Err(Refusal::Http(code)) => return unary::refuse_http(&mut respond, code),
        Err(Refusal::Grpc(status)) => return refuse(&worker, &mut respond, &status),
    };
    let path = method(&parts);
    let unary = NATIVE_METHODS.iter().find(|(native, ..)| *native == path);
    if unary.is_none() && path != STREAM {
        if RATE_LIMITED.contains(&path)
            && let Err(status) = worker.shared.count(&parts.headers, &peer)
        {
            return refuse(&worker, &mut respond, &status);
        }
        return host(&worker, parts, head, peer, body, respond, None).await;
    }
    let client = worker.shared.tokens.check(&parts.headers).and_then(|token| {
        let client = worker.shared.rate_limiter.client(token, &parts.headers, &peer);
        // For a stream, its requests are counted individually.
        worker.shared.rate_limiter.check(client.as_ref().filter(|_| unary.is_some()))?;
        Ok(client)
    });
    let client = match client {
        Ok(client) => client,
        Err(status) => {
            let method = unary.map_or(STREAM, |(method, ..)| method);
            let observation = worker.shared.observer.begin(&parts.headers, &peer, method);
            RequestContext::new(&head, observation).end(&status);
            return refuse(&worker, &mut respond, &status);
        }
    };
    let Some((method, decode, format)) = unary else {
        let caller = Caller { headers: &parts.headers, peer: &peer, client };
        return oip::stream::serve(&worker, head, caller, body, respond).await;
    };
    let context = RequestContext::new(&head, worker.shared.observer.begin(&parts.headers, &peer, method));
    let may_be_hosted = !peer.is_forwarded(&parts.headers);
    let call = UnaryMethod { decode: *decode, format: *format, may_be_hosted, account: &peer.account };
    let handed_back = unary_infer(&worker, head, context, call, body, respond).await;
    if let Some((message, body, respond)) = handed_back {
        host(&worker, parts, head, peer, body, respond, Some(message)).await;
    }
}

/// Passes a call to Python; `first` is a message that has already been read from its body.
async fn host(
    worker: &Arc<WorkerContext>,
    parts: Parts,
    head: RequestHead,
    peer: Arc<Peer>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    first: Option<Rope>,
) {
    let context = CallContext {
        events: worker.shared.events.clone(),
        decoder: worker.shared.decoder(&head, &peer.account),
        budget: worker.shared.budget.clone(),
        phase: worker.shared.phase(),
    };
    let method = (method(&parts).to_owned(), parts.headers);
    hosted::serve(context, method, head, peer, body, respond, first).await;
}

/// Returns the method of a call: the whole path, since gRPC has no queries.
fn method(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// Serves a unary call; returns it if it must be served in Python.
async fn unary_infer(
    worker: &Arc<WorkerContext>,
    head: RequestHead,
    context: RequestContext,
    call: UnaryMethod<'_>,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Option<(Rope, RecvStream, SendResponse<Bytes>)> {
    let config = &worker.shared.config;
    let decoder = worker.shared.decoder(&head, call.account);
    let received = context.within_deadline(unary::receive(&mut body, decoder)).await;
    let (message, reservation) = match received {
        Ok(received) => received,
        Err(status) => {
            context.end(&status);
            refuse(worker, &mut respond, &status);
            return None;
        }
    };
    worker.shared.metrics.bytes_received.add(message.len() as u64);
    let decoded = (call.decode)(&message);
    if call.may_be_hosted
        && let Ok(infer) = &decoded
        && worker.shared.hosts(infer)
    {
        return Some((message, body, respond));
    }
    match admit(&worker.shared.models, decoded, context) {
        Ok(admitted) => {
            let encoding = config.compression.filter(|&encoding| head.accepts(encoding));
            let route = Route::Unary(respond, InFlight::new(&worker.mailbox, call.account));
            worker.push(admitted.pending(call.format, encoding, route, reservation));
        }
        Err((_, status)) => refuse(worker, &mut respond, &status),
    }
    None
}

/// The arrival time, deadline and observation of a request.
pub struct RequestContext {
    arrived: Instant,
    deadline: Option<Instant>,
    /// The record of the request, if it is observed.
    observation: Option<Box<Observation>>,
}

impl RequestContext {
    /// Creates the context of a request that arrives now.
    pub fn new(head: &RequestHead, observation: Option<Box<Observation>>) -> RequestContext {
        let arrived = Instant::now();
        RequestContext {
            arrived,
            deadline: head.timeout.and_then(|timeout| arrived.checked_add(timeout)),
            observation,
        }
    }

    /// The client's deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Creates the context of another message of the same call, which arrives now.
    pub fn next_message(&self, observation: Option<Box<Observation>>) -> RequestContext {
        RequestContext { arrived: Instant::now(), deadline: self.deadline, observation }
    }

    /// Ends the observation of a request that is rejected.
    pub fn end(self, status: &Status) {
        if let Some(observation) = self.observation {
            observation.end(status.code);
        }
    }

    /// Awaits a future; DEADLINE_EXCEEDED if the deadline passes first.
    pub async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let Some(deadline) = self.deadline else { return work.await };
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(result) if result.is_err() || Instant::now() < deadline => result,
            // The timer may fire late; work that completes after the deadline has exceeded it.
            _ => {
                Err(Status::new(Code::DeadlineExceeded, "Deadline Exceeded before the request was complete"))
            }
        }
    }
}

/// A validated request that is to be pushed to its queue.
pub struct Admitted {
    queue: Arc<Queue>,
    checked: ValidRequest,
    id: CompactString,
    parameters: Vec<(CompactString, Parameter)>,
    context: RequestContext,
}

/// Finds the queue of a request and validates it against the model's signature.
///
/// An error includes the request's id, if it is known.
pub fn admit(
    models: &Models,
    decoded: Result<InferRequest, Malformed>,
    mut context: RequestContext,
) -> Result<Admitted, (CompactString, Status)> {
    let mut infer = match decoded {
        Ok(infer) => infer,
        Err(malformed) => {
            let status = malformed.into();
            context.end(&status);
            return Err((CompactString::default(), status));
        }
    };
    if let Some(observation) = &mut context.observation {
        observation.set_request(&infer);
    }
    let id = std::mem::take(&mut infer.id);
    let parameters = std::mem::take(&mut infer.parameters);
    let checked = models.find(&infer.model, &infer.version).and_then(|queue| {
        let checked = queue.signature.check(infer)?;
        Ok((queue, checked))
    });
    match checked {
        Ok((queue, checked)) => Ok(Admitted { queue, checked, id, parameters, context }),
        Err(status) => {
            context.end(&status);
            Err((id, status))
        }
    }
}

impl Admitted {
    /// The client's id of the request.
    pub fn id(&self) -> &CompactString {
        &self.id
    }

    /// Returns the queue, and the request to push to it; `reservation` is that of the received message.
    pub fn pending(
        self,
        format: Format,
        encoding: Option<Encoding>,
        route: Route,
        mut reservation: Reservation,
    ) -> (Arc<Queue>, Pending) {
        let Admitted { queue, checked, id, parameters, context } = self;
        // As in a protobuf map, the last of several entries wins.
        let number = |name: &str| {
            let found = parameters.iter().rev().find(|(key, _)| key == name);
            found.and_then(|(_, value)| value.unsigned()).filter(|&value| value > 0)
        };
        let level = queue.options.level(number("priority").unwrap_or(0));
        let timeout = queue.options.policies[level].timeout(number("timeout").map(Duration::from_micros));
        let batched = queue.signature.batched;
        let key = checked.key(batched);
        let ValidRequest { tensors, rows, requested } = checked;
        let RequestContext { arrived, deadline, mut observation } = context;
        if let Some(observation) = &mut observation {
            observation.version = queue.signature.version.to_compact_string();
            observation.rows = rows;
        }
        let expires = timeout.and_then(|timeout| arrived.checked_add(timeout));
        let responder = Responder { format, id, requested, encoding, route, observation };
        // JSON may be smaller than the tensors that it encodes.
        reservation.grow_to(tensors.iter().flatten().map(|tensor| tensor.data.len()).sum());
        let pending = Pending {
            tensors,
            rows,
            batched,
            key,
            level,
            counts_toward_limit: true,
            arrived,
            deadline,
            expires,
            parameters,
            reservation: Some(reservation),
            responder,
        };
        (queue, pending)
    }
}
