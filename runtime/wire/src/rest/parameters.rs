//! Parameters in JSON.

use std::fmt::{Formatter, Result as Written};

use compact_str::CompactString;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use crate::infer::Parameter;
use crate::rest::json::{Entries, Object};

/// The parameters of a request or a tensor; as in protobuf maps, the last of several with the same name wins.
#[derive(Default)]
pub struct Parameters(pub Vec<(CompactString, Parameter)>);

impl Parameters {
    /// Removes and returns a parameter.
    pub fn take(&mut self, name: &str) -> Option<Parameter> {
        let found = self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())?;
        self.0.retain(|(key, _)| key != name);
        Some(found)
    }
}

impl<'de> Entries<'de> for Parameters {
    fn entry<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        self.0.push((key.into(), map.next_value()?));
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
        let mut parameters = Parameters::default();
        Object(&mut parameters).deserialize(deserializer)?;
        Ok(parameters)
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameter, D::Error> {
        deserializer.deserialize_any(Kind)
    }
}

/// Parses a number, string or boolean.
struct Kind;

impl Visitor<'_> for Kind {
    type Value = Parameter;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> Written {
        formatter.write_str("a number, string or boolean")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Parameter, E> {
        Ok(Parameter::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Parameter, E> {
        Ok(Parameter::Int64(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Parameter, E> {
        Ok(i64::try_from(value).map_or(Parameter::Uint64(value), Parameter::Int64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Parameter, E> {
        // The integer -0 cannot be distinguished from the float -0.0 here.
        if value == 0.0 && value.is_sign_negative() {
            return Err(E::custom("a zero of an unknown kind"));
        }
        // Integers of more than 64 bits are also passed here.
        if value.fract() == 0.0 && value.abs() >= i64::MAX as f64 {
            return Err(E::custom("more than 64 bits"));
        }
        Ok(Parameter::Double(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Parameter, E> {
        Ok(Parameter::String(value.into()))
    }
}
