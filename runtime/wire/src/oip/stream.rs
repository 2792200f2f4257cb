//! `ModelStreamInfer`: responses are sent in the order of the requests, and errors as messages of the stream.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::grpc::budget::Reservation;
use crate::grpc::compression::Encoding;
use crate::grpc::frame::{self, Decoder};
use crate::grpc::head::RequestHead;
use crate::grpc::status::{Code, Status, put_status};
use crate::grpc::unary;
use crate::hosted;
use crate::infer::{InferRequest, Parameter};
use crate::oip::request;
use crate::oip::response::{stream_answer, stream_error};
use crate::queue::delivery::{Frame, InFlight, Route};
use crate::queue::pending::Format;
use crate::rope::Rope;
use crate::server::Phase;
use crate::server::infer::{Caller, MODEL_INFER, RequestContext, STREAM, admit};
use crate::server::worker::WorkerContext;

/// The maximum number of requests of one stream in flight; HTTP/2's flow control holds back more.
const WINDOW: u64 = 1024;

/// The maximum number of requests of one stream that Python serves at a time.
const MAX_HOSTED: usize = 64;

/// Serves a stream to its end.
pub async fn serve(
    worker: &Arc<WorkerContext>,
    head: RequestHead,
    caller: Caller<'_>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    // The requests are observed individually, not the stream itself.
    let context = RequestContext::new(&head, None);
    let encoding = worker.shared.config.compression.filter(|&encoding| head.accepts(encoding));
    let decoder = worker.shared.decoder(&head, &caller.peer.account);
    let Ok(stream) = respond.send_response(unary::response(encoding), false) else { return };
    let mut session = InferStream {
        worker,
        context: &context,
        encoding,
        strict: caller.headers.get("triton_grpc_error").is_some_and(|value| value == "true"),
        caller,
        stream,
        reorder_buffer: BTreeMap::new(),
        ids: VecDeque::new(),
        received: 0,
        answered: 0,
        hosted: JoinSet::new(),
        permits: Arc::new(Semaphore::new(MAX_HOSTED)),
        sequence_tails: HashMap::new(),
    };
    let mut phase = worker.shared.phase();
    let result = tokio::select! {
        biased;
        result = context.within_deadline(session.run(body, decoder)) => result,
        _ = phase.wait_for(Phase::ends_calls) => Err(Status::shutting_down()),
    };
    let mut trailers = HeaderMap::new();
    match result {
        Ok(()) => put_status(&mut trailers, Code::Ok, ""),
        Err(status) => {
            worker.shared.metrics.refused[status.code as usize].add(1);
            status.put(&mut trailers);
        }
    }
    // Errors of a disconnected client are ignored.
    let _ = session.stream.send_trailers(trailers);
}

struct InferStream<'a> {
    worker: &'a Arc<WorkerContext>,
    context: &'a RequestContext,
    encoding: Option<Encoding>,
    caller: Caller<'a>,
    /// Whether the first error ends the stream with its status, which the client's metadata can request.
    strict: bool,
    stream: SendStream<Bytes>,
    /// Responses that wait for earlier ones.
    reorder_buffer: BTreeMap<u64, Frame>,
    /// The ids of the unanswered requests, in order.
    ids: VecDeque<CompactString>,
    received: u64,
    answered: u64,
    /// The tasks of requests that Python serves.
    hosted: JoinSet<()>,
    /// Limits the number of requests that Python serves at a time.
    permits: Arc<Semaphore>,
    /// For each sequence, a receiver that resolves when its latest request is completed; the next request waits
    /// for it.
    sequence_tails: HashMap<SequenceId, oneshot::Receiver<()>>,
}

