//! Encodes `tensorflow.serving.PredictResponse`.
//!
//! Tensors are written to their typed fields, not to `tensor_content`, as TensorFlow Serving does: many clients read
//! only `float_val`.

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::grpc::frame;
use crate::output::View;
use crate::protobuf::{put_bytes, put_integer, put_varint};
use crate::signature::Signature;
use crate::tfs::request::SIGNATURE;

/// Encodes a response as a frame whose prefix is not yet filled in.
pub fn encode<'a>(signature: &Signature, views: impl Iterator<Item = View<'a>>) -> Vec<u8> {
    let mut target = frame::begin(256);
    for view in views {
        let spec = &signature.outputs[view.position];
        let mut entry = Vec::with_capacity(view.data.len() + 64);
        put_bytes(&mut entry, 1, spec.name.as_bytes());
        put_bytes(&mut entry, 2, &tensor(spec.datatype, &view));
        put_bytes(&mut target, 1, &entry);
    }
    let mut version = Vec::new();
    put_integer(&mut version, 1, signature.version);
    let mut spec = Vec::new();
    put_bytes(&mut spec, 1, signature.model.as_bytes());
    put_bytes(&mut spec, 2, &version);
    put_bytes(&mut spec, 3, SIGNATURE.as_bytes());
    put_bytes(&mut target, 2, &spec);
    target
}

/// `tensorflow.TensorProto`.
fn tensor(datatype: Datatype, view: &View<'_>) -> Vec<u8> {
    let mut target = Vec::with_capacity(view.data.len() + 32);
    put_integer(&mut target, 1, datatype.tensorflow());
    let mut shape = Vec::new();
    for &size in &view.shape {
        let mut dimension = Vec::new();
        put_integer(&mut dimension, 1, size as u64);
        put_bytes(&mut shape, 2, &dimension);
    }
    put_bytes(&mut target, 2, &shape);
    let data = view.data;
    let mut packed = Vec::new();
    let mut varints =
        |values: &mut dyn Iterator<Item = u64>| values.for_each(|value| put_varint(&mut packed, value));
    let field = match datatype {
        Datatype::Fp32 | Datatype::Fp64 => {
            put_bytes(&mut target, if datatype == Datatype::Fp32 { 5 } else { 6 }, data);
            return target;
        }
        Datatype::Bytes => {
            for element in bytes_tensor::elements(data) {
                put_bytes(&mut target, 8, element.expect("the transport itself wrote these contents"));
            }
            return target;
        }
        Datatype::Bool => {
            varints(&mut data.iter().map(|&byte| byte.into()));
            11
        }
        Datatype::Uint8 => {
            varints(&mut data.iter().map(|&byte| byte.into()));
            7
        }
        Datatype::Int8 => {
            varints(&mut data.iter().map(|&byte| i64::from(byte as i8) as u64));
            7
        }
        Datatype::Int16 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| i64::from(i16::from_le_bytes(bytes)) as u64));
            7
        }
        Datatype::Uint16 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes).into()));
            7
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes).into()));
            13
        }
        Datatype::Int32 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| i64::from(i32::from_le_bytes(bytes)) as u64));
            7
        }
        Datatype::Uint32 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes).into()));
            16
        }
        Datatype::Int64 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as u64));
            10
        }
        Datatype::Uint64 => {
            varints(&mut data.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)));
            17
        }
    };
    put_bytes(&mut target, field, &packed);
    target
}
