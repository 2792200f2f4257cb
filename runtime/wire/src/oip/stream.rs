//! `ModelStreamInfer`: requests as they come, answers in the same order, errors as messages of the stream.

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

use crate::grpc::compression::Encoding;
use crate::grpc::frame::{self, Decoder};
use crate::grpc::head::Head;
use crate::grpc::status::{Code, Status, put_status};
use crate::grpc::unary;
use crate::hosted;
use crate::infer::{Infer, Parameter};
use crate::oip::request;
use crate::oip::response::{stream_answer, stream_error};
use crate::queue::pending::{Answer, Format, InFlight, Route};
use crate::rope::Rope;
use crate::server::Phase;
use crate::server::infer::{Arrival, Caller, MODEL_INFER, STREAM, admit};
use crate::server::worker::Desk;

/// Requests of one stream that may be under way; more are left with the client.
const WINDOW: u64 = 1024;

/// Requests of one stream that Python may see to at a time.
const HOSTED: usize = 64;

/// Serves a stream to its end.
pub async fn serve(
    desk: &Arc<Desk>,
    head: Head,
    caller: Caller<'_>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    // The requests in it are noted, each of them; the stream is not.
    let arrival = Arrival::new(&head, None);
    let encoding = desk.shared.config.compression.filter(|&encoding| head.accepts(encoding));
    let Ok(stream) = respond.send_response(unary::response(encoding), false) else { return };
    let mut conversation = Conversation {
        desk,
        arrival: &arrival,
        encoding,
        strict: caller.headers.get("triton_grpc_error").is_some_and(|value| value == "true"),
        caller,
        stream,
        early: BTreeMap::new(),
        ids: VecDeque::new(),
        begun: 0,
        answered: 0,
        hosted: JoinSet::new(),
        seats: Arc::new(Semaphore::new(HOSTED)),
        lanes: HashMap::new(),
    };
    let decoder = desk.shared.decoder(&head);
    let mut phase = desk.shared.phase();
    let result = tokio::select! {
        biased;
        result = arrival.in_time(conversation.run(body, decoder)) => result,
        _ = phase.wait_for(Phase::ends_calls) => Err(Status::shutting_down()),
    };
    let mut trailers = HeaderMap::new();
    match result {
        Ok(()) => put_status(&mut trailers, Code::Ok, ""),
        Err(status) => {
            desk.shared.metrics.refused[status.code as usize].add(1);
            status.put(&mut trailers);
        }
    }
    // A client that is gone does not get it, and that is no error.
    let _ = conversation.stream.send_trailers(trailers);
}

struct Conversation<'a> {
    desk: &'a Arc<Desk>,
    arrival: &'a Arrival,
    encoding: Option<Encoding>,
    caller: Caller<'a>,
    /// Whether the first error ends the stream with its status, as the client's metadata may ask for.
    strict: bool,
    stream: SendStream<Bytes>,
    /// Answers whose predecessors are not there yet.
    early: BTreeMap<u64, Answer>,
    /// The ids of the requests that are not answered yet, in order.
    ids: VecDeque<CompactString>,
    begun: u64,
    answered: u64,
    /// Requests that Python sees to.
    hosted: JoinSet<()>,
    /// Of which this many at a time.
    seats: Arc<Semaphore>,
    /// Of each sequence, what resolves when its last request is answered: they keep their order.
    lanes: HashMap<Identity, oneshot::Receiver<()>>,
}

