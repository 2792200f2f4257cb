//! Conversion of metadata between HTTP headers and Python pairs.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::grpc::status::binary;

/// Headers of the transport, which are not metadata.
const OWN: [&str; 6] =
    ["content-type", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "host"];

/// Accepts base64 with or without padding, since clients send both.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Converts a client's metadata to pairs of a key and a str, or bytes if the key ends in `-bin`.
pub fn to_python<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyTuple>> {
    let mut pairs = Vec::with_capacity(headers.len());
    for (key, value) in headers {
        let key = key.as_str();
        if OWN.contains(&key) {
            continue;
        }
        if !key.ends_with("-bin") {
            pairs.push((
                PyString::new(py, key),
                PyString::new(py, &String::from_utf8_lossy(value.as_bytes())).into_any(),
            ));
            continue;
        }
        for part in value.as_bytes().split(|&byte| byte == b',') {
            // A value that is not base64 is dropped, as in grpcio.
            if let Ok(bytes) = LENIENT.decode(part.trim_ascii()) {
                pairs.push((PyString::new(py, key), PyBytes::new(py, &bytes).into_any()));
            }
        }
    }
    PyTuple::new(py, pairs)
}

/// Converts a servicer's metadata to headers.
pub fn from_python(pairs: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    if pairs.is_none() {
        return Ok(headers);
    }
    for pair in pairs.try_iter()? {
        let pair = pair?;
        let (key, value): (String, Bound<'_, PyAny>) = (pair.get_item(0)?.extract()?, pair.get_item(1)?);
        let invalid = |problem: &str| PyValueError::new_err(format!("metadata {key:?}: {problem}"));
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| invalid("the key is not valid"))?;
        if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid("keys are in lower case"));
        }
        let bytes: Vec<u8> = match value.cast::<PyString>() {
            Ok(text) => text.to_cow()?.as_bytes().to_vec(),
            Err(_) => value.extract().map_err(|_| invalid("expected str or bytes"))?,
        };
        let value = match key.ends_with("-bin") {
            true => binary(&bytes),
            false => {
                HeaderValue::from_bytes(&bytes).map_err(|_| invalid("the value is not printable ASCII"))?
            }
        };
        headers.append(name, value);
    }
    Ok(headers)
}
