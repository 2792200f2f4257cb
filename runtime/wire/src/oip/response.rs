//! Encodes `inference.ModelInferResponse` and `inference.ModelStreamInferResponse`.

use std::borrow::Cow;

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::grpc::frame;
use crate::oip::classification::classify;
use crate::output::View;
use crate::protobuf::{field_len, put_bytes, put_length, put_varint, varint_len};
use crate::signature::{SelectedOutput, Shape, Signature};

/// The constant parts of the responses of one model, encoded once.
#[derive(Debug)]
pub struct Template {
    /// model_name and model_version.
    head: Vec<u8>,
    /// The name and datatype of each output.
    outputs: Vec<Vec<u8>>,
}

impl Template {
    /// Creates the template of a model's responses.
    pub fn new(signature: &Signature) -> Template {
        let mut head = Vec::new();
        put_bytes(&mut head, 1, signature.model.as_bytes());
        put_bytes(&mut head, 2, signature.version.to_string().as_bytes());
        let output = |spec: &crate::signature::TensorSpec| {
            let mut output = Vec::new();
            put_bytes(&mut output, 1, spec.name.as_bytes());
            put_bytes(&mut output, 2, spec.datatype.name().as_bytes());
            output
        };
        Template { head, outputs: signature.outputs.iter().map(output).collect() }
    }

    /// Encodes a response as a frame whose prefix is not yet filled in.
    ///
    /// `stream` wraps it in the message of ModelStreamInfer; `last` marks it as the final response.
    pub fn encode(&self, id: &str, stream: bool, last: bool, tensors: &[Tensor<'_>]) -> Vec<u8> {
        let parameters = if last { FINAL } else { &[] };
        let raw: usize = tensors.iter().map(|tensor| field_len(tensor.data.len())).sum();
        let outputs: usize = tensors.iter().map(|tensor| field_len(self.output_len(tensor))).sum();
        let id_len = if id.is_empty() { 0 } else { field_len(id.len()) };
        let len = self.head.len() + id_len + parameters.len() + outputs + raw;
        let mut target = frame::begin(len + 12);
        if stream {
            put_length(&mut target, 2, len);
        }
        let begin = target.len();
        target.extend_from_slice(&self.head);
        if !id.is_empty() {
            put_bytes(&mut target, 3, id.as_bytes());
        }
        target.extend_from_slice(parameters);
        tensors.iter().for_each(|tensor| self.put_output(&mut target, tensor));
        tensors.iter().for_each(|tensor| put_bytes(&mut target, 6, &tensor.data));
        debug_assert_eq!(target.len() - begin, len, "the length is known before the message");
        target
    }

    fn output_len(&self, tensor: &Tensor<'_>) -> usize {
        self.output_head(tensor).len() + field_len(shape_len(&tensor.shape))
    }

    fn put_output(&self, target: &mut Vec<u8>, tensor: &Tensor<'_>) {
        put_length(target, 5, self.output_len(tensor));
        target.extend_from_slice(&self.output_head(tensor));
        put_length(target, 3, shape_len(&tensor.shape));
        tensor.shape.iter().for_each(|&size| put_varint(target, size as u64));
    }

    fn output_head(&self, tensor: &Tensor<'_>) -> Cow<'_, [u8]> {
        let head = &self.outputs[tensor.position];
        if !tensor.classified {
            return Cow::Borrowed(head);
        }
        // The name as in the signature, but the datatype BYTES.
        let datatype_at = head.len() - field_len(tensor.datatype.name().len());
        let mut changed = head[..datatype_at].to_vec();
        put_bytes(&mut changed, 2, Datatype::Bytes.name().as_bytes());
        Cow::Owned(changed)
    }
}

fn shape_len(shape: &Shape) -> usize {
    shape.iter().map(|&size| varint_len(size as u64)).sum()
}

/// `parameters {"triton_final_response": true}`.
const FINAL: &[u8] = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01";

/// One output of a response.
pub struct Tensor<'a> {
    /// Its position in the signature.
    pub position: usize,
    datatype: Datatype,
    classified: bool,
    /// Its shape.
    pub shape: Shape,
    /// Its elements, in the form of raw contents.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Tensor<'a> {
    /// Converts an output to the requested form: unchanged, or its top classes.
    pub fn new(view: View<'a>, selected: SelectedOutput, signature: &Signature) -> Tensor<'a> {
        let spec = &signature.outputs[view.position];
        let (position, datatype) = (view.position, spec.datatype);
        if selected.classes == 0 {
            return Tensor {
                position,
                datatype,
                classified: false,
                shape: view.shape,
                data: view.data.into(),
            };
        }
        let (shape, classes) = classify(&view, spec, signature.batched, selected.classes as usize);
        let mut data = Vec::new();
        classes.iter().for_each(|class| bytes_tensor::put(&mut data, class.as_bytes()));
        Tensor { position, datatype, classified: true, shape, data: data.into() }
    }

    /// The datatype that is sent: BYTES for classes, which are text.
    pub fn datatype(&self) -> Datatype {
        if self.classified { Datatype::Bytes } else { self.datatype }
    }
}

/// Encodes `ModelStreamInferResponse` with an already encoded response, marked as the final one to its request.
pub fn stream_answer(message: &[u8]) -> Vec<u8> {
    let len = message.len() + FINAL.len();
    let mut target = frame::begin(len + 12);
    put_length(&mut target, 2, len);
    target.extend_from_slice(message);
    target.extend_from_slice(FINAL);
    target
}

/// Encodes `ModelStreamInferResponse` with an error and an empty response that carries the request's id.
pub fn stream_error(message: &str, id: &str) -> Vec<u8> {
    let mut target = frame::begin(message.len() + id.len() + 16);
    put_bytes(&mut target, 1, message.as_bytes());
    put_length(&mut target, 2, if id.is_empty() { 0 } else { field_len(id.len()) });
    if !id.is_empty() {
        put_bytes(&mut target, 3, id.as_bytes());
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::Reader;
    use crate::rope::Rope;

    #[test]
    fn the_final_mark_is_a_parameter() {
        let rope = Rope::from(FINAL.to_vec());
        let mut reader = Reader::new(&rope);
        let (field, _) = reader.field().unwrap().unwrap();
        assert_eq!(field, 4);
        let mut entry = reader.message().unwrap();
        entry.field().unwrap().unwrap();
        assert_eq!(entry.text().unwrap(), "triton_final_response");
        assert_eq!(reader.field().unwrap(), None);
    }
}
