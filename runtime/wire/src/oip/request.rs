//! Decodes `inference.ModelInferRequest`.

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::contents::Contents;
use crate::grpc::status::{Code, Status};
use crate::infer::{Data, InferRequest, Input, Parameter, RequestedOutput};
use crate::protobuf::Wire::{Fixed64, Length, Varint};
use crate::protobuf::{Malformed, Reader};
use crate::rope::Rope;
use crate::signature::quote;

/// Decodes a request; tensors in raw contents share the message's memory.
pub fn decode(message: &Rope) -> Result<InferRequest, Malformed> {
    let mut infer = InferRequest::default();
    let mut raw: SmallVec<[Rope; 2]> = SmallVec::new();
    let mut reader = Reader::new(message);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => infer.model = reader.text()?,
            (2, Length) => infer.version = reader.text()?,
            (3, Length) => infer.id = reader.text()?,
            (4, Length) => {
                let (key, value) = entry(reader.message()?)?;
                if NUMBERS.contains(&key.as_str()) {
                    check_number(&key, &value, &mut infer);
                }
                infer.parameters.push((key, value));
            }
            (5, Length) => {
                let input = tensor(reader.message()?, &mut infer)?;
                infer.inputs.push(input);
            }
            (6, Length) => {
                let requested = output(reader.message()?, &mut infer)?;
                infer.outputs.push(requested);
            }
            (7, Length) => raw.push(reader.bytes()?),
            _ => reader.skip(field, wire)?,
        }
    }
    if !raw.is_empty() {
        place_raw(&mut infer, raw);
    }
    Ok(infer)
}

fn place_raw(infer: &mut InferRequest, raw: SmallVec<[Rope; 2]>) {
    if raw.len() != infer.inputs.len() {
        infer.raw_mismatch = Some(raw.len());
    }
    for (input, raw) in infer.inputs.iter_mut().zip(raw) {
        let typed = std::mem::replace(&mut input.data, Data::Raw(raw));
        if let Data::Typed(contents) = typed
            && !contents.is_empty()
        {
            input.data = Data::Conflicting(contents);
        }
    }
}

/// `ModelInferRequest.InferInputTensor`.
fn tensor(mut reader: Reader<'_>, infer: &mut InferRequest) -> Result<Input, Malformed> {
    let (mut name, mut datatype, mut shape) =
        (CompactString::default(), CompactString::default(), SmallVec::new());
    let mut contents = Contents::default();
    let mut shared_memory = false;
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => name = reader.text()?,
            (2, Length) => datatype = reader.text()?,
            (3, Varint | Length) => reader.varints(wire, |size| shape.push(size as i64))?,
            (4, Length) => shared_memory |= entry(reader.message()?)?.0 == SHARED_MEMORY,
            (5, Length) => contents.read(reader.message()?)?,
            _ => reader.skip(field, wire)?,
        }
    }
    if shared_memory {
        infer.shared_memory = true;
        infer.unsupported.get_or_insert_with(|| no_shared_memory(&name));
    }
    Ok(Input { name, datatype, shape, data: Data::Typed(contents) })
}

/// `ModelInferRequest.InferRequestedOutputTensor`.
fn output(mut reader: Reader<'_>, infer: &mut InferRequest) -> Result<RequestedOutput, Malformed> {
    let mut requested = RequestedOutput::default();
    let mut shared_memory = false;
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => requested.name = reader.text()?,
            (2, Length) => match entry(reader.message()?)? {
                (key, _) if key == SHARED_MEMORY => shared_memory = true,
                (key, value) if key == CLASSIFICATION => requested.classes = classes(&value, infer),
                _ => {}
            },
            _ => reader.skip(field, wire)?,
        }
    }
    if shared_memory {
        infer.shared_memory = true;
        infer.unsupported.get_or_insert_with(|| no_shared_memory(&requested.name));
    }
    Ok(requested)
}

/// The parameter of an output that requests its top classes.
pub const CLASSIFICATION: &str = "classification";

/// Returns the number of classes that the parameter requests.
pub fn classes(value: &Parameter, infer: &mut InferRequest) -> u32 {
    check_number(CLASSIFICATION, value, infer);
    value.unsigned().map_or(0, |classes| classes.min(u64::from(u32::MAX)) as u32)
}

/// The request parameters that must be integers.
pub const NUMBERS: [&str; 2] = ["priority", "timeout"];

/// Rejects a parameter that is not an integer, which would otherwise be ignored.
pub fn check_number(key: &str, value: &Parameter, infer: &mut InferRequest) {
    if !matches!(value, Parameter::Int64(_) | Parameter::Uint64(_)) {
        let message = format!("invalid value type for '{key}' parameter, expected int64_param");
        infer.unsupported.get_or_insert_with(|| Status::invalid(message));
    }
}

/// The parameter of a tensor that is in shared memory.
pub const SHARED_MEMORY: &str = "shared_memory_region";

fn no_shared_memory(tensor: &str) -> Status {
    let message = "this server does not support shared memory; send the tensor's contents in the request";
    Status::new(Code::Unimplemented, format!("tensor {}: {message}", quote(tensor)))
}

/// An entry of `map<string, InferParameter>`.
fn entry(mut reader: Reader<'_>) -> Result<(CompactString, Parameter), Malformed> {
    let mut key = CompactString::default();
    let mut value = Parameter::Bool(false);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => key = reader.text()?,
            (2, Length) => value = parameter(reader.message()?)?,
            _ => reader.skip(field, wire)?,
        }
    }
    Ok((key, value))
}

fn parameter(mut reader: Reader<'_>) -> Result<Parameter, Malformed> {
    let mut value = Parameter::Bool(false);
    while let Some((field, wire)) = reader.field()? {
        value = match (field, wire) {
            (1, Varint) => Parameter::Bool(reader.varint()? != 0),
            (2, Varint) => Parameter::Int64(reader.varint()? as i64),
            (3, Length) => Parameter::String(reader.text()?),
            (4, Fixed64) => Parameter::Double(f64::from_le_bytes(reader.fixed()?)),
            (5, Varint) => Parameter::Uint64(reader.varint()?),
            _ => {
                reader.skip(field, wire)?;
                continue;
            }
        }
    }
    Ok(value)
}
