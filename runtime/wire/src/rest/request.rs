//! An inference request of the Open Inference Protocol in JSON, optionally followed by binary tensors.
//!
//! Decoding returns None for bodies that do not follow the protocol: the application reports the error.

use std::collections::HashSet;

use compact_str::CompactString;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use crate::datatype::Datatype;
use crate::infer::{Data, InferRequest, Input, Parameter, RequestedOutput};
use crate::oip::request::{CLASSIFICATION, NUMBERS, SHARED_MEMORY, check_number, classes};
use crate::rest::elements::{TensorBuilder, Value};
use crate::rest::json::{Entries, Items, List, Object, Skipped};
use crate::rest::parameters::Parameters;
use crate::rope::Rope;

/// Decodes a request for a version of a model; its JSON is the first `json` bytes.
///
/// Returns it, and whether outputs are returned as binary data by default.
pub fn decode(body: &Rope, json: usize, model: &str, version: &str) -> Option<(InferRequest, bool)> {
    let text = body.slice(0, json).into_bytes();
    let mut document = Document::default();
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    Object(&mut document).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let mut infer = InferRequest { model: model.into(), version: version.into(), ..InferRequest::default() };
    let binary = document.finish(&mut infer, &body.slice(json, body.len() - json))?;
    Some((infer, binary))
}

/// Sets the value of a key; an error for a duplicate key, of which other parsers use the last.
fn set<T, E: Error>(place: &mut Option<T>, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a key is there twice")),
    }
}

#[derive(Default)]
struct Document<'de> {
    id: Option<CompactString>,
    parameters: Option<Parameters>,
    inputs: Option<Vec<Tensor<'de>>>,
    outputs: Option<Vec<Output>>,
}

impl<'de> Entries<'de> for Document<'de> {
    fn entry<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => set(&mut self.id, map.next_value()?),
            "parameters" => set(&mut self.parameters, map.next_value()?),
            "inputs" => {
                let mut inputs = Vec::new();
                map.next_value_seed(List(&mut inputs))?;
                set(&mut self.inputs, inputs)
            }
            "outputs" => {
                let mut outputs = Vec::new();
                map.next_value_seed(List(&mut outputs))?;
                set(&mut self.outputs, outputs)
            }
            _ => map.next_value::<Skipped>().map(drop),
        }
    }
}

impl Document<'_> {
    /// Writes the document to a request, given the bytes after the JSON.
    fn finish(self, infer: &mut InferRequest, behind: &Rope) -> Option<bool> {
        infer.id = self.id.unwrap_or_default();
        let mut parameters = self.parameters.unwrap_or_default();
        let binary = parameters.take("binary_data_output") == Some(Parameter::Bool(true));
        for (key, value) in parameters.0.iter().filter(|(key, _)| NUMBERS.contains(&key.as_str())) {
            check_number(key, value, infer);
        }
        infer.parameters = parameters.0;
        let mut used = 0;
        for tensor in self.inputs.unwrap_or_default() {
            infer.inputs.push(tensor.finish(behind, &mut used)?);
        }
        let mut names = HashSet::new();
        for output in self.outputs.unwrap_or_default() {
            let requested = output.finish(binary, infer)?;
            if !names.insert(requested.name.clone()) {
                return None;
            }
            infer.outputs.push(requested);
        }
        (used == behind.len()).then_some(binary)
    }
}

/// An input.
#[derive(Default)]
struct Tensor<'de> {
    name: Option<CompactString>,
    datatype: Option<CompactString>,
    shape: Option<Vec<i64>>,
    parameters: Option<Parameters>,
    data: Option<Content<'de>>,
}

/// The elements of an input.
enum Content<'de> {
    /// Raw contents.
    Raw(Vec<u8>),
    /// JSON that is not parsed yet, because the datatype follows it.
    Text(&'de RawValue),
}

impl<'de> Items<'de> for Vec<Tensor<'de>> {
    fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut tensor = Tensor::default();
        let some = list.next_element_seed(Object(&mut tensor))?.is_some();
        self.extend(some.then_some(tensor));
        Ok(some)
    }
}

