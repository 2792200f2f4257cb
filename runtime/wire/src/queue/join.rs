//! Requests larger than a batch: computed in parts, answered as one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::grpc::status::Status;
use crate::output::View;
use crate::queue::Queue;
use crate::queue::pending::{Mail, Pending, Responder, Route};
use crate::signature::{Shape, Signature, Tensor, TensorSpec};

/// One part's claim on the answer.
pub struct Share {
    join: Arc<Join>,
    index: usize,
}

struct Join {
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
    let most = if empty { max.max(MOST_EMPTY) } else { max.max(1).saturating_mul(MOST_PARTS) };
    if !request.batched || request.rows <= most {
        return None;
    }
    let rows = if empty { "rows without elements" } else { "rows" };
    Some(Status::invalid(format!(
        "expected at most {most} {rows}, got {}; send fewer at a time",
        request.rows
    )))
}

/// Cuts a request into parts of at most `max` rows each; most requests are one.
pub fn split(request: Pending, signature: &Signature, max: usize) -> SmallVec<[Pending; 1]> {
    if !request.batched || request.rows <= max.max(1) {
        return SmallVec::from_buf([request]);
    }
    let sizes: Vec<usize> = rows_of_parts(request.rows, max).collect();
    let cut = |(tensor, spec): (&Option<Tensor>, &TensorSpec)| match tensor {
        None => vec![None; sizes.len()],
        Some(tensor) => cut_tensor(tensor, spec.datatype, &sizes),
    };
    let columns: Vec<_> = request.tensors.iter().zip(&signature.inputs).map(cut).collect();
    let Pending { batched, key, level, arrived, deadline, expires, parameters, responder, .. } = request;
    let (requested, encoding, format) = (responder.requested.clone(), responder.encoding, responder.format);
    let parts = sizes.iter().map(|_| None).collect();
    let state = State { responder: Some(responder), parts, missing: sizes.len() };
    let join = Arc::new(Join { state: Mutex::new(state) });
    let part = |(index, &rows): (usize, &usize)| Pending {
        tensors: columns.iter().map(|column| column[index].clone()).collect(),
        rows,
        batched,
        key,
        level,
        counts: index + 1 == sizes.len(),
        arrived,
        deadline,
        expires,
        parameters: parameters.clone(),
        responder: Responder {
            format,
            id: Default::default(),
            requested: requested.clone(),
            encoding,
            route: Route::Share(Share { join: join.clone(), index }),
            note: None,
        },
    };
    sizes.iter().enumerate().map(part).collect()
}

fn rows_of_parts(rows: usize, max: usize) -> impl Iterator<Item = usize> {
    (0..rows.div_ceil(max)).map(move |part| max.min(rows - part * max))
}

fn cut_tensor(tensor: &Tensor, datatype: Datatype, sizes: &[usize]) -> Vec<Option<Tensor>> {
    let row_elements: usize = tensor.shape[1..].iter().product();
    let row_bytes = tensor.data.len() / tensor.shape[0];
    let ends = datatype.size().is_none().then(|| element_ends(tensor));
    let offset = |row: usize| match &ends {
        None => row_bytes * row,
        Some(ends) => (row * row_elements).checked_sub(1).map_or(0, |last| ends[last]),
    };
    let mut row = 0;
    let part = |&size: &usize| {
        let (start, end) = (offset(row), offset(row + size));
        row += size;
        let mut shape = tensor.shape.clone();
        shape[0] = size;
        Some(Tensor { shape, data: tensor.data.slice(start, end - start) })
    };
    sizes.iter().map(part).collect()
}

/// Where each byte string ends.
fn element_ends(tensor: &Tensor) -> Vec<usize> {
    let raw = tensor.data.clone().into_bytes();
    let mut end = 0;
    let elements = bytes_tensor::elements(&raw);
    elements
        .map(|element| {
            end += 4 + element.expect("the signature has counted the elements").len();
            end
        })
        .collect()
}

impl Share {
    /// Adds the outputs of this part; the last part answers the request.
    pub fn answer(self, queue: &Queue, views: &[View<'_>], mail: &mut Mail) {
        let own = |view: &View<'_>| Piece {
            position: view.position,
            shape: view.shape.clone(),
            data: view.data.to_vec(),
        };
        let pieces = views.iter().map(own).collect();
        let mut state = self.join.lock();
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
        responder.answer(queue, &views, mail);
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
    pub fn refuse(self, status: Status, mail: &mut Mail) {
        let responder = self.join.lock().responder.take();
        if let Some(responder) = responder {
            responder.refuse(status, mail);
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

    fn data(parts: Vec<Option<Tensor>>) -> Vec<Vec<u8>> {
        parts.into_iter().flatten().map(|tensor| tensor.data.into_bytes().to_vec()).collect()
    }

    #[test]
    fn rows_are_divided() {
        assert_eq!(rows_of_parts(7, 3).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(rows_of_parts(6, 3).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn tensors_are_cut_between_rows() {
        let parts = cut_tensor(&tensor(&[3, 2], vec![1, 2, 3, 4, 5, 6]), Datatype::Uint8, &[2, 1]);
        assert_eq!(data(parts), [vec![1, 2, 3, 4], vec![5, 6]]);
    }

    #[test]
    fn byte_strings_are_cut_between_rows() {
        let mut raw = Vec::new();
        for element in [&b"a"[..], b"bcd", b"", b"e"] {
            bytes_tensor::put(&mut raw, element);
        }
        let parts = cut_tensor(&tensor(&[2, 2], raw), Datatype::Bytes, &[1, 1]);
        assert_eq!(data(parts), [b"\x01\0\0\0a\x03\0\0\0bcd".to_vec(), b"\0\0\0\0\x01\0\0\0e".to_vec()]);
    }
}
