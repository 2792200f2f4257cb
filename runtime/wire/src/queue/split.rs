//! Requests larger than a batch: computed in parts, with one response.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use compact_str::CompactString;

use crate::bytes_tensor;
use crate::grpc::status::Status;
use crate::output::View;
use crate::queue::Queue;
use crate::queue::pending::{Outbox, Pending, Responder, Route};
use crate::signature::{Shape, Signature, Tensor};

/// One part of a split request, or the rest that has not been split yet.
pub struct Part {
    whole: Arc<SplitRequest>,
    index: usize,
}

struct SplitRequest {
    /// For each input, the bytes of each part; None if all rows have the same size.
    sizes: Vec<Option<Vec<usize>>>,
    state: Mutex<State>,
}

struct State {
    /// None once the request is completed.
    responder: Option<Responder>,
    /// The outputs of each part, once computed.
    parts: Vec<Option<Vec<PartOutput>>>,
    /// The number of parts that have not been computed.
    missing: usize,
}

/// An output of one part.
struct PartOutput {
    position: usize,
    shape: Shape,
    data: Vec<u8>,
}

/// The maximum number of parts of a request: each has a fixed cost, and many rows may take few bytes.
const MAX_PARTS: usize = 1 << 16;

/// The maximum number of rows in a request without elements, unless one batch may hold more.
const MAX_EMPTY_ROWS: usize = 1 << 12;

/// Returns INVALID_ARGUMENT for a request that needs too many parts of `max` rows.
pub fn oversized(request: &Pending, max: usize) -> Option<Status> {
    let empty = request.bytes() == 0;
    let most = if empty { max.max(MAX_EMPTY_ROWS) } else { max.saturating_mul(MAX_PARTS) };
    if !request.batched || request.rows <= most {
        return None;
    }
    let rows = if empty { "rows without elements" } else { "rows" };
    Some(Status::invalid(format!(
        "expected at most {most} {rows}, got {}; send fewer at a time",
        request.rows
    )))
}

/// Prepares a request with more than `max` rows for `split_to`; returns other requests unchanged.
///
/// Parts are split off lazily, when they are computed: until then a request takes no additional memory.
pub fn prepare(mut request: Pending, signature: &Signature, max: usize) -> Pending {
    if !request.batched || request.rows <= max {
        return request;
    }
    let mut sizes = Vec::with_capacity(request.tensors.len());
    for (tensor, spec) in request.tensors.iter_mut().zip(&signature.inputs) {
        let Some(tensor) = tensor else {
            sizes.push(None);
            continue;
        };
        // Contiguous, so that each split is a slice.
        tensor.data = std::mem::take(&mut tensor.data).into_bytes().into();
        sizes.push(spec.datatype.size().is_none().then(|| part_sizes(tensor, max)));
    }
    let rest = request.responder.part();
    let missing = request.rows.div_ceil(max);
    let state = State { missing, responder: Some(request.responder), parts: Vec::new() };
    let whole = Arc::new(SplitRequest { sizes, state: Mutex::new(state) });
    Pending { responder: rest(Part { whole, index: 0 }), ..request }
}

/// Splits the first `max` rows off a request that has more, like `Bytes::split_to`; None for other requests.
pub fn split_to(rest: &mut Pending, max: usize) -> Option<Pending> {
    if !rest.batched || rest.rows <= max {
        return None;
    }
    let Route::Part(Part { whole, index }) = &mut rest.responder.route else { return None };
    let (whole, index) = (whole.clone(), std::mem::replace(index, *index + 1));
    let tensors = rest.tensors.iter_mut().zip(&whole.sizes);
    let tensors = tensors
        .map(|(tensor, sizes)| {
            Some(split_tensor_to(tensor.as_mut()?, sizes.as_ref().map(|sizes| sizes[index]), max))
        })
        .collect();
    rest.rows -= max;
    Some(Pending {
        tensors,
        rows: max,
        counts_toward_limit: false,
        parameters: rest.parameters.clone(),
        reservation: None,
        responder: rest.responder.part()(Part { whole, index }),
        ..*rest
    })
}

/// Splits the first rows off a contiguous tensor; `size` is their number of bytes if rows differ in size.
fn split_tensor_to(rest: &mut Tensor, size: Option<usize>, rows: usize) -> Tensor {
    let size = size.unwrap_or_else(|| rest.data.len() / rest.shape[0] * rows);
    let mut shape = rest.shape.clone();
    shape[0] = rows;
    rest.shape[0] -= rows;
    let data = rest.data.slice(0, size);
    rest.data = rest.data.slice(size, rest.data.len() - size);
    Tensor { shape, data }
}

