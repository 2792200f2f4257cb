//! A request that waits, and the way its answer takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use compact_str::CompactString;
use h2::server::SendResponse;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::grpc::compression::Encoding;
use crate::grpc::frame;
use crate::grpc::status::{Code, Status};
use crate::infer::Parameter;
use crate::metrics::ServerMetrics;
use crate::observe::Note;
use crate::oip;
use crate::output::View;
use crate::queue::Queue;
use crate::queue::join::Share;
use crate::queue::local::Local;
use crate::rest;
use crate::signature::{Requested, Tensor};
use crate::tfs;

/// A request, or part of one, that fits the signature and waits to be computed.
pub struct Pending {
    /// One for each input of the signature; None for an optional one left out.
    pub tensors: SmallVec<[Option<Tensor>; 2]>,
    /// The size of the batch dimension.
    pub rows: usize,
    /// Whether axis 0 is a batch dimension: everything but the rows must be equal to share a batch.
    pub batched: bool,
    /// A hash of what must be equal.
    pub key: u64,
    /// Its priority, from 0, the most urgent.
    pub level: usize,
    /// Whether it counts against the limit of requests; of the parts of a request the last one does, or what is left.
    pub counts: bool,
    /// When it came.
    pub arrived: Instant,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
    /// When its time in the queue is over.
    pub expires: Option<Instant>,
    /// What the client said besides.
    pub parameters: Vec<(CompactString, Parameter)>,
    /// Where its answer goes.
    pub responder: Responder,
}

impl Pending {
    /// Whether both may be computed in one batch.
    pub fn matches(&self, other: &Pending) -> bool {
        let from = usize::from(self.batched);
        let shape = |tensor: &Option<Tensor>| tensor.as_ref().map(|tensor| tensor.shape.clone());
        self.batched
            && self.key == other.key
            && self.tensors.iter().zip(&other.tensors).all(|(left, right)| match (left, right) {
                (Some(left), Some(right)) => left.shape[from..] == right.shape[from..],
                (left, right) => shape(left) == shape(right),
            })
    }

    /// The bytes of its tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().flatten().map(|tensor| tensor.data.len()).sum()
    }

    /// Whether the client's time is over.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_gone(&mut self) -> bool {
        self.responder.route.is_gone()
    }

    /// When it is to leave the queue at the latest.
    pub fn ends(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.expires).min()
    }
}

/// What is needed to answer a request.
pub struct Responder {
    /// How the answer is written.
    pub format: Format,
    /// The client's id of the request.
    pub id: CompactString,
    /// The outputs wanted, in order; empty for all.
    pub requested: SmallVec<[Requested; 4]>,
    /// How the answer may be compressed.
    pub encoding: Option<Encoding>,
    /// Where it goes.
    pub route: Route,
    /// What is known of the request, where that is noted.
    pub note: Option<Box<Note>>,
}

/// The protocol of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `inference.ModelInferResponse`.
    Oip,
    /// `inference.ModelStreamInferResponse`.
    OipStream,
    /// `tensorflow.serving.PredictResponse`.
    TensorflowServing,
    /// The Open Inference Protocol over REST; `binary`: outputs that nobody names come as bytes.
    Rest {
        /// Whether they do.
        binary: bool,
    },
    /// TensorFlow Serving's REST.
    RestPredict {
        /// Whether the answer is made of rows.
        rows: bool,
    },
}

/// The way an answer takes.
pub enum Route {
    /// It ends a unary call.
    Unary(SendResponse<Bytes>, InFlight),
    /// It is one message of a stream, at its place in the order.
    Stream(mpsc::UnboundedSender<(u64, Answer)>, u64, InFlight),
    /// It is the body of an answer over HTTP.
    Http(oneshot::Sender<Answer>, InFlight),
    /// It is part of the answer to a request that was split.
    Share(Share),
    /// The server itself wants it.
    Local(Local),
}

/// Counts a request as not yet answered for as long as it lives, and knows the worker that is to send the answer.
pub struct InFlight(Arc<Mailbox>);

impl InFlight {
    /// One more request is in flight.
    pub fn new(mailbox: &Arc<Mailbox>) -> InFlight {
        mailbox.metrics.in_flight.add(1);
        InFlight(mailbox.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.subtract(1);
    }
}

/// An answer as `frame::encode` takes it (over HTTP as `rest::response::body` does), or what went wrong: the worker,
/// not the executor, compresses it.
pub type Answer = Result<Vec<u8>, Status>;

/// Answers on their way, to be posted together.
#[derive(Default)]
pub struct Mail {
    boxes: SmallVec<[(Arc<Mailbox>, Vec<Letter>); 2]>,
}

/// One answer and its way.
pub struct Letter {
    /// Where it goes.
    pub route: Route,
    /// How its stream is compressed, for the response headers.
    pub encoding: Option<Encoding>,
    /// The answer.
    pub answer: Answer,
}

/// Where a worker finds the answers it is to send. Answers of one batch cost one wake.
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    arrived: Notify,
    metrics: Arc<ServerMetrics>,
}

