//! A queued request, with the state needed for its response.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::grpc::budget::Reservation;
use crate::grpc::compression::Encoding;
use crate::grpc::frame;
use crate::grpc::status::{Code, Status};
use crate::infer::Parameter;
use crate::observe::Observation;
use crate::oip;
use crate::output::View;
use crate::queue::Queue;
use crate::queue::delivery::{Answer, Envelope, Outbox, Route};
use crate::queue::split::Part;
use crate::rest;
use crate::signature::{SelectedOutput, Tensor};
use crate::tfs;

/// A request, or part of one, that matches the signature and waits to be computed.
pub struct Pending {
    /// One for each input of the signature; None for an omitted optional input.
    pub tensors: SmallVec<[Option<Tensor>; 2]>,
    /// The size of the batch dimension.
    pub rows: usize,
    /// Whether axis 0 is a batch dimension; the other axes must be equal to share a batch.
    pub batched: bool,
    /// A hash of the axes that must be equal.
    pub key: u64,
    /// Its priority level, from 0, the highest.
    pub level: usize,
    /// Whether it counts toward the limit of requests; of a split request only the last part does.
    pub counts_toward_limit: bool,
    /// The time of arrival.
    pub arrived: Instant,
    /// The client's deadline.
    pub deadline: Option<Instant>,
    /// The time at which its queue timeout passes.
    pub expires: Option<Instant>,
    /// The other request parameters.
    pub parameters: Vec<(CompactString, Parameter)>,
    /// Its reservation in the server's memory budget, until it is completed; None for in-process requests, and for all
    /// parts of a split request but the last.
    pub reservation: Option<Reservation>,
    /// Sends its response.
    pub responder: Responder,
}

impl Pending {
    /// Whether both can be computed in one batch.
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

    /// The total bytes of its tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().flatten().map(|tensor| tensor.data.len()).sum()
    }

    /// Whether the client's deadline has passed.
    pub fn is_past_deadline(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether the client has cancelled it or its connection is lost.
    pub fn is_cancelled(&mut self) -> bool {
        self.responder.route.is_cancelled()
    }

    /// The earlier of its deadline and its queue timeout.
    pub fn expiry(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.expires).min()
    }
}

/// The state needed to send the response to a request.
pub struct Responder {
    /// The format of the response.
    pub format: Format,
    /// The client's id of the request.
    pub id: CompactString,
    /// The requested outputs, in order; empty for all.
    pub requested: SmallVec<[SelectedOutput; 4]>,
    /// The encoding with which the response may be compressed.
    pub encoding: Option<Encoding>,
    /// The route of the response.
    pub route: Route,
    /// The record of the request, if it is observed.
    pub observation: Option<Box<Observation>>,
}

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `inference.ModelInferResponse`.
    Oip,
    /// `inference.ModelStreamInferResponse`.
    OipStream,
    /// `tensorflow.serving.PredictResponse`.
    TensorflowServing,
    /// The Open Inference Protocol over REST.
    Rest {
        /// Whether outputs that are not requested by name are returned as binary data.
        binary: bool,
    },
    /// TensorFlow Serving's REST API.
    RestPredict {
        /// Whether the response is in row format.
        rows: bool,
    },
}

impl Responder {
    /// Returns a function that creates the responder of one part of the request.
    pub fn part(&self) -> impl FnOnce(Part) -> Responder + use<> {
        let Responder { format, encoding, ref requested, .. } = *self;
        let (id, requested) = (CompactString::default(), requested.clone());
        move |part| Responder { format, id, requested, encoding, route: Route::Part(part), observation: None }
    }

