//! A batch: the rows of one or more requests that an executor computes together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use compact_str::CompactString;

use crate::grpc::status::Status;
use crate::infer::Parameter;
use crate::output::Output;
use crate::queue::Queue;
use crate::queue::buffer::{self, Buffer};
use crate::queue::pending::{Outbox, Pending};
use crate::signature::{Shape, Tensor};

/// A batch. It is completed exactly once, at the latest when it is dropped.
pub struct Batch {
    queue: Arc<Queue>,
    requests: Vec<Pending>,
    rows: usize,
    taken: Instant,
    ordinal: u64,
}

impl Batch {
    pub(crate) fn new(queue: Arc<Queue>, requests: Vec<Pending>, ordinal: u64) -> Batch {
        let rows = requests.iter().map(|request| request.rows).sum();
        let taken = Instant::now();
        for request in requests.iter().filter(|request| request.responder.route.is_first()) {
            queue.metrics.waited.record(taken.saturating_duration_since(request.arrived));
        }
        Batch { queue, requests, rows, taken, ordinal }
    }

    /// The queue that it came from.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The number of requests; a split request is counted with its first part.
    pub fn requests(&self) -> usize {
        self.requests.iter().filter(|request| request.responder.route.is_first()).count()
    }

    /// The number of requests, with each part of a split request counted.
    pub fn parts(&self) -> usize {
        self.requests.len()
    }

    /// The ids of the requests that have one.
    pub fn request_ids(&self) -> Vec<CompactString> {
        let ids = self.requests.iter().map(|request| request.responder.request_id());
        ids.filter(|id| !id.is_empty()).collect()
    }

    /// Whether any of the requests is an in-process request.
    pub fn is_local(&self) -> bool {
        self.requests.iter().any(|request| request.responder.route.is_local())
    }

    /// Whether any of the requests is not cancelled.
    pub fn is_active(&mut self) -> bool {
        self.requests.iter_mut().any(|request| !request.is_cancelled())
    }

    /// The number of rows of all requests, without padding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of rows of the inputs, and required of the outputs: padding included.
    pub fn padded_rows(&self) -> usize {
        if self.queue.signature.batched { self.queue.options.padded(self.rows) } else { self.rows }
    }

    /// The earliest deadline of a request.
    pub fn deadline(&self) -> Option<Instant> {
        self.requests.iter().filter_map(|request| request.deadline).min()
    }

    /// The outputs that any of the requests selects; None for all.
    pub fn requested(&self) -> Option<Vec<usize>> {
        let mut positions = Vec::new();
        for request in &self.requests {
            let requested = &request.responder.requested;
            if requested.is_empty() {
                return None;
            }
            positions.extend(requested.iter().map(|selected| usize::from(selected.position)));
        }
        positions.sort_unstable();
        positions.dedup();
        Some(positions)
    }

    /// The parameters of the request; empty if the batch has several requests.
    pub fn parameters(&self) -> &[(CompactString, Parameter)] {
        match &self.requests[..] {
            [request] => &request.parameters,
            _ => &[],
        }
    }

    /// The shape of an input, padding included; None if the requests omit it.
    pub fn shape(&self, position: usize) -> Option<Shape> {
        let mut shape = self.requests[0].tensors[position].as_ref()?.shape.clone();
        if self.queue.signature.batched {
            shape[0] = self.padded_rows();
        }
        Some(shape)
    }

    /// The elements of an input of fixed element size: the rows of all requests, padded by repeating the last row.
    pub fn buffer(&self, position: usize) -> Bytes {
        if let [request] = &self.requests[..]
            && let Some(tensor) = &request.tensors[position]
            && let [whole] = tensor.data.pieces()
            && buffer::is_aligned(whole)
            && self.padded_rows() == self.rows
        {
            return whole.clone();
        }
        let len: usize = self.tensors(position).map(|tensor| tensor.data.len()).sum();
        let row = len.checked_div(self.rows).unwrap_or(0);
        let padding = self.padded_rows() - self.rows;
        Buffer::filled(&self.queue.pool, len + padding * row, |mut target| {
            for tensor in self.tensors(position) {
                let (head, tail) = target.split_at_mut(tensor.data.len());
                tensor.data.copy_to(head);
                target = tail;
            }
            if padding > 0 && row > 0 {
                let last = self.last_row(position, row);
                target.chunks_exact_mut(row).for_each(|target| target.copy_from_slice(&last));
            }
        })
    }

