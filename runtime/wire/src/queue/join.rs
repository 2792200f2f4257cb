//! Requests larger than a batch: computed in parts, answered as one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use compact_str::CompactString;

use crate::bytes_tensor;
use crate::grpc::status::Status;
use crate::output::View;
use crate::queue::Queue;
use crate::queue::pending::{Mail, Pending, Responder, Route};
use crate::signature::{Shape, Signature, Tensor};

/// The claim on the answer of one part, or of all that are not cut off yet.
pub struct Share {
    join: Arc<Join>,
    index: usize,
}

struct Join {
    /// Of each input, the bytes of each part; None: as many for each row.
    sizes: Vec<Option<Vec<usize>>>,
    state: Mutex<State>,
}

struct State {
    /// Gone once the request is answered.
    responder: Option<Responder>,
    /// For each part, its outputs once they are there.
    parts: Vec<Option<Vec<Piece>>>,
    /// How many are not.
    missing: usize,
}

/// An output of one part.
struct Piece {
    position: usize,
    shape: Shape,
    data: Vec<u8>,
}

/// What parts cost does not depend on what is in them, and a request may have ages of rows in a few bytes.
const MOST_PARTS: usize = 1 << 16;

/// Rows without elements that a request may have, or as many as make one batch.
const MOST_EMPTY: usize = 1 << 12;

/// Why a request cannot be cut into parts of at most `max` rows.
pub fn unfit(request: &Pending, max: usize) -> Option<Status> {
    let empty = request.bytes() == 0;
    let most = if empty { max.max(MOST_EMPTY) } else { max.saturating_mul(MOST_PARTS) };
    if !request.batched || request.rows <= most {
        return None;
    }
    let rows = if empty { "rows without elements" } else { "rows" };
    Some(Status::invalid(format!(
        "expected at most {most} {rows}, got {}; send fewer at a time",
        request.rows
    )))
}

/// Gives a request that `cut` will cut into parts of at most `max` rows what the parts have in common; most are whole.
///
/// The parts are made when they are computed: until then a request takes what it came with, however many they are.
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
        // In one piece it is cut at once.
        tensor.data = std::mem::take(&mut tensor.data).into_bytes().into();
        sizes.push(spec.datatype.size().is_none().then(|| part_sizes(tensor, max)));
    }
    let rest = request.responder.part();
    let missing = request.rows.div_ceil(max);
    let state = State { missing, responder: Some(request.responder), parts: Vec::new() };
    let join = Arc::new(Join { sizes, state: Mutex::new(state) });
    Pending { responder: rest(Share { join, index: 0 }), ..request }
}

/// Cuts the first `max` rows off a request that has more; None where it has not.
pub fn cut(rest: &mut Pending, max: usize) -> Option<Pending> {
    if !rest.batched || rest.rows <= max {
        return None;
    }
    let Route::Share(Share { join, index }) = &mut rest.responder.route else { return None };
    let (join, index) = (join.clone(), std::mem::replace(index, *index + 1));
    let tensors = rest.tensors.iter_mut().zip(&join.sizes);
    let tensors = tensors
        .map(|(tensor, sizes)| {
            Some(cut_tensor(tensor.as_mut()?, sizes.as_ref().map(|sizes| sizes[index]), max))
        })
        .collect();
    rest.rows -= max;
    Some(Pending {
        tensors,
        rows: max,
        counts: false,
        parameters: rest.parameters.clone(),
        responder: rest.responder.part()(Share { join, index }),
        ..*rest
    })
}

/// Cuts the first rows off a tensor in one piece; `size`: their bytes, where they are not the same for each row.
fn cut_tensor(rest: &mut Tensor, size: Option<usize>, rows: usize) -> Tensor {
    let size = size.unwrap_or_else(|| rest.data.len() / rest.shape[0] * rows);
    let mut shape = rest.shape.clone();
    shape[0] = rows;
    rest.shape[0] -= rows;
    let data = rest.data.slice(0, size);
    rest.data = rest.data.slice(size, rest.data.len() - size);
    Tensor { shape, data }
}

/// The bytes of each part of a tensor of byte strings.
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

impl Share {
    /// Whether the request begins with this part.
    pub fn begins(&self) -> bool {
        self.index == 0
    }

    /// Adds the outputs of this part; the last part answers the request.
    pub fn answer(self, queue: &Queue, arrived: Instant, views: &[View<'_>], mail: &mut Mail) {
        let own = |view: &View<'_>| Piece {
            position: view.position,
            shape: view.shape.clone(),
            data: view.data.to_vec(),
        };
        let pieces = views.iter().map(own).collect();
        let mut state = self.join.lock();
        let places = state.parts.len().max(self.index + 1);
        state.parts.resize_with(places, || None);
        state.parts[self.index] = Some(pieces);
        state.missing -= 1;
        if state.missing > 0 {
            return;
        }
        let Some(responder) = state.responder.take() else { return };
        let parts: Vec<Vec<Piece>> = state.parts.iter_mut().filter_map(Option::take).collect();
        drop(state);
        let whole = concatenate(parts);
        let views: Vec<View<'_>> = whole
            .iter()
            .map(|Piece { position, shape, data }| View {
                position: *position,
                shape: shape.clone(),
                data,
                owner: None,
            })
            .collect();
        responder.answer(queue, arrived, &views, mail);
    }

    /// Whether the server itself asked.
    pub fn is_local(&self) -> bool {
        self.join.lock().responder.as_ref().is_some_and(|responder| responder.route.is_local())
    }

    /// Notes that this part was computed.
    pub fn computed(&self, taken: Instant, computed: Instant, batch: usize) {
        if let Some(responder) = &mut self.join.lock().responder {
            responder.computed(taken, computed, batch);
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> CompactString {
        self.join.lock().responder.as_ref().map(Responder::request_id).unwrap_or_default()
    }

    /// Refuses the request; what other parts bring is for nobody.
    pub fn refuse(self, queue: &Queue, arrived: Instant, status: Status, mail: &mut Mail) {
        let responder = self.join.lock().responder.take();
        if let Some(responder) = responder {
            responder.refuse(queue, arrived, status, mail);
        }
    }

    /// Whether the request is answered already, or its client is gone.
    pub fn is_gone(&self) -> bool {
        self.join.lock().responder.as_mut().is_none_or(|responder| responder.route.is_gone())
    }
}

impl Join {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the parts' outputs along axis 0; every part computed the same outputs.
fn concatenate(parts: Vec<Vec<Piece>>) -> Vec<Piece> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or_default();
    for part in parts {
        for piece in part {
            if let Some(target) = whole.iter_mut().find(|target| target.position == piece.position) {
                target.shape[0] += piece.shape[0];
                target.data.extend_from_slice(&piece.data);
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
        let mut parts: Vec<Tensor> = sizes.iter().map(|size| cut_tensor(&mut rest, *size, rows)).collect();
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
