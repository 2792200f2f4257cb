//! The inputs and outputs of a model, and the check of requests against them.
//!
//! The messages are identical to those of `kerve.runtime.signature`, so that the transports behave the same.

use std::fmt::{Display, Write};
use std::hash::{Hash, Hasher};

use smallvec::SmallVec;

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::grpc::status::Status;
use crate::infer::{Data, InferRequest, Input, RequestedOutput};
use crate::rope::Rope;

/// The concrete shape of a tensor.
pub type Shape = SmallVec<[usize; 6]>;

/// One dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Exactly this size.
    Fixed(usize),
    /// Free, but equal within a request for all dimensions with this name.
    Named(String),
    /// Free.
    Any,
}

impl Display for Dimension {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dimension::Fixed(size) => write!(formatter, "{size}"),
            Dimension::Named(name) => formatter.write_str(name),
            Dimension::Any => formatter.write_char('?'),
        }
    }
}

/// One input or output.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its shape, the batch dimension included.
    pub shape: Vec<Dimension>,
    /// Class names along the last axis; empty if there are none.
    pub labels: Vec<String>,
    /// Whether a request may omit it.
    pub optional: bool,
}

/// The inputs and outputs of one version of a model.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// In the model's order.
    pub inputs: Vec<TensorSpec>,
    /// In the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Whether axis 0 of all inputs and outputs is the same free dimension, along which requests can be batched.
    pub batched: bool,
}

/// One input of a checked request.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its shape.
    pub shape: Shape,
    /// All of its elements, as raw contents.
    pub data: Rope,
}

/// A request that matches a signature.
#[derive(Debug)]
pub struct ValidRequest {
    /// One for each input of the signature, in its order; None for an omitted optional input.
    pub tensors: SmallVec<[Option<Tensor>; 2]>,
    /// The size of the batch dimension; 1 for a model without one.
    pub rows: usize,
    /// The requested outputs, in the client's order; empty for all.
    pub requested: SmallVec<[SelectedOutput; 4]>,
}

/// An output that a request selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectedOutput {
    /// Its position in the signature.
    pub position: u16,
    /// The number of top classes to return; 0: return the tensor itself.
    pub classes: u32,
    /// Over REST, whether its elements are returned as binary data after the JSON.
    pub binary: bool,
}

