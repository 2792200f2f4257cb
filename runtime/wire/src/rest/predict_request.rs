//! The body of a predict request of TensorFlow Serving's REST API: rows or whole tensors ("Predict API" in its
//! documentation). The datatypes of tensors are those of the signature, their shapes those of the lists.
//!
//! Decoding returns None for bodies that do not follow the documentation: the application reports the error.

use std::fmt::{Formatter, Result as Written};

use compact_str::CompactString;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::infer::{Data, InferRequest, Input};
use crate::rest::elements::{TensorBuilder, Value};
use crate::rest::json::{Entries, Items, List, Object, Skipped};
use crate::rope::Rope;
use crate::signature::Signature;
use crate::tfs::request::SIGNATURE;

/// Decodes a request for a version of a model with this signature.
///
/// Returns it, and whether it is in row format, which the response then has, too.
pub fn decode(
    body: &Rope,
    signature: &Signature,
    model: &str,
    version: &str,
) -> Option<(InferRequest, bool)> {
    let text = body.clone().into_bytes();
    let mut document = Document::new(signature);
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    Object(&mut document).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let rows = document.rows.is_some();
    // Only the outputs of a batched model are known to have a value for each row.
    if rows && !signature.batched {
        return None;
    }
    if !document.given {
        return None;
    }
    let inputs = document.finish()?;
    Some((
        InferRequest { model: model.into(), version: version.into(), inputs, ..InferRequest::default() },
        rows,
    ))
}

/// The content of a body.
struct Document<'a> {
    signature: &'a Signature,
    /// The inputs that have values, with their position.
    columns: SmallVec<[(usize, Column); 2]>,
    /// Whether there are values, in either format.
    given: bool,
    /// Whether the values have names.
    named: Option<bool>,
    /// The number of rows; None for whole tensors.
    rows: Option<usize>,
}

/// The values of one input.
struct Column {
    elements: TensorBuilder,
    /// The number of values: one for each row so far.
    values: usize,
}

impl<'a> Document<'a> {
    fn new(signature: &'a Signature) -> Document<'a> {
        Document { signature, columns: SmallVec::new(), given: false, named: None, rows: None }
    }

    /// Returns the builder for the next value, of the input of that name or the only one. None if there is no such
    /// input, or it already has a value.
    fn place(&mut self, name: Option<&str>) -> Option<&mut TensorBuilder> {
        if *self.named.get_or_insert(name.is_some()) != name.is_some() {
            return None;
        }
        let position = match name {
            Some(name) => self.signature.inputs.iter().position(|spec| spec.name == name)?,
            None => self.only_input()?,
        };
        let index = match self.columns.iter().position(|(known, _)| *known == position) {
            Some(index) => index,
            None => {
                let elements = TensorBuilder::new(self.signature.inputs[position].datatype, 0)?;
                self.columns.push((position, Column { elements, values: 0 }));
                self.columns.len() - 1
            }
        };
        let column = &mut self.columns[index].1;
        let fits = column.values == self.rows.unwrap_or(0);
        column.values += 1;
        fits.then_some(&mut column.elements)
    }

    /// Returns the input that values without a name are for.
    fn only_input(&self) -> Option<usize> {
        let inputs = &self.signature.inputs;
        let needed = |optional: bool| {
            let mut positions = (0..inputs.len()).filter(move |&at| optional || !inputs[at].optional);
            (positions.next(), positions.next())
        };
        match needed(false) {
            (Some(position), None) => Some(position),
            (None, _) => match needed(true) {
                (Some(position), None) => Some(position),
                _ => None,
            },
            _ => None,
        }
    }

    fn finish(self) -> Option<Vec<Input>> {
        let input = |(position, Column { mut elements, values }): (usize, Column)| {
            if let Some(rows) = self.rows {
                elements.end_list(0, rows)?;
            }
            let spec = &self.signature.inputs[position];
            (values == self.rows.unwrap_or(1)).then(|| Input {
                name: spec.name.as_str().into(),
                datatype: spec.datatype.name().into(),
                shape: elements.shape(),
                data: Data::Raw(elements.into_raw().into()),
            })
        };
        self.columns.into_iter().map(input).collect()
    }
}

impl<'de> Entries<'de> for Document<'_> {
    fn entry<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let is_values = matches!(key, "instances" | "inputs");
        if is_values && std::mem::replace(&mut self.given, true) {
            return Err(A::Error::custom("values twice"));
        }
        match key {
            "instances" => {
                self.rows = Some(0);
                map.next_value_seed(List(self))?;
                if self.rows == Some(0) { Err(A::Error::custom("no rows")) } else { Ok(()) }
            }
            "inputs" => map.next_value_seed(Part { document: self, depth: 0 }),
            "signature_name" => match &map.next_value::<CompactString>()?[..] {
                "" | SIGNATURE => Ok(()),
                _ => Err(A::Error::custom("another signature")),
            },
            _ => map.next_value::<Skipped>().map(drop),
        }
    }
}

