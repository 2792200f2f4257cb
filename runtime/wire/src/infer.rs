//! An inference request of any protocol: decoded, but not yet checked against a signature.

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
    /// The client's id of the request, returned in the response.
    pub id: CompactString,
    /// The other request parameters.
    pub parameters: Vec<(CompactString, Parameter)>,
    /// The inputs, in the client's order.
    pub inputs: Vec<Input>,
    /// The requested outputs, in the client's order; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// The error for the first unsupported feature that was requested; reported before any other error.
    pub unsupported: Option<Status>,
    /// Whether any of its tensors is in shared memory.
    pub shared_memory: bool,
    /// The number of raw contents, if it differs from the number of inputs; reported after errors of names.
    pub raw_mismatch: Option<usize>,
}

/// An output that a client requests.
#[derive(Debug, Default)]
pub struct RequestedOutput {
    /// Its name.
    pub name: CompactString,
    /// Triton's classification extension: return this many top classes; 0: return the tensor itself.
    pub classes: u32,
    /// Over REST, whether its elements are returned as binary data after the JSON.
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

/// The elements of a tensor: row-major, little-endian; each BYTES element is preceded by four bytes of length.
#[derive(Debug)]
pub enum Data {
    /// All of them.
    Raw(Rope),
    /// All of them, in the typed fields of the Open Inference Protocol.
    Typed(Contents),
    /// The tensor had both typed fields and raw contents, which is an error; holds the typed fields.
    Conflicting(Contents),
    /// The first of them; the last one is repeated to the end, and no elements at all means zeros.
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
    /// Returns the value if it is a non-negative integer.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Parameter::Uint64(value) => Some(value),
            Parameter::Int64(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }
}