impl Conversation<'_> {
    async fn run(&mut self, mut body: RecvStream, mut decoder: Decoder) -> Result<(), Status> {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let mut open = true;
        let mut end = Ok(());
        while open || self.answered < self.begun {
            tokio::select! {
                Some((sequence, answer)) = answers.recv() => {
                    self.early.insert(sequence, answer);
                    while let Some(answer) = self.early.remove(&self.answered) {
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
                // A token may be taken back while its stream is open: what was accepted is answered, and no more is.
                match self.desk.shared.tokens.check(self.caller.headers) {
                    Ok(_) => self.begin(&message.opened().await?.0, &sender),
                    Err(status) => (open, end) = (false, Err(status)),
                }
            }
        }
        end
    }

    fn has_room(&self) -> bool {
        self.begun - self.answered < WINDOW
    }

    fn begin(&mut self, message: &Rope, sender: &mpsc::UnboundedSender<(u64, Answer)>) {
        let sequence = self.begun;
        self.begun += 1;
        self.desk.shared.metrics.bytes_received.add(message.len() as u64);
        let decoded = request::decode(message);
        let allowed = self.desk.shared.rates.check(self.caller.client.as_ref());
        if allowed.is_ok()
            && let Ok(infer) = &decoded
            && self.desk.shared.hosts(infer)
        {
            return self.host(infer, message.clone(), sequence, sender.clone());
        }
        let note = self.desk.shared.observer.begin(self.caller.headers, self.caller.peer, STREAM);
        let arrival = self.arrival.again(note);
        let admitted = match allowed {
            Ok(()) => admit(&self.desk.shared.models, decoded, arrival),
            Err(status) => {
                arrival.end(&status);
                Err((decoded.map(|infer| infer.id).unwrap_or_default(), status))
            }
        };
        match admitted {
            Ok(admitted) => {
                self.ids.push_back(admitted.id().clone());
                let route = Route::Stream(sender.clone(), sequence, InFlight::new(&self.desk.mailbox));
                self.desk.push(admitted.pending(Format::OipStream, self.encoding, route));
            }
            Err((id, status)) => {
                self.ids.push_back(id);
                self.desk.shared.metrics.refused[status.code as usize].add(1);
                // The other end is this very conversation.
                let _ = sender.send((sequence, Err(status)));
            }
        }
    }

    /// Lets Python answer a request, once it has answered those of its sequence before it.
    fn host(
        &mut self,
        infer: &Infer,
        message: Rope,
        sequence: u64,
        sender: mpsc::UnboundedSender<(u64, Answer)>,
    ) {
        while self.hosted.try_join_next().is_some() {}
        self.ids.push_back(infer.id.clone());
        let hold = match self.desk.shared.budget.hold(message.weight()) {
            Ok(hold) => hold,
            // The other end is this very conversation.
            Err(status) => return drop(sender.send((sequence, Err(status)))),
        };
        let (done, answered) = oneshot::channel::<()>();
        if self.lanes.len() > HOSTED {
            self.lanes.retain(|_, last| matches!(last.try_recv(), Err(TryRecvError::Empty)));
        }
        let before = identity(infer).and_then(|identity| self.lanes.insert(identity, answered));
        let seats = self.seats.clone();
        let call = (MODEL_INFER.to_owned(), self.caller.headers.clone());
        let (deadline, peer) = (self.arrival.deadline(), self.caller.peer.clone());
        let in_flight = InFlight::new(&self.desk.mailbox);
        let answer = hosted::ask(self.desk.shared.host.clone(), call, deadline, peer, (message, hold));
        self.hosted.spawn(async move {
            if let Some(before) = before {
                // An error: the one before has been answered, which is all that is asked.
                let _ = before.await;
            }
            // It is never closed, and while it is empty others are being answered.
            let _seat = seats.acquire_owned().await;
            let answer = answer.await.map(|message| stream_answer(&message));
            // The other end may be gone, and with it whoever wants the answer.
            let _ = sender.send((sequence, answer));
            drop((done, in_flight));
        });
    }

    async fn send(&mut self, answer: Answer) -> Result<(), Status> {
        let id = self.ids.pop_front().unwrap_or_default();
        let mut frame = match answer {
            Ok(framed) => frame::encode(framed, self.encoding),
            Err(status) if self.strict => return Err(status),
            Err(status) => frame::encode(stream_error(&status.message, &id), None),
        };
        self.desk.shared.metrics.bytes_sent.add(frame.len() as u64);
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

/// What a client calls a sequence. As Python has it, a number and a text are never the same.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Number(u64),
    Text(CompactString),
}

/// The sequence of a request; None for one that belongs to none.
fn identity(infer: &Infer) -> Option<Identity> {
    match infer.parameters.iter().rev().find(|(name, _)| name == "sequence_id")? {
        (_, Parameter::Int64(number)) => Some(Identity::Number(*number as u64)),
        (_, Parameter::Uint64(number)) => Some(Identity::Number(*number)),
        (_, Parameter::String(text)) => Some(Identity::Text(text.clone())),
        _ => None,
    }
}