impl<'de> Items<'de> for Document<'_> {
    fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let some = list.next_element_seed(Part { document: self, depth: 1 })?.is_some();
        self.rows = self.rows.map(|rows| rows + usize::from(some));
        Ok(some)
    }
}

/// A row, or whole tensors: values by the names of their inputs, or the value of the only input.
struct Part<'a, 'b> {
    document: &'a mut Document<'b>,
    /// The depth of its values.
    depth: usize,
}

impl<'a> Part<'a, '_> {
    fn only<E: Error>(self) -> Result<Value<'a>, E> {
        let elements = self.document.place(None).ok_or_else(|| E::custom("no input for it"))?;
        Ok(Value(elements, self.depth))
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> Written {
        formatter.write_str("values of inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<CompactString>()? {
            // {"b64": ...} is a binary value.
            let place = self.document.place(Some(&name)).filter(|_| name != "b64");
            let elements = place.ok_or_else(|| A::Error::custom("no input of that name"))?;
            map.next_value_seed(Value(elements, self.depth))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.only::<A::Error>()?.visit_seq(list)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.only::<E>()?.visit_u64(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.only::<E>()?.visit_i64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.only::<E>()?.visit_f64(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.only::<E>()?.visit_bool(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.only::<E>()?.visit_str(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;
    use crate::signature::{Dimension, TensorSpec};

    /// Name, shape and elements.
    type Column = (String, Vec<i64>, Vec<u8>);

    fn read(names: &[&str], text: &str) -> Option<(bool, Vec<Column>)> {
        let spec = |name: &&str| TensorSpec {
            name: (*name).to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![Dimension::Any],
            labels: Vec::new(),
            optional: false,
        };
        let (model, inputs) = ("m".to_owned(), names.iter().map(spec).collect());
        let signature = Signature { model, version: 1, inputs, outputs: Vec::new(), batched: true };
        let (infer, rows) = decode(&text.as_bytes().to_vec().into(), &signature, "m", "")?;
        let input = |input: Input| match input.data {
            Data::Raw(data) => (input.name.into(), input.shape.to_vec(), data.into_bytes().to_vec()),
            other => panic!("{other:?}"),
        };
        Some((rows, infer.inputs.into_iter().map(input).collect()))
    }

    #[test]
    fn rows_and_whole_tensors_are_read() {
        let x = |shape: &[i64], data: &[u8]| ("x".to_owned(), shape.to_vec(), data.to_vec());
        for (text, rows, expected) in [
            (r#"{"instances":[1,2,3]}"#, true, x(&[3], &[1, 2, 3])),
            (r#"{"signature_name":"serving_default","instances":[[1,2]]}"#, true, x(&[1, 2], &[1, 2])),
            (r#"{"instances":[{"x":[1]},{"x":[2]}],"more":[{}]}"#, true, x(&[2, 1], &[1, 2])),
            (r#"{"inputs":[[1],[2]]}"#, false, x(&[2, 1], &[1, 2])),
            (r#"{"inputs":{"x":[]}}"#, false, x(&[0], &[])),
            (r#"{"inputs":7}"#, false, x(&[], &[7])),
        ] {
            assert_eq!(read(&["x"], text), Some((rows, vec![expected])), "{text}");
        }
        let (_, both) = read(&["x", "z"], r#"{"instances":[{"z":[1,2],"x":3},{"x":4,"z":[5,6]}]}"#).unwrap();
        assert_eq!(both[0], ("z".to_owned(), vec![2, 2], vec![1, 2, 5, 6]));
        assert_eq!(both[1], x(&[2], &[3, 4]));
    }

    #[test]
    fn what_is_not_as_documented_is_left_to_others() {
        for text in [
            r#"{"instances":[]}"#,
            r#"{"instances":{"x":[1]}}"#,
            r#"{"instances":[1],"inputs":[1]}"#,
            r#"{"inputs":[1],"instances":[1]}"#,
            r#"{"instances":[1],"instances":[1]}"#,
            r#"{"instances":[1],"signature_name":"other"}"#,
            r#"{"instances":[1],"signature_name":7}"#,
            r#"{"instances":[{"x":1},2]}"#,
            r#"{"instances":[{"x":1},{}]}"#,
            r#"{"instances":[{},{"x":1}]}"#,
            r#"{"instances":[{"x":1,"x":1},{}]}"#,
            r#"{"instances":[[1],[2,3]]}"#,
            r#"{"instances":[{"y":1}]}"#,
            r#"{"instances":[{"b64":"AA=="}]}"#,
            r#"{"inputs":{"x":[1],"x":[1]}}"#,
            r#"{"inputs":null}"#,
            r#"{"inputs":{},"inputs":{}}"#,
            r#"{"instances":[1],"more":"\ud800"}"#,
            "{}",
            "[]",
        ] {
            assert_eq!(read(&["x"], text), None, "{text}");
        }
        assert_eq!(read(&["x", "z"], r#"{"inputs":[1]}"#), None);
        assert_eq!(read(&["b64"], r#"{"inputs":{"b64":[1]}}"#), None);
    }
}
