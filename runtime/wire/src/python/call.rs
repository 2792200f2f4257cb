//! `Call`: one call that a servicer serves.

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::grpc::compression::Encoding;
use crate::grpc::frame;
use crate::grpc::status::{CODES, Code};
use crate::hosted::{Call, Outgoing};
use crate::python::metadata;

/// A call that a servicer serves, unary or streaming in either direction.
#[pyclass(frozen, name = "Call", module = "kerve_wire._native")]
pub struct PyCall {
    call: Arc<Call>,
}

impl PyCall {
    /// Wraps a call.
    pub fn new(call: Arc<Call>) -> PyCall {
        PyCall { call }
    }
}

#[pymethods]
impl PyCall {
    /// The method's path: `/package.Service/Method`.
    #[getter]
    fn method(&self) -> &str {
        &self.call.method
    }

    /// The client's metadata: pairs of a key and a str, or bytes where the key ends in `-bin`.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        metadata::to_python(py, &self.call.metadata)
    }

    /// The client's address, in gRPC's notation.
    #[getter]
    fn peer(&self) -> &str {
        &self.call.peer.name
    }

    /// The client's TLS identity: lists of bytes by gRPC's property names.
    #[getter]
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut lists: Vec<(&str, Vec<Bound<'py, PyBytes>>)> = Vec::new();
        for (name, value) in &self.call.peer.identity {
            let value = PyBytes::new(py, value);
            match lists.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value),
                None => lists.push((name, vec![value])),
            }
        }
        let result = PyDict::new(py);
        lists.into_iter().try_for_each(|(name, values)| result.set_item(name, values))?;
        Ok(result)
    }

    /// A number that identifies the call while it exists.
    #[getter]
    fn id(&self) -> usize {
        Arc::as_ptr(&self.call) as usize
    }

    /// The seconds until the deadline; None without a deadline.
    fn time_remaining(&self) -> Option<f64> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    /// Whether the call has not ended.
    fn is_active(&self) -> bool {
        self.call.is_active()
    }

    /// Whether the request is complete; if not, an event follows when it is.
    fn complete(&self) -> bool {
        self.call.complete()
    }

    /// Request an event at the end of the call; False if it has already ended.
    fn watch(&self) -> bool {
        self.call.watch()
    }

    /// End the call with CANCELLED.
    fn cancel(&self, py: Python<'_>) -> bool {
        let end =
            Outgoing::Finish(Code::Cancelled, "the server cancelled the call".into(), http::HeaderMap::new());
        py.detach(|| self.call.send(end))
    }

    /// Wait for the next message; None if there are no more.
    fn receive<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let message = py.detach(|| self.call.receive())?;
        Some(PyBytes::new(py, &message.into_bytes()))
    }

    /// Send the initial metadata, once; `compression` ("gzip", "deflate") applies if the client accepts it.
    #[pyo3(signature = (metadata, compression = None))]
    fn begin(
        &self,
        py: Python<'_>,
        metadata: &Bound<'_, PyAny>,
        compression: Option<&str>,
    ) -> PyResult<bool> {
        let headers = metadata::from_python(metadata)?;
        let encoding = self.encoding(compression);
        Ok(py.detach(|| self.call.send(Outgoing::Headers(headers, encoding))))
    }

    /// Send a message; blocks while the client reads too slowly. False if the call has ended.
    #[pyo3(signature = (message, compression = None))]
    fn send(&self, py: Python<'_>, message: &[u8], compression: Option<&str>) -> bool {
        let encoding = self.encoding(compression);
        py.detach(|| {
            let mut framed = frame::begin(message.len());
            framed.extend_from_slice(message);
            self.call.send(Outgoing::Message(frame::encode(framed, encoding)))
        })
    }

    /// End the call with a status and trailing metadata.
    fn finish(
        &self,
        py: Python<'_>,
        code: usize,
        details: String,
        metadata: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let trailers = metadata::from_python(metadata)?;
        let code = CODES.get(code).copied().unwrap_or(Code::Unknown);
        Ok(py.detach(|| self.call.send(Outgoing::Finish(code, details, trailers))))
    }
}

impl PyCall {
    fn encoding(&self, name: Option<&str>) -> Option<Encoding> {
        self.call.acceptable(name.and_then(Encoding::from_name))
    }
}