    /// The contents of a BYTES input for each request, then for each row of padding.
    pub fn contents(&self, position: usize) -> Vec<Bytes> {
        let mut contents: Vec<Bytes> =
            self.tensors(position).map(|tensor| tensor.data.clone().into_bytes()).collect();
        for _ in self.rows..self.padded_rows() {
            contents.extend(self.last_elements(position));
        }
        contents
    }

    /// Completes each request with its rows of the outputs; each output is given with its position in the signature.
    pub fn reply(mut self, outputs: &[(usize, Output<'_>)]) {
        let (requests, took) = self.end();
        let mut outbox = Outbox::default();
        let mut row = 0;
        for mut request in requests {
            request.responder.computed(self.taken, self.taken + took, self.rows);
            let rows = request.batched.then(|| row..row + request.rows);
            row += request.rows;
            let views: Vec<_> =
                outputs.iter().map(|(position, output)| output.view(*position, rows.clone())).collect();
            request.responder.answer(&self.queue, request.arrived, &views, &mut outbox);
        }
        self.queue.metrics.computed(self.rows, took);
        self.queue.record_row_time(self.rows, took);
        self.queue.reorder_buffer.release(self.ordinal, outbox);
    }

    /// Completes each request with an error status.
    pub fn fail(mut self, status: &Status) {
        self.refuse(status);
    }

    fn refuse(&mut self, status: &Status) {
        let (requests, took) = self.end();
        let mut outbox = Outbox::default();
        for mut request in requests {
            request.responder.computed(self.taken, self.taken + took, self.rows);
            request.responder.refuse(&self.queue, request.arrived, status.clone(), &mut outbox);
        }
        self.queue.reorder_buffer.release(self.ordinal, outbox);
    }

    fn end(&mut self) -> (Vec<Pending>, Duration) {
        (std::mem::take(&mut self.requests), self.taken.elapsed())
    }

    fn tensors(&self, position: usize) -> impl Iterator<Item = &Tensor> {
        self.requests.iter().filter_map(move |request| request.tensors[position].as_ref())
    }

    fn last_row(&self, position: usize, len: usize) -> Bytes {
        let last = self.tensors(position).filter(|tensor| !tensor.data.is_empty()).last();
        let data = last.map(|tensor| tensor.data.slice(tensor.data.len() - len, len)).unwrap_or_default();
        data.into_bytes()
    }

    /// The last row of a BYTES input, as raw contents.
    fn last_elements(&self, position: usize) -> Option<Bytes> {
        let tensor = self.tensors(position).filter(|tensor| !tensor.data.is_empty()).last()?;
        let raw = tensor.data.clone().into_bytes();
        let per_row: usize = tensor.shape[1..].iter().product();
        let before = (tensor.shape[0] - 1) * per_row;
        let skipped: usize = crate::bytes_tensor::elements(&raw)
            .take(before)
            .map(|element| element.map_or(0, <[u8]>::len) + 4)
            .sum();
        Some(raw.slice(skipped..))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.requests.is_empty() {
            self.refuse(&Status::internal("the model gave no answer; see the server's log"));
        }
    }
}

/// Sends responses in the order in which batches were taken, if the order is to be preserved.
pub struct ReorderBuffer {
    state: Option<Mutex<Reordering>>,
}

#[derive(Default)]
struct Reordering {
    next: u64,
    outboxes: BTreeMap<u64, Outbox>,
}

impl ReorderBuffer {
    /// Creates a buffer; with `preserve` false, responses are sent at once.
    pub fn new(preserve: bool) -> ReorderBuffer {
        ReorderBuffer { state: preserve.then(Mutex::default) }
    }

    fn release(&self, ordinal: u64, outbox: Outbox) {
        let Some(state) = &self.state else { return outbox.post() };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.outboxes.insert(ordinal, outbox);
        let mut ready = Outbox::default();
        while let next = state.next
            && let Some(outbox) = state.outboxes.remove(&next)
        {
            ready.append(outbox);
            state.next += 1;
        }
        ready.post();
    }
}