    /// Completes the request with the outputs of a run, one view for each computed output, and records its end.
    pub fn answer(self, queue: &Queue, arrived: Instant, views: &[View<'_>], outbox: &mut Outbox) {
        if let Route::Part(part) = self.route {
            return part.answer(queue, arrived, views, outbox);
        }
        // Recorded before the response is sent, so that a client that has received it finds it in the metrics.
        queue.metrics.ended(Code::Ok, arrived.elapsed());
        if let Route::Local(local) = self.route {
            return local.answer(&self.requested, views);
        }
        // A panic fails only this request, not the others in the batch.
        let framed = catch_unwind(AssertUnwindSafe(|| self.encode(queue, views)));
        let answer =
            framed.map_err(|_| Status::internal("the answer cannot be written; see the server's log"));
        // HTTP has no limit on the message size.
        let answer =
            if matches!(self.route, Route::Http(..)) { answer } else { answer.and_then(frame::check) };
        self.send(answer, outbox);
    }

    /// Encodes the response as `frame::encode` takes it.
    fn encode(&self, queue: &Queue, views: &[View<'_>]) -> Vec<u8> {
        let binary = self.format == Format::Rest { binary: true };
        let every = || {
            (0..queue.signature.outputs.len() as u16).map(|position| SelectedOutput {
                position,
                classes: 0,
                binary,
            })
        };
        let requested = if self.requested.is_empty() { every().collect() } else { self.requested.clone() };
        let find = |selected: &SelectedOutput| {
            views.iter().find(|view| view.position == usize::from(selected.position))
        };
        let chosen =
            requested.iter().filter_map(|selected| find(selected).map(|view| (view.clone(), *selected)));
        match self.format {
            Format::Oip | Format::OipStream => {
                let stream = matches!(self.format, Format::OipStream);
                let tensors: SmallVec<[_; 4]> = chosen
                    .map(|(view, selected)| oip::response::Tensor::new(view, selected, &queue.signature))
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

    /// Completes the request with an error status and records its end.
    pub fn refuse(self, queue: &Queue, arrived: Instant, status: Status, outbox: &mut Outbox) {
        if let Route::Part(part) = self.route {
            return part.refuse(queue, arrived, status, outbox);
        }
        queue.metrics.ended(status.code, arrived.elapsed());
        match self.route {
            Route::Local(local) => local.refuse(status),
            _ => self.send(Err(status), outbox),
        }
    }

    /// Records that the request was computed in a batch of `batch` rows.
    pub fn computed(&mut self, taken: Instant, computed: Instant, batch: usize) {
        match (&mut self.route, &mut self.observation) {
            (Route::Part(part), _) => part.computed(taken, computed, batch),
            (Route::Local(local), _) => local.computed(computed.saturating_duration_since(taken)),
            (_, Some(observation)) => observation.computed(taken, computed, batch),
            _ => {}
        }
    }

    /// The id of the request: the client's, or the generated one; empty if there is neither.
    pub fn request_id(&self) -> CompactString {
        match (&self.route, &self.observation) {
            (Route::Part(part), _) => part.request_id(),
            (_, Some(observation)) => observation.request.clone(),
            _ => self.id.clone(),
        }
    }

    fn send(self, answer: Answer, outbox: &mut Outbox) {
        if let Some(observation) = self.observation {
            observation.end(answer.as_ref().err().map_or(Code::Ok, |status| status.code));
        }
        outbox.add(Envelope { route: self.route, encoding: self.encoding, answer });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::datatype::Datatype;
    use crate::grpc::budget::{Account, Budget};
    use crate::queue::delivery::{InFlight, Mailbox};
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
        let account = Account::new(&Arc::new(Budget::new(usize::MAX)));
        let view = |position| View { position, shape: Shape::from_slice(&[1]), data: &[7], owner: None };
        let mut outbox = Outbox::default();
        // The signature has no output at position 9.
        for position in [9, 0] {
            let (sender, _) = mpsc::unbounded_channel();
            let responder = Responder {
                format: Format::Oip,
                id: CompactString::default(),
                requested: SmallVec::from_buf_and_len(
                    [SelectedOutput { position, ..SelectedOutput::default() }; 4],
                    1,
                ),
                encoding: None,
                route: Route::Stream(sender, 0, InFlight::new(&mailbox, &account)),
                observation: None,
            };
            responder.answer(&queue, Instant::now(), &[view(0), view(9)], &mut outbox);
        }
        outbox.post();
        let envelopes = std::mem::take(&mut *mailbox.envelopes.lock().unwrap());
        let codes: Vec<Code> = envelopes
            .iter()
            .map(|envelope| envelope.answer.as_ref().map_or_else(|status| status.code, |_| Code::Ok))
            .collect();
        assert_eq!(codes, [Code::Internal, Code::Ok]);
        assert_eq!(mailbox.metrics.in_flight.get(), 2);
        drop(envelopes);
        assert_eq!(mailbox.metrics.in_flight.get(), 0);
    }
}