impl InferStream<'_> {
    async fn run(&mut self, mut body: RecvStream, mut decoder: Decoder) -> Result<(), Status> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let mut open = true;
        let mut end = Ok(());
        while open || self.answered < self.received {
            tokio::select! {
                Some((sequence, answer)) = answers.recv() => {
                    self.reorder_buffer.insert(sequence, answer);
                    while let Some(answer) = self.reorder_buffer.remove(&self.answered) {
                        self.answered += 1;
                        self.send(answer).await?;
                    }
                }
                piece = unary::next_piece(&mut body), if open && self.has_room() => match piece? {
                    Some(piece) => decoder.push(piece),
                    None if decoder.is_within_message() => {
                        return Err(Status::internal("the request ends within a message"));
                    }
                    None => open = false,
                },
            }
            while end.is_ok()
                && self.has_room()
                && let Some(message) = decoder.message()?
            {
                // A token may be revoked while a stream is open: accepted requests are completed, but no more accepted.
                match self.worker.shared.tokens.check(self.caller.headers) {
                    Ok(_) => self.begin(message.decode_async().await?, &sender),
                    Err(status) => (open, end) = (false, Err(status)),
                }
            }
        }
        end
    }

    fn has_room(&self) -> bool {
        self.received - self.answered < WINDOW
    }

    fn begin(
        &mut self,
        (message, reservation): (Rope, Reservation),
        sender: &mpsc::UnboundedSender<(u64, Frame)>,
    ) {
        let sequence = self.received;
        self.received += 1;
        self.worker.shared.metrics.bytes_received.add(message.len() as u64);
        let decoded = request::decode(&message);
        let rate_limiter = &self.worker.shared.rate_limiter;
        let allowed = rate_limiter.check(self.caller.client.as_ref()).and_then(|()| reservation.check());
        if allowed.is_ok()
            && let Ok(infer) = &decoded
            && self.worker.shared.hosts(infer)
        {
            return self.host(infer, (message.clone(), reservation), sequence, sender.clone());
        }
        let observation = self.worker.shared.observer.begin(self.caller.headers, self.caller.peer, STREAM);
        let context = self.context.next_message(observation);
        let admitted = match allowed {
            Ok(()) => admit(&self.worker.shared.models, decoded, context),
            Err(status) => {
                context.end(&status);
                Err((decoded.map(|infer| infer.id).unwrap_or_default(), status))
            }
        };
        match admitted {
            Ok(admitted) => {
                self.ids.push_back(admitted.id().clone());
                let in_flight = InFlight::new(&self.worker.mailbox, &self.caller.peer.account);
                let route = Route::Stream(sender.clone(), sequence, in_flight);
                self.worker.push(admitted.pending(Format::OipStream, self.encoding, route, reservation));
            }
            Err((id, status)) => {
                self.ids.push_back(id);
                self.worker.shared.metrics.refused[status.code as usize].add(1);
                // This session is the receiver.
                let _ = sender.send((sequence, Err(status)));
            }
        }
    }

    /// Has Python serve a request after the preceding requests of its sequence.
    fn host(
        &mut self,
        infer: &InferRequest,
        message: (Rope, Reservation),
        sequence: u64,
        sender: mpsc::UnboundedSender<(u64, Frame)>,
    ) {
        while self.hosted.try_join_next().is_some() {}
        self.ids.push_back(infer.id.clone());
        let (done, answered) = oneshot::channel::<()>();
        if self.sequence_tails.len() > MAX_HOSTED {
            self.sequence_tails.retain(|_, last| matches!(last.try_recv(), Err(TryRecvError::Empty)));
        }
        let before =
            sequence_id(infer).and_then(|sequence_id| self.sequence_tails.insert(sequence_id, answered));
        let permits = self.permits.clone();
        let call = (MODEL_INFER.to_owned(), self.caller.headers.clone());
        let (deadline, peer) = (self.context.deadline(), self.caller.peer.clone());
        let in_flight = InFlight::new(&self.worker.mailbox, &self.caller.peer.account);
        let encoding = self.encoding;
        let answer = hosted::unary_call(self.worker.shared.events.clone(), call, deadline, peer, message);
        self.hosted.spawn(async move {
            if let Some(before) = before {
                // An error means that the preceding request has been completed.
                let _ = before.await;
            }
            // The semaphore is never closed.
            let _permit = permits.acquire_owned().await;
            let answer = answer.await.map(|message| in_flight.frame(stream_answer(&message), encoding));
            // The session may have ended.
            let _ = sender.send((sequence, answer));
            drop(done);
        });
    }

    async fn send(&mut self, answer: Frame) -> Result<(), Status> {
        let id = self.ids.pop_front().unwrap_or_default();
        let mut frame = match answer {
            Ok(frame) => frame,
            Err(status) if self.strict => return Err(status),
            Err(status) => frame::encode(stream_error(&status.message, &id), None),
        };
        self.worker.shared.metrics.bytes_sent.add(frame.len() as u64);
        let gone = || Status::new(Code::Cancelled, "the client ended the stream");
        while !frame.is_empty() {
            self.stream.reserve_capacity(frame.len());
            let capacity = std::future::poll_fn(|context| self.stream.poll_capacity(context)).await;
            let capacity = capacity.and_then(Result::ok).ok_or_else(gone)?;
            self.stream.send_data(frame.split_to(capacity.min(frame.len())), false).map_err(|_| gone())?;
        }
        Ok(())
    }
}

/// The id of a sequence; as in Python, a number never equals a string.
#[derive(PartialEq, Eq, Hash)]
enum SequenceId {
    Number(u64),
    Text(CompactString),
}

/// Returns the sequence id of a request; None if it belongs to no sequence.
fn sequence_id(infer: &InferRequest) -> Option<SequenceId> {
    match infer.parameters.iter().rev().find(|(name, _)| name == "sequence_id")? {
        (_, Parameter::Int64(number)) => Some(SequenceId::Number(*number as u64)),
        (_, Parameter::Uint64(number)) => Some(SequenceId::Number(*number)),
        (_, Parameter::String(text)) => Some(SequenceId::Text(text.clone())),
        _ => None,
    }
}