/// Returns the number of bytes of each part of a BYTES tensor.
fn part_sizes(tensor: &Tensor, max: usize) -> Vec<usize> {
    let raw = tensor.data.clone().into_bytes();
    let elements_of_part = max * tensor.shape[1..].iter().product::<usize>();
    let mut sizes = vec![0; tensor.shape[0].div_ceil(max)];
    for (index, element) in bytes_tensor::elements(&raw).enumerate() {
        let element = element.expect("the signature has counted the elements");
        sizes[index / elements_of_part] += 4 + element.len();
    }
    sizes
}

impl Part {
    /// Whether this is the first part of the request.
    pub fn is_first(&self) -> bool {
        self.index == 0
    }

    /// Adds the outputs of this part; the last part to be computed completes the request.
    pub fn answer(self, queue: &Queue, arrived: Instant, views: &[View<'_>], outbox: &mut Outbox) {
        let own = |view: &View<'_>| PartOutput {
            position: view.position,
            shape: view.shape.clone(),
            data: view.data.to_vec(),
        };
        let outputs = views.iter().map(own).collect();
        let mut state = self.whole.lock();
        let places = state.parts.len().max(self.index + 1);
        state.parts.resize_with(places, || None);
        state.parts[self.index] = Some(outputs);
        state.missing -= 1;
        if state.missing > 0 {
            return;
        }
        let Some(responder) = state.responder.take() else { return };
        let parts: Vec<Vec<PartOutput>> = state.parts.iter_mut().filter_map(Option::take).collect();
        drop(state);
        let whole = concatenate(parts);
        let views: Vec<View<'_>> = whole
            .iter()
            .map(|PartOutput { position, shape, data }| View {
                position: *position,
                shape: shape.clone(),
                data,
                owner: None,
            })
            .collect();
        responder.answer(queue, arrived, &views, outbox);
    }

    /// Whether the request is an in-process request.
    pub fn is_local(&self) -> bool {
        self.whole.lock().responder.as_ref().is_some_and(|responder| responder.route.is_local())
    }

    /// Records that this part was computed.
    pub fn computed(&self, taken: Instant, computed: Instant, batch: usize) {
        if let Some(responder) = &mut self.whole.lock().responder {
            responder.computed(taken, computed, batch);
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> CompactString {
        self.whole.lock().responder.as_ref().map(Responder::request_id).unwrap_or_default()
    }

    /// Completes the request with an error status; the outputs of its other parts are dropped.
    pub fn refuse(self, queue: &Queue, arrived: Instant, status: Status, outbox: &mut Outbox) {
        let responder = self.whole.lock().responder.take();
        if let Some(responder) = responder {
            responder.refuse(queue, arrived, status, outbox);
        }
    }

    /// Whether the request has been completed or cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.whole.lock().responder.as_mut().is_none_or(|responder| responder.route.is_cancelled())
    }
}

impl SplitRequest {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Concatenates the outputs of the parts along axis 0; all parts have the same outputs.
fn concatenate(parts: Vec<Vec<PartOutput>>) -> Vec<PartOutput> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or_default();
    for part in parts {
        for output in part {
            if let Some(target) = whole.iter_mut().find(|target| target.position == output.position) {
                target.shape[0] += output.shape[0];
                target.data.extend_from_slice(&output.data);
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], data: Vec<u8>) -> Tensor {
        Tensor { shape: Shape::from_slice(shape), data: data.into() }
    }

    fn parts(mut rest: Tensor, sizes: &[Option<usize>], rows: usize) -> Vec<Vec<u8>> {
        let mut parts: Vec<Tensor> =
            sizes.iter().map(|size| split_tensor_to(&mut rest, *size, rows)).collect();
        parts.push(rest);
        parts.into_iter().map(|part| part.data.into_bytes().to_vec()).collect()
    }

    #[test]
    fn tensors_are_cut_between_rows() {
        let whole = tensor(&[3, 2], vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(parts(whole, &[None, None], 1), [[1, 2], [3, 4], [5, 6]]);
    }

    #[test]
    fn byte_strings_are_cut_between_rows() {
        let mut raw = Vec::new();
        for element in [&b"a"[..], b"bcd", b"", b"e"] {
            bytes_tensor::put(&mut raw, element);
        }
        let whole = tensor(&[2, 2], raw);
        let sizes = part_sizes(&whole, 1);
        assert_eq!(
            parts(whole, &[Some(sizes[0])], 1),
            [b"\x01\0\0\0a\x03\0\0\0bcd".to_vec(), b"\0\0\0\0\x01\0\0\0e".to_vec()]
        );
        assert_eq!(part_sizes(&tensor(&[3, 0], Vec::new()), 2), [0, 0]);
    }
}