impl Mailbox {
    /// An empty one.
    pub fn new(metrics: Arc<ServerMetrics>) -> Mailbox {
        Mailbox { letters: Mutex::default(), arrived: Notify::new(), metrics }
    }

    /// What happens in the server.
    pub fn metrics(&self) -> &ServerMetrics {
        &self.metrics
    }

    /// Waits for answers and takes them all, in place of what `letters` held.
    pub async fn receive(&self, letters: &mut Vec<Letter>) {
        self.arrived.notified().await;
        std::mem::swap(letters, &mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Mail {
    /// Sends everything on its way.
    pub fn post(self) {
        for (mailbox, letters) in self.boxes {
            let mut waiting = mailbox.letters.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_empty() {
                *waiting = letters
            } else {
                waiting.extend(letters)
            }
            drop(waiting);
            mailbox.arrived.notify_one();
        }
    }

    fn add(&mut self, mailbox: Arc<Mailbox>, letter: Letter) {
        match self.boxes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, letters)) => letters.push(letter),
            None => self.boxes.push((mailbox, vec![letter])),
        }
    }

    /// Appends other mail.
    pub fn append(&mut self, other: Mail) {
        for (mailbox, letters) in other.boxes {
            letters.into_iter().for_each(|letter| self.add(mailbox.clone(), letter));
        }
    }
}

impl Responder {
    /// Makes one for a part of the request, of the share that it has in this one.
    pub fn part(&self) -> impl FnOnce(Share) -> Responder + use<> {
        let Responder { format, encoding, ref requested, .. } = *self;
        let (id, requested) = (CompactString::default(), requested.clone());
        move |share| Responder { format, id, requested, encoding, route: Route::Share(share), note: None }
    }