impl<'de> Entries<'de> for Tensor<'de> {
    fn entry<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => set(&mut self.name, map.next_value()?),
            "datatype" => set(&mut self.datatype, map.next_value()?),
            "shape" => set(&mut self.shape, map.next_value()?),
            "parameters" => set(&mut self.parameters, map.next_value()?),
            "data" if self.datatype.is_none() => set(&mut self.data, Content::Text(map.next_value()?)),
            "data" => {
                let mut elements = self.elements().ok_or_else(|| A::Error::custom("no datatype of JSON"))?;
                map.next_value_seed(Value(&mut elements, 0))?;
                set(&mut self.data, Content::Raw(elements.into_raw()))
            }
            _ => map.next_value::<Skipped>().map(drop),
        }
    }
}

/// The maximum number of elements for which memory is reserved before they are parsed.
const EXPECTED: usize = 1 << 16;

impl Tensor<'_> {
    fn elements(&self) -> Option<TensorBuilder> {
        let datatype = Datatype::from_name(self.datatype.as_ref()?)?;
        let size = |&size: &i64| usize::try_from(size).ok();
        let count =
            self.shape.iter().flatten().try_fold(1, |count: usize, each| count.checked_mul(size(each)?));
        TensorBuilder::new(datatype, count.unwrap_or(0).min(EXPECTED))
    }

    fn finish(mut self, behind: &Rope, used: &mut usize) -> Option<Input> {
        let mut parameters = self.parameters.take().unwrap_or_default();
        if parameters.take(SHARED_MEMORY).is_some() {
            return None;
        }
        let data = match parameters.take("binary_data_size") {
            Some(size) => {
                let size = usize::try_from(size.unsigned()?).ok()?;
                if size > behind.len() - *used {
                    return None;
                }
                *used += size;
                behind.slice(*used - size, size)
            }
            None => self.raw()?.into(),
        };
        Some(Input {
            name: self.name.unwrap_or_default(),
            datatype: self.datatype.unwrap_or_default(),
            shape: self.shape.unwrap_or_default().into(),
            data: Data::Raw(data),
        })
    }

    /// Returns the elements in the JSON as raw contents.
    fn raw(&mut self) -> Option<Vec<u8>> {
        match self.data.take()? {
            Content::Raw(data) => Some(data),
            Content::Text(text) => {
                let mut elements = self.elements()?;
                let mut deserializer = serde_json::Deserializer::from_str(text.get());
                Value(&mut elements, 0).deserialize(&mut deserializer).ok()?;
                Some(elements.into_raw())
            }
        }
    }
}

/// A requested output.
#[derive(Default)]
struct Output {
    name: Option<CompactString>,
    parameters: Option<Parameters>,
}

impl<'de> Items<'de> for Vec<Output> {
    fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<bool, A::Error> {
        let mut output = Output::default();
        let some = list.next_element_seed(Object(&mut output))?.is_some();
        self.extend(some.then_some(output));
        Ok(some)
    }
}

impl<'de> Entries<'de> for Output {
    fn entry<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => set(&mut self.name, map.next_value()?),
            "parameters" => set(&mut self.parameters, map.next_value()?),
            _ => map.next_value::<Skipped>().map(drop),
        }
    }
}

