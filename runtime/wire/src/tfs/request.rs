//! Decodes `tensorflow.serving.PredictRequest`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use compact_str::{CompactString, ToCompactString, format_compact};
use smallvec::SmallVec;

use crate::bytes_tensor;
use crate::contents::fit;
use crate::datatype::Datatype;
use crate::grpc::status::Status;
use crate::infer::{Data, InferRequest, Input, RequestedOutput};
use crate::protobuf::Wire::{Fixed32, Fixed64, Length, Varint};
use crate::protobuf::{Malformed, Reader};
use crate::rope::Rope;
use crate::signature::quote;

/// The name of the only signature that models have here.
pub const SIGNATURE: &str = "serving_default";

/// Decodes a request; tensors in `tensor_content` share the message's memory.
pub fn decode(message: &Rope) -> Result<InferRequest, Malformed> {
    let mut infer = InferRequest::default();
    let mut positions = HashMap::new();
    let mut reader = Reader::new(message);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => model_spec(reader.message()?, &mut infer)?,
            (2, Length) => {
                let input = input(reader.message()?, &mut infer)?;
                put_input(&mut infer.inputs, &mut positions, input);
            }
            (3, Length) => {
                infer.outputs.push(RequestedOutput { name: reader.text()?, ..RequestedOutput::default() })
            }
            _ => reader.skip(field, wire)?,
        }
    }
    Ok(infer)
}

/// Adds an entry of the map of inputs; of several entries with the same name, the last wins.
fn put_input(inputs: &mut Vec<Input>, positions: &mut HashMap<CompactString, usize>, input: Input) {
    match positions.entry(input.name.clone()) {
        Entry::Occupied(known) => inputs[*known.get()] = input,
        Entry::Vacant(place) => {
            place.insert(inputs.len());
            inputs.push(input);
        }
    }
}

/// `ModelSpec`: the name, and a version by number or label.
fn model_spec(mut reader: Reader<'_>, infer: &mut InferRequest) -> Result<(), Malformed> {
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => infer.model = reader.text()?,
            (2, Length) => infer.version = wrapped_integer(reader.message()?)?.to_compact_string(),
            (3, Length) => {
                let name = reader.text()?;
                if !name.is_empty() && name != SIGNATURE {
                    infer.unsupported = Some(Status::invalid(format!(
                        "signature {} is not known; every model has one, {}",
                        quote(&name),
                        quote(SIGNATURE)
                    )));
                }
            }
            (4, Length) => infer.version = reader.text()?,
            _ => reader.skip(field, wire)?,
        }
    }
    Ok(())
}

/// `google.protobuf.Int64Value`.
fn wrapped_integer(mut reader: Reader<'_>) -> Result<i64, Malformed> {
    let mut value = 0;
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Varint) => value = reader.varint()? as i64,
            _ => reader.skip(field, wire)?,
        }
    }
    Ok(value)
}

/// An entry of `map<string, TensorProto>`.
fn input(mut reader: Reader<'_>, infer: &mut InferRequest) -> Result<Input, Malformed> {
    let mut name = CompactString::default();
    let mut tensor = Tensor::default();
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Length) => name = reader.text()?,
            (2, Length) => tensor.read(reader.message()?)?,
            _ => reader.skip(field, wire)?,
        }
    }
    let datatype = match Datatype::from_tensorflow(tensor.dtype) {
        Some(datatype) => CompactString::const_new(datatype.name()),
        None => format_compact!("tensorflow.DataType {}", tensor.dtype),
    };
    let data = match tensor.content.is_empty() {
        true => Data::Abbreviated(tensor.elements().unwrap_or_else(|message| {
            let message = format!("input {}: {message}", quote(&name));
            infer.unsupported.get_or_insert_with(|| Status::invalid(message));
            Rope::default()
        })),
        false => Data::Raw(tensor.content),
    };
    Ok(Input { name, datatype, shape: tensor.shape, data })
}

/// `tensorflow.TensorProto`.
#[derive(Default)]
struct Tensor {
    dtype: u64,
    shape: SmallVec<[i64; 6]>,
    content: Rope,
    /// Elements by the number of their typed field, in the width of the field.
    values: SmallVec<[(u32, Vec<u8>); 1]>,
}

impl Tensor {
    fn read(&mut self, mut reader: Reader<'_>) -> Result<(), Malformed> {
        while let Some((field, wire)) = reader.field()? {
            match (field, wire) {
                (1, Varint) => self.dtype = reader.varint()?,
                (2, Length) => shape(reader.message()?, &mut self.shape)?,
                (4, Length) => self.content = reader.bytes()?,
                (5, Fixed32 | Length) => reader.fixeds::<4>(wire, self.values(field))?,
                (6, Fixed64 | Length) => reader.fixeds::<8>(wire, self.values(field))?,
                (8, Length) => bytes_tensor::put(self.values(field), &reader.bytes()?.into_bytes()),
                // bool_val
                (11, Varint | Length) => {
                    let values = self.values(field);
                    reader.varints(wire, |value| values.push(u8::from(value != 0)))?;
                }
                // int_val, half_val, uint32_val
                (7 | 13 | 16, Varint | Length) => {
                    let values = self.values(field);
                    reader.varints(wire, |value| values.extend_from_slice(&(value as u32).to_le_bytes()))?;
                }
                // int64_val, uint64_val
                (10 | 17, Varint | Length) => {
                    let values = self.values(field);
                    reader.varints(wire, |value| values.extend_from_slice(&value.to_le_bytes()))?;
                }
                _ => reader.skip(field, wire)?,
            }
        }
        Ok(())
    }

    fn values(&mut self, field: u32) -> &mut Vec<u8> {
        let known = self.values.iter().position(|(known, _)| *known == field);
        let position = known.unwrap_or_else(|| {
            self.values.push((field, Vec::new()));
            self.values.len() - 1
        });
        &mut self.values[position].1
    }

    /// Takes the elements of the datatype's field, in the datatype's width; as in TensorFlow, other fields are ignored.
    fn elements(&mut self) -> Result<Rope, String> {
        let Some(datatype) = Datatype::from_tensorflow(self.dtype) else { return Ok(Rope::default()) };
        let own = self.values.iter_mut().find(|(field, _)| *field == field_of(datatype));
        fit(own.map(|(_, values)| std::mem::take(values)).unwrap_or_default(), datatype, true)
    }
}

/// Returns the number of the field that holds a datatype's elements.
fn field_of(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Fp32 => 5,
        Datatype::Fp64 => 6,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Uint8 | Datatype::Uint16 => 7,
        Datatype::Bytes => 8,
        Datatype::Int64 => 10,
        Datatype::Bool => 11,
        Datatype::Fp16 | Datatype::Bf16 => 13,
        Datatype::Uint32 => 16,
        Datatype::Uint64 => 17,
    }
}

/// `TensorShapeProto`: a repeated `Dim { size }`.
fn shape(mut reader: Reader<'_>, shape: &mut SmallVec<[i64; 6]>) -> Result<(), Malformed> {
    while let Some((field, wire)) = reader.field()? {
        if (field, wire) != (2, Length) {
            reader.skip(field, wire)?;
            continue;
        }
        let mut dimension = reader.message()?;
        let mut size = 0;
        while let Some((field, wire)) = dimension.field()? {
            match (field, wire) {
                (1, Varint) => size = dimension.varint()? as i64,
                _ => dimension.skip(field, wire)?,
            }
        }
        shape.push(size);
    }
    Ok(())
}