impl ValidRequest {
    /// Returns a hash of what requests in one batch must have in common: the shapes without the batch dimension.
    pub fn key(&self, batched: bool) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for tensor in &self.tensors {
            tensor.as_ref().map(|tensor| &tensor.shape[usize::from(batched)..]).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Signature {
    /// Checks a request against the signature; INVALID_ARGUMENT if it does not match.
    pub fn check(&self, infer: InferRequest) -> Result<ValidRequest, Status> {
        if let Some(status) = infer.unsupported {
            return Err(status);
        }
        self.check_names(&infer.inputs)?;
        let requested = self.check_outputs(&infer.outputs)?;
        if let Some(got) = infer.raw_mismatch {
            return Err(Status::invalid(format!(
                "expected one entry of raw_input_contents for each of the {} inputs, got {got}",
                infer.inputs.len()
            )));
        }
        let mut tensors: SmallVec<[Option<Tensor>; 2]> = SmallVec::from_elem(None, self.inputs.len());
        let mut sizes = Sizes::new();
        for input in infer.inputs {
            let position = self.position(&input.name).expect("the names have been checked");
            tensors[position] = Some(check_tensor(&self.inputs[position], input, &mut sizes)?);
        }
        let rows = if self.batched { self.rows(&tensors)? } else { 1 };
        Ok(ValidRequest { tensors, rows, requested })
    }

    /// Returns the number of rows; an error unless all tensors have the same, which reading their memory relies on.
    pub fn rows(&self, tensors: &[Option<Tensor>]) -> Result<usize, Status> {
        let given = self.inputs.iter().zip(tensors);
        let mut rows = given.filter_map(|(spec, tensor)| Some((spec, tensor.as_ref()?.shape[0])));
        let Some((first, expected)) = rows.next() else { return Ok(1) };
        match rows.find(|&(_, got)| got != expected) {
            None => Ok(expected),
            Some((other, got)) => Err(Status::invalid(format!(
                "input {}: expected {expected} rows, as in input {}, got {got}",
                quote(&other.name),
                quote(&first.name)
            ))),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    fn check_names(&self, inputs: &[Input]) -> Result<(), Status> {
        let takes = || format!("model {} takes: {}", quote(&self.model), names(&self.inputs));
        for (position, input) in inputs.iter().enumerate() {
            if self.position(&input.name).is_none() {
                return Err(Status::invalid(format!("unexpected input {}; {}", quote(&input.name), takes())));
            }
            if inputs[..position].iter().any(|other| other.name == input.name) {
                return Err(Status::invalid(format!("input {} is given twice", quote(&input.name))));
            }
        }
        for spec in self.inputs.iter().filter(|spec| !spec.optional) {
            if !inputs.iter().any(|input| input.name == spec.name) {
                return Err(Status::invalid(format!("input {} is missing; {}", quote(&spec.name), takes())));
            }
        }
        Ok(())
    }

    fn check_outputs(&self, outputs: &[RequestedOutput]) -> Result<SmallVec<[SelectedOutput; 4]>, Status> {
        let position = |name: &str| self.outputs.iter().position(|spec| spec.name == name);
        let find = |requested: &RequestedOutput| match position(&requested.name) {
            Some(position) => Ok(SelectedOutput {
                position: position as u16,
                classes: requested.classes,
                binary: requested.binary,
            }),
            None => Err(Status::invalid(format!(
                "unexpected inference output {} for model {}; it has: {}",
                quote(&requested.name),
                quote(&self.model),
                names(&self.outputs)
            ))),
        };
        let mut requested: SmallVec<[SelectedOutput; 4]> = SmallVec::new();
        for output in outputs {
            let output = find(output)?;
            // An output requested several times is sent once, so that responses do not exceed the model's outputs.
            if requested.iter().any(|known| known.position == output.position) {
                continue;
            }
            let spec = &self.outputs[usize::from(output.position)];
            if output.classes > 0 && spec.datatype == Datatype::Bytes {
                return Err(Status::invalid(format!(
                    "class result not available for output {} due to unsupported type 'BYTES'",
                    quote(&spec.name)
                )));
            }
            requested.push(output);
        }
        Ok(requested)
    }
}

/// The size of each named dimension, and the input that set it.
type Sizes<'a> = SmallVec<[(&'a str, usize, &'a str); 4]>;

fn check_tensor<'a>(spec: &'a TensorSpec, input: Input, sizes: &mut Sizes<'a>) -> Result<Tensor, Status> {
    if input.datatype != spec.datatype.name() {
        return Err(Status::invalid(format!(
            "input {}: expected datatype {}, got {}",
            quote(&spec.name),
            spec.datatype.name(),
            input.datatype
        )));
    }
    let mismatch = |more: &str| {
        let (expected, got) = (show(&spec.shape), show(&input.shape));
        Status::invalid(format!("input {}: expected shape {expected}, got {got}{more}", quote(&spec.name)))
    };
    if input.shape.len() != spec.shape.len() {
        return Err(mismatch(""));
    }
    let mut shape = Shape::new();
    for (expected, &size) in spec.shape.iter().zip(&input.shape) {
        let size = usize::try_from(size).map_err(|_| mismatch(""))?;
        match expected {
            Dimension::Fixed(fixed) if *fixed != size => return Err(mismatch("")),
            Dimension::Named(name) => match sizes.iter().find(|(known, ..)| known == name) {
                Some(&(_, agreed, elsewhere)) if agreed != size => {
                    return Err(mismatch(&format!("; {name} is {agreed} in input {}", quote(elsewhere))));
                }
                Some(_) => {}
                None => sizes.push((name, size, &spec.name)),
            },
            _ => {}
        }
        shape.push(size);
    }
    let data = check_data(spec, &shape, input.data)?;
    Ok(Tensor { shape, data })
}

fn check_data(spec: &TensorSpec, shape: &Shape, data: Data) -> Result<Rope, Status> {
    let invalid = |problem: String| Status::invalid(format!("input {}: {problem}", quote(&spec.name)));
    let too_large = || invalid(format!("shape {} is too large", show(shape)));
    let elements = shape.iter().try_fold(1_u128, |product, &size| product.checked_mul(size as u128));
    let elements = elements.ok_or_else(too_large)?;
    let name = spec.datatype.name();
    let data = match data {
        Data::Raw(data) => data,
        Data::Typed(contents) => contents.into_raw(spec.datatype, elements, &show(shape)).map_err(invalid)?,
        Data::Abbreviated(data) => bytes_tensor::repeat(data, spec.datatype, elements).map_err(invalid)?,
        Data::Conflicting(contents) => {
            let field = contents.given().next().unwrap_or_default();
            return Err(invalid(format!("expected either raw_input_contents or {field}, got both")));
        }
    };
    match spec.datatype.size() {
        Some(size) => {
            let (expected, got) = (elements.saturating_mul(size as u128), data.len());
            if got as u128 != expected {
                return Err(invalid(format!(
                    "expected {expected} bytes for {name} {}, got {got}",
                    show(shape)
                )));
            }
        }
        None => {
            let got = bytes_tensor::count(&data).map_err(invalid)?;
            if got as u128 != elements {
                return Err(invalid(format!(
                    "expected {elements} elements for {name} {}, got {got}",
                    show(shape)
                )));
            }
        }
    }
    // A shape such as [0, 2^62, 2^62] has no elements, but NumPy cannot create an array of it.
    let countable = shape.iter().map(|&size| size.max(1)).try_fold(8_usize, usize::checked_mul);
    countable.filter(|&bytes| bytes <= isize::MAX as usize).ok_or_else(too_large)?;
    Ok(if spec.datatype == Datatype::Bool { truths(data) } else { data })
}

/// Converts nonzero bytes to 1: clients may send any nonzero byte for true, but NumPy requires 0 or 1.
fn truths(data: Rope) -> Rope {
    if data.pieces().iter().all(|piece| piece.iter().all(|&byte| byte <= 1)) {
        return data;
    }
    data.into_bytes().iter().map(|&byte| u8::from(byte != 0)).collect::<Vec<u8>>().into()
}

/// Formats a shape for messages.
fn show(shape: &[impl Display]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.join(", ")
}

/// Quotes a name as Python's `repr` does.
pub fn quote(name: &str) -> String {
    let mark = if name.contains('\'') && !name.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(mark);
    for character in name.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if character == mark => quoted.extend(['\\', mark]),
            _ if is_printable(character) => quoted.push(character),
            _ => {
                let code = character as u32;
                let written = match code {
                    ..=0xff => write!(quoted, "\\x{code:02x}"),
                    0x100..=0xffff => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
                written.expect("a string takes everything");
            }
        }
    }
    quoted.push(mark);
    quoted
}

/// Whether a character is printed unescaped; invisible and bidirectional control characters are escaped.
fn is_printable(character: char) -> bool {
    // Behind a letter, because `escape_debug` escapes any combining character at the start of a string.
    character.is_ascii_graphic()
        || character == ' '
        || ["a", character.encode_utf8(&mut [0; 4])].concat().escape_debug().count() == 2
}