impl Output {
    /// `binary`: whether the output is returned as binary data by default.
    fn finish(self, binary: bool, infer: &mut InferRequest) -> Option<RequestedOutput> {
        let mut parameters = self.parameters.unwrap_or_default();
        if parameters.take(SHARED_MEMORY).is_some() {
            return None;
        }
        let binary = parameters.take("binary_data").map_or(binary, |given| given == Parameter::Bool(true));
        let classes = parameters.take(CLASSIFICATION).map_or(0, |value| classes(&value, infer));
        Some(RequestedOutput { name: self.name.unwrap_or_default(), classes, binary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, behind: &[u8]) -> Option<(InferRequest, bool)> {
        let mut body = Rope::from(text.as_bytes().to_vec());
        body.push(behind.to_vec().into());
        decode(&body, text.len(), "m", "1")
    }

    fn raw(input: &Input) -> Vec<u8> {
        match &input.data {
            Data::Raw(data) => data.clone().into_bytes().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_in_any_order_of_its_keys() {
        for text in [
            r#"{"id":"a","inputs":[{"name":"x","shape":[1,2],"datatype":"UINT8","data":[1,2]}]}"#,
            r#"{"inputs":[{"data":[[1,2]],"datatype":"UINT8","name":"x","shape":[1,2],"more":{"a":[1]}}],"id":"a"}"#,
        ] {
            let (infer, binary) = read(text, b"").unwrap();
            assert_eq!((&infer.model[..], &infer.version[..], &infer.id[..]), ("m", "1", "a"));
            let input = &infer.inputs[0];
            assert_eq!((&input.name[..], &input.datatype[..], &input.shape[..]), ("x", "UINT8", &[1, 2][..]));
            assert_eq!(raw(input), [1, 2]);
            assert!(!binary);
        }
    }

    #[test]
    fn binary_tensors_stand_behind_the_json_in_the_order_of_the_inputs() {
        let input = |name: &str, size: usize| {
            format!(
                r#"{{"name":"{name}","shape":[1],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}}}"#
            )
        };
        let text = format!(
            r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{},{}]}}"#,
            input("a", 1),
            input("b", 2)
        );
        let (infer, binary) = read(&text, &[1, 2, 3]).unwrap();
        assert_eq!((raw(&infer.inputs[0]), raw(&infer.inputs[1])), (vec![1], vec![2, 3]));
        assert!(binary && infer.parameters.is_empty());
        assert!(read(&text, &[1, 2]).is_none());
        assert!(read(&text, &[1, 2, 3, 4]).is_none());
    }

    #[test]
    fn outputs_say_how_they_are_wanted() {
        let text = r#"{"inputs":[],"outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}},
            {"name":"c","parameters":{"classification":3}}],"parameters":{"binary_data_output":true,"priority":"x"}}"#;
        let (infer, _) = read(text, b"").unwrap();
        let found: Vec<_> =
            infer.outputs.iter().map(|each| (&each.name[..], each.binary, each.classes)).collect();
        assert_eq!(found, [("a", true, 0), ("b", false, 0), ("c", true, 3)]);
        assert!(infer.unsupported.unwrap().message.contains("'priority'"));
    }

    /// Comparing each output with all others would take minutes.
    #[test]
    fn there_may_be_any_number_of_outputs() {
        let names: Vec<String> = (0..300_000).map(|number| format!(r#"{{"name":"{number}"}}"#)).collect();
        let (infer, _) = read(&format!(r#"{{"outputs":[{}]}}"#, names.join(",")), b"").unwrap();
        assert_eq!(infer.outputs.len(), names.len());
    }

    #[test]
    fn what_is_not_as_the_protocol_has_it_is_left_to_others() {
        let input = r#""name":"x","shape":[1],"datatype":"UINT8""#;
        for text in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"id":7}"#,
            r#"{"id":"a","id":"a"}"#,
            r#"{"inputs":1}"#,
            r#"{"inputs":[1]}"#,
            r#"{"parameters":{"a":[1]}}"#,
            r#"{"parameters":{"a":18446744073709551616}}"#,
            r#"{"outputs":[{"name":"a"},{"name":"a"}]}"#,
            r#"{"outputs":[{"name":"a","parameters":{"shared_memory_region":"r"}}]}"#,
            &format!(r#"{{"inputs":[{{{input}}}]}}"#),
            &format!(r#"{{"inputs":[{{{input},"data":["a"]}}]}}"#),
            &format!(r#"{{"inputs":[{{{input},"data":[1],"data":[1]}}]}}"#),
            &format!(r#"{{"inputs":[{{{input},"data":[1],"parameters":{{"shared_memory_region":"r"}}}}]}}"#),
            r#"{"inputs":[{"name":"x","shape":[1.0],"datatype":"UINT8","data":[1]}]}"#,
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BF16","data":[1]}]}"#,
            r#"{"inputs":[{"data":[1],"name":"x","shape":[1]}]}"#,
            r#"{"parameters":{"priority":-0}}"#,
            r#"{"more":"\ud800"}"#,
            r#"{"more":[{"\ud800":1}]}"#,
            &format!(r#"{{"inputs":[{{{input},"data":[1],"more":"\ud800"}}]}}"#),
        ] {
            assert!(read(text, b"").is_none(), "{text}");
        }
        for text in [&b"{\"more\":\"\xff\"}"[..], b"{\"\xff\":1}", b"{\"more\":{\"\xff\":[]}}"] {
            assert!(decode(&text.to_vec().into(), text.len(), "m", "").is_none(), "{text:?}");
        }
    }
}
