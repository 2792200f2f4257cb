//! An inference request of any protocol: decoded, but not yet held against a signature.

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::contents::Contents;
use crate::grpc::status::Status;
use crate::rope::Rope;

/// A request.
#[derive(Debug, Default)]
pub struct InferRequest {
    /// The name of the model.
    pub model: CompactString,
    /// A version number or a label; empty for the default version.
    pub version: CompactString,
    /// The client's id of the request, sent back with the answer.
    pub id: CompactString,
    /// What else the client said.
    pub parameters: Vec<(CompactString, Parameter)>,
    /// The inputs, in the client's order.
    pub inputs: Vec<Input>,
    /// The outputs wanted, in the client's order; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// The first thing asked for that is not offered; said before anything else.
    pub unsupported: Option<Status>,
    /// Whether a tensor of it is in shared memory.
    pub shared_memory: bool,
    /// How many raw contents came, when that is not one for each input; said after wrong names.
    pub raw_mismatch: Option<usize>,
}

/// An output that a client asks for.
#[derive(Debug, Default)]
pub struct RequestedOutput {
    /// Its name.
    pub name: CompactString,
    /// Triton's classification extension: answer with this many of the best classes; 0: with the tensor itself.
    pub classes: u32,
    /// Over REST, whether its elements are to come as bytes behind the JSON.
    pub binary: bool,
}

/// One input tensor.
#[derive(Debug)]
pub struct Input {
    /// Its name.
    pub name: CompactString,
    /// The name of its datatype.
    pub datatype: CompactString,
    /// Its shape.
    pub shape: SmallVec<[i64; 6]>,
    /// Its elements.
    pub data: Data,
}

/// The elements of a tensor: row-major, little-endian; BYTES with four bytes of length before each element.
#[derive(Debug)]
pub enum Data {
    /// All of them.
    Raw(Rope),
    /// All of them, in the typed fields of the Open Inference Protocol.
    Typed(Contents),
    /// They came in typed fields and raw, which is refused; the typed fields.
    Conflicting(Contents),
    /// The first of them; the last given repeats to the end, and no element at all stands for zeros.
    Abbreviated(Rope),
}

/// The value of a request parameter.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Parameter {
    Bool(bool),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(CompactString),
}

impl Parameter {
    /// The value as a number that is not negative, if it is one.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Parameter::Uint64(value) => Some(value),
            Parameter::Int64(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }
}
