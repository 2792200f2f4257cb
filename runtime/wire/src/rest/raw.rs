//! Triton's raw binary requests: the body is the only input, whose shape is inferred from its length.
//!
//! "Raw Binary Request" in Triton's document on the binary tensor data extension. A model with a batch dimension gets
//! one row; a BYTES body is one element, without its length.

use crate::infer::{Data, InferRequest, Input};
use crate::rope::Rope;
use crate::signature::{Dimension, Signature};

/// Decodes a request for a version of a model; None if the shape cannot be inferred.
pub fn decode(body: Rope, signature: &Signature, model: &str, version: &str) -> Option<InferRequest> {
    let [spec] = &signature.inputs[..] else { return None };
    let one_row = signature.batched.then_some(Dimension::Fixed(1));
    let shape = || one_row.iter().chain(&spec.shape[usize::from(signature.batched)..]);
    let fixed = shape().filter_map(|size| if let Dimension::Fixed(size) = size { Some(*size) } else { None });
    let known = fixed.clone().try_fold(1_usize, usize::checked_mul)?;
    let free = shape().count() - fixed.count();
    let (length, data) = match spec.datatype.size() {
        None if free == 0 && known == 1 => (0, text(body)?),
        Some(size) if free <= 1 => (body.len().div_ceil(known.checked_mul(size)?.max(1)), body),
        _ => return None,
    };
    let size = |size: &Dimension| if let Dimension::Fixed(size) = size { *size } else { length } as i64;
    let input = Input {
        name: spec.name.as_str().into(),
        datatype: spec.datatype.name().into(),
        shape: shape().map(size).collect(),
        data: Data::Raw(data),
    };
    Some(InferRequest {
        model: model.into(),
        version: version.into(),
        inputs: vec![input],
        ..InferRequest::default()
    })
}

/// Converts one BYTES element to raw contents.
fn text(element: Rope) -> Option<Rope> {
    let length = u32::try_from(element.len()).ok()?;
    let mut contents = Rope::from(length.to_le_bytes().to_vec());
    element.pieces().iter().for_each(|piece| contents.push(piece.clone()));
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;
    use crate::signature::TensorSpec;

    fn shape(datatype: Datatype, shape: Vec<Dimension>, batched: bool, len: usize) -> Option<Vec<i64>> {
        let spec = TensorSpec { name: "x".to_owned(), datatype, shape, labels: Vec::new(), optional: false };
        let (model, inputs) = ("m".to_owned(), vec![spec]);
        let signature = Signature { model, version: 1, inputs, outputs: Vec::new(), batched };
        let infer = decode(vec![0; len].into(), &signature, "m", "")?;
        Some(infer.inputs[0].shape.to_vec())
    }

    #[test]
    fn the_length_tells_the_shape() {
        let any = || vec![Dimension::Any, Dimension::Any];
        let two = || vec![Dimension::Any, Dimension::Fixed(2)];
        assert_eq!(shape(Datatype::Fp32, any(), true, 12), Some(vec![1, 3]));
        assert_eq!(shape(Datatype::Fp32, any(), false, 12), None);
        assert_eq!(shape(Datatype::Fp32, two(), false, 24), Some(vec![3, 2]));
        assert_eq!(shape(Datatype::Fp32, two(), true, 99), Some(vec![1, 2]));
        assert_eq!(shape(Datatype::Bytes, two(), true, 1), None);
        assert_eq!(
            shape(Datatype::Bytes, vec![Dimension::Any, Dimension::Fixed(1)], true, 5),
            Some(vec![1, 1])
        );
        assert_eq!(
            shape(Datatype::Fp32, vec![Dimension::Fixed(0), Dimension::Any], false, 4),
            Some(vec![0, 4])
        );
    }
}
