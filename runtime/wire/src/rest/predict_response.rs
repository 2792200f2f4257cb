//! The response to a predict request of TensorFlow Serving's REST API.

use smallvec::SmallVec;

use crate::datatype::Datatype;
use crate::grpc::frame;
use crate::output::View;
use crate::rest::numbers::{ElementWriter, list};
use crate::rest::text;
use crate::signature::Signature;

/// The suffix of the names of outputs whose byte strings are binary.
const BINARY: &str = "_bytes";

/// Encodes a response in the form of `response::encode`: rows, of which all outputs must have the same number, or
/// whole tensors.
///
/// A single output is written without its name.
pub fn encode<'a>(signature: &Signature, rows: bool, views: impl Iterator<Item = View<'a>>) -> Vec<u8> {
    let views: SmallVec<[View<'a>; 4]> = views.collect();
    let mut columns: SmallVec<[Column<'_>; 4]> =
        views.iter().map(|view| Column::new(signature, view)).collect();
    let mut target = frame::begin(512);
    target.extend_from_slice(if rows { b"{\"predictions\":" } else { b"{\"outputs\":" });
    match &mut columns[..] {
        [only] => only.put(&mut target, 0),
        all if rows => {
            let length = all.first().map_or(0, |first| first.shape[0]);
            list(&mut target, 0..length, |target, _| object(target, all, 1));
        }
        all => object(&mut target, all, 0),
    }
    target.push(b'}');
    target
}

/// Appends an object with the next value of each output by name; values omit the first `from` axes.
fn object(target: &mut Vec<u8>, columns: &mut [Column<'_>], from: usize) {
    target.push(b'{');
    for (index, column) in columns.iter_mut().enumerate() {
        if index > 0 {
            target.push(b',');
        }
        text::put(target, column.name);
        target.push(b':');
        column.put(target, from);
    }
    target.push(b'}');
}

/// An output, and its elements that have not been written yet.
struct Column<'a> {
    name: &'a str,
    shape: &'a [usize],
    elements: ElementWriter<'a>,
}

impl<'a> Column<'a> {
    fn new(signature: &'a Signature, view: &'a View<'_>) -> Column<'a> {
        let spec = &signature.outputs[view.position];
        let base64 = spec.datatype == Datatype::Bytes && spec.name.ends_with(BINARY);
        let elements = ElementWriter::new(spec.datatype, view.data, base64);
        Column { name: &spec.name, shape: &view.shape, elements }
    }

    fn put(&mut self, target: &mut Vec<u8>, from: usize) {
        self.elements.nest(target, &self.shape[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::frame::PREFIX;
    use crate::signature::{Shape, TensorSpec};

    #[test]
    fn rows_have_the_names_of_several_outputs() {
        let spec = |name: &str, datatype| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: Vec::new(),
            labels: Vec::new(),
            optional: false,
        };
        let outputs = vec![spec("y", Datatype::Uint8), spec("image_bytes", Datatype::Bytes)];
        let signature =
            Signature { model: "m".to_owned(), version: 1, inputs: Vec::new(), outputs, batched: true };
        let view = |position, shape: &[usize], data| View {
            position,
            shape: Shape::from_slice(shape),
            data,
            owner: None,
        };
        let views = || [view(0, &[2, 2], &[1, 2, 3, 4][..]), view(1, &[2], &b"\x01\0\0\0a\0\0\0\0"[..])];
        let text = |rows, count| {
            let answer = encode(&signature, rows, views().into_iter().take(count));
            String::from_utf8(answer[PREFIX..].to_vec()).unwrap()
        };
        assert_eq!(text(true, 1), r#"{"predictions":[[1,2],[3,4]]}"#);
        assert_eq!(text(false, 1), r#"{"outputs":[[1,2],[3,4]]}"#);
        assert_eq!(
            text(true, 2),
            r#"{"predictions":[{"y":[1,2],"image_bytes":{"b64":"YQ=="}},{"y":[3,4],"image_bytes":{"b64":""}}]}"#
        );
        assert_eq!(
            text(false, 2),
            r#"{"outputs":{"y":[[1,2],[3,4]],"image_bytes":[{"b64":"YQ=="},{"b64":""}]}}"#
        );
    }
}
