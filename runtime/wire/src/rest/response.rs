//! The response to an inference request of the Open Inference Protocol in JSON, optionally followed by binary tensors.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderName};
use http::{HeaderValue, StatusCode};

use crate::grpc::compression::Encoding;
use crate::grpc::frame::{self, PREFIX};
use crate::oip::response::Tensor;
use crate::output::View;
use crate::rest::numbers::{ElementWriter, integer, list};
use crate::rest::{Reply, status, text};
use crate::signature::{SelectedOutput, Signature};

/// The header with the length of the JSON, if binary tensors follow it.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Encodes a response after a prefix in the form of gRPC's: whether there are binary tensors, and the length of the
/// JSON before them.
pub fn encode<'a>(
    id: &str,
    signature: &Signature,
    outputs: impl Iterator<Item = (View<'a>, SelectedOutput)>,
) -> Vec<u8> {
    let mut target = frame::begin(512);
    let mut behind = Vec::new();
    target.extend_from_slice(b"{\"model_name\":");
    text::put(&mut target, &signature.model);
    target.extend_from_slice(b",\"model_version\":\"");
    integer(&mut target, signature.version);
    target.push(b'"');
    if !id.is_empty() {
        target.extend_from_slice(b",\"id\":");
        text::put(&mut target, id);
    }
    target.extend_from_slice(b",\"outputs\":[");
    for (index, (view, selected)) in outputs.enumerate() {
        if index > 0 {
            target.push(b',');
        }
        let tensor = Tensor::new(view, selected, signature);
        output(&mut target, &tensor, &signature.outputs[tensor.position].name, selected.binary);
        behind.extend(selected.binary.then_some(tensor));
    }
    target.extend_from_slice(b"]}");
    if !behind.is_empty() {
        let json = u32::try_from(target.len() - PREFIX).expect("JSON before binary tensors is short");
        target[0] = 1;
        target[1..PREFIX].copy_from_slice(&json.to_be_bytes());
        behind.iter().for_each(|tensor| target.extend_from_slice(&tensor.data));
    }
    target
}

fn output(target: &mut Vec<u8>, tensor: &Tensor<'_>, name: &str, binary: bool) {
    target.extend_from_slice(b"{\"name\":");
    text::put(target, name);
    target.extend_from_slice(b",\"datatype\":\"");
    target.extend_from_slice(tensor.datatype().name().as_bytes());
    target.extend_from_slice(b"\",\"shape\":");
    list(target, &tensor.shape, |target, &size| integer(target, size));
    if binary {
        target.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        integer(target, tensor.data.len());
        target.extend_from_slice(b"}}");
    } else {
        target.extend_from_slice(b",\"data\":");
        let elements: usize = tensor.shape.iter().product();
        ElementWriter::new(tensor.datatype(), &tensor.data, false).nest(target, &[elements]);
        target.push(b'}');
    }
}

/// Converts the result of `encode` to a response; compresses it if an encoding is given and makes it smaller.
pub fn reply(answer: Vec<u8>, encoding: Option<Encoding>) -> Reply {
    let json = (answer[0] == 1).then(|| u32::from_be_bytes([answer[1], answer[2], answer[3], answer[4]]));
    let compressed = encoding.and_then(|encoding| Some((encoding, encoding.compress(&answer[PREFIX..])?)));
    let (encoding, body) = match compressed {
        Some((encoding, body)) => (Some(encoding), body.into()),
        None => (None, Bytes::from(answer).slice(PREFIX..)),
    };
    let content_type = if json.is_some() { "application/octet-stream" } else { "application/json" };
    let mut reply = status::reply(StatusCode::OK, content_type, body);
    let headers = reply.headers_mut();
    json.map(|length| headers.insert(JSON_LENGTH, length.into()));
    encoding.map(|encoding| headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name())));
    reply
}