    /// Answers with the outputs of a run, one view for each output that was computed, and counts the request's end.
    pub fn answer(self, queue: &Queue, arrived: Instant, views: &[View<'_>], mail: &mut Mail) {
        if let Route::Share(share) = self.route {
            return share.answer(queue, arrived, views, mail);
        }
        // Before the answer, so that whoever has it finds it counted.
        queue.metrics.ended(Code::Ok, arrived.elapsed());
        if let Route::Local(local) = self.route {
            return local.answer(&self.requested, views);
        }
        // Whatever is wrong with this answer is wrong with no other of the batch.
        let framed = catch_unwind(AssertUnwindSafe(|| self.encode(queue, views)));
        let answer =
            framed.map_err(|_| Status::internal("the answer cannot be written; see the server's log"));
        // HTTP has no such limit.
        let answer =
            if matches!(self.route, Route::Http(..)) { answer } else { answer.and_then(frame::check) };
        self.send(answer, mail);
    }

    /// The answer as `frame::encode` takes it.
    fn encode(&self, queue: &Queue, views: &[View<'_>]) -> Vec<u8> {
        let binary = self.format == Format::Rest { binary: true };
        let every = || {
            (0..queue.signature.outputs.len() as u16).map(|position| Requested {
                position,
                classes: 0,
                binary,
            })
        };
        let requested = if self.requested.is_empty() { every().collect() } else { self.requested.clone() };
        let find =
            |wanted: &Requested| views.iter().find(|view| view.position == usize::from(wanted.position));
        let chosen = requested.iter().filter_map(|wanted| find(wanted).map(|view| (view.clone(), *wanted)));
        match self.format {
            Format::Oip | Format::OipStream => {
                let stream = matches!(self.format, Format::OipStream);
                let tensors: SmallVec<[_; 4]> = chosen
                    .map(|(view, wanted)| oip::response::Tensor::new(view, wanted, &queue.signature))
                    .collect();
                queue.template.encode(&self.id, stream, stream, &tensors)
            }
            Format::TensorflowServing => {
                tfs::response::encode(&queue.signature, chosen.map(|(view, _)| view))
            }
            Format::Rest { .. } => rest::response::encode(&self.id, &queue.signature, chosen),
            Format::RestPredict { rows } => {
                rest::predict_response::encode(&queue.signature, rows, chosen.map(|(view, _)| view))
            }
        }
    }

    /// Answers with a status, and counts the request's end.
    pub fn refuse(self, queue: &Queue, arrived: Instant, status: Status, mail: &mut Mail) {
        if let Route::Share(share) = self.route {
            return share.refuse(queue, arrived, status, mail);
        }
        queue.metrics.ended(status.code, arrived.elapsed());
        match self.route {
            Route::Local(local) => local.refuse(status),
            _ => self.send(Err(status), mail),
        }
    }

    /// Notes that the request was computed in a batch of so many rows.
    pub fn computed(&mut self, taken: Instant, computed: Instant, batch: usize) {
        match (&mut self.route, &mut self.note) {
            (Route::Share(share), _) => share.computed(taken, computed, batch),
            (Route::Local(local), _) => local.computed(computed.saturating_duration_since(taken)),
            (_, Some(note)) => note.computed(taken, computed, batch),
            _ => {}
        }
    }

    /// The id of the request: the client's, or the one that was made for it; empty where there is neither.
    pub fn request_id(&self) -> CompactString {
        match (&self.route, &self.note) {
            (Route::Share(share), _) => share.request_id(),
            (_, Some(note)) => note.request.clone(),
            _ => self.id.clone(),
        }
    }

    fn send(self, answer: Answer, mail: &mut Mail) {
        if let Some(note) = self.note {
            note.end(answer.as_ref().err().map_or(Code::Ok, |status| status.code));
        }
        let mailbox = match &self.route {
            Route::Unary(_, in_flight) | Route::Stream(_, _, in_flight) | Route::Http(_, in_flight) => {
                in_flight.0.clone()
            }
            Route::Share(_) | Route::Local(_) => unreachable!("they answer for themselves"),
        };
        mail.add(mailbox, Letter { route: self.route, encoding: self.encoding, answer });
    }
}

impl Route {
    /// Whether nobody is at its end any more.
    pub fn is_gone(&mut self) -> bool {
        match self {
            // Ready: the client has reset the stream, or its connection is lost.
            Route::Unary(respond, _) => {
                respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
            }
            Route::Stream(sender, ..) => sender.is_closed(),
            Route::Http(sender, _) => sender.is_closed(),
            Route::Share(share) => share.is_gone(),
            Route::Local(local) => local.is_gone(),
        }
    }

    /// Whether a request begins with what goes this way: with the first of its parts, if it has any.
    pub fn begins(&self) -> bool {
        !matches!(self, Route::Share(share) if !share.begins())
    }

    /// Whether the server itself asked.
    pub fn is_local(&self) -> bool {
        match self {
            Route::Unary(..) | Route::Stream(..) | Route::Http(..) => false,
            Route::Share(share) => share.is_local(),
            Route::Local(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;
    use crate::queue::options::Options;
    use crate::signature::{Dimension, Shape, Signature, TensorSpec};

    #[test]
    fn a_panic_stays_with_its_request() {
        let spec = TensorSpec {
            name: "y".to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![Dimension::Any],
            labels: Vec::new(),
            optional: false,
        };
        let (model, outputs) = ("m".to_owned(), vec![spec]);
        let signature = Signature { model, version: 1, inputs: Vec::new(), outputs, batched: true };
        let queue = Queue::new(signature, Options::default());
        let mailbox = Arc::new(Mailbox::new(Arc::default()));
        let view = |position| View { position, shape: Shape::from_slice(&[1]), data: &[7], owner: None };
        let mut mail = Mail::default();
        // The signature has no output at position 9.
        for position in [9, 0] {
            let (sender, _) = mpsc::unbounded_channel();
            let responder = Responder {
                format: Format::Oip,
                id: CompactString::default(),
                requested: SmallVec::from_buf_and_len([Requested { position, ..Requested::default() }; 4], 1),
                encoding: None,
                route: Route::Stream(sender, 0, InFlight::new(&mailbox)),
                note: None,
            };
            responder.answer(&queue, Instant::now(), &[view(0), view(9)], &mut mail);
        }
        mail.post();
        let letters = std::mem::take(&mut *mailbox.letters.lock().unwrap());
        let codes: Vec<Code> = letters
            .iter()
            .map(|letter| letter.answer.as_ref().map_or_else(|status| status.code, |_| Code::Ok))
            .collect();
        assert_eq!(codes, [Code::Internal, Code::Ok]);
        assert_eq!(mailbox.metrics.in_flight.get(), 2);
        drop(letters);
        assert_eq!(mailbox.metrics.in_flight.get(), 0);
    }
}
