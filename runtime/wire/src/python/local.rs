//! `Inbox` and `Answer`: in-process requests.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::python::arrays::{PyTensorSpec, show};
use crate::python::queue::{PySignature, already_answered};
use crate::queue::batch::Batch;
use crate::queue::local::{self, Inbox, Parent, SharedOutput};

/// A batch that Python holds; None once it is completed.
pub type SharedBatch = Mutex<Option<Batch>>;

impl Parent for SharedBatch {
    fn is_active(&self) -> bool {
        self.lock().unwrap_or_else(PoisonError::into_inner).as_mut().is_some_and(Batch::is_active)
    }
}

/// The token of an in-process request: Python's object, and the signature with the names of the outputs.
pub struct Token {
    pub token: Py<PyAny>,
    pub signature: Arc<PySignature>,
}

/// A queue of responses to in-process requests.
#[pyclass(frozen, name = "Inbox", module = "kerve_wire._native")]
pub struct PyInbox {
    pub inbox: Arc<Inbox>,
}

#[pymethods]
impl PyInbox {
    #[new]
    fn new() -> PyInbox {
        PyInbox { inbox: Arc::default() }
    }

    /// Wait for responses without holding the GIL, and take all that have arrived; None once closed.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Vec<PyAnswer>>> {
        let Some(answers) = py.detach(|| self.inbox.take()) else { return Ok(None) };
        answers.into_iter().map(|answer| PyAnswer::new(py, answer)).collect::<PyResult<_>>().map(Some)
    }

    /// Close the queue: `take` returns None after the responses that have arrived.
    fn close(&self) {
        self.inbox.close();
    }
}

/// The response to an in-process request.
#[pyclass(frozen, get_all, name = "Answer", module = "kerve_wire._native")]
pub struct PyAnswer {
    /// The token of the request.
    token: Py<PyAny>,
    /// The requested outputs; None on an error.
    outputs: Option<Py<PyDict>>,
    /// The gRPC status code; 0 with outputs.
    code: u8,
    /// The error message.
    message: String,
    /// The computation time of its batches.
    nanoseconds: u64,
}

impl PyAnswer {
    fn new(py: Python<'_>, answer: local::Answer) -> PyResult<PyAnswer> {
        let token: Box<dyn Any + Send + Sync> = answer.token;
        let Token { token, signature } = *token.downcast::<Token>().map_err(|_| already_answered())?;
        let nanoseconds = answer.computed.as_nanos() as u64;
        Ok(match answer.outcome.map(|outputs| to_dict(py, outputs, &signature)) {
            Ok(Ok(outputs)) => {
                let outputs = Some(outputs.unbind());
                PyAnswer { token, outputs, code: 0, message: String::new(), nanoseconds }
            }
            // For instance, Python is out of memory: only this request fails.
            Ok(Err(error)) => {
                PyAnswer { token, outputs: None, code: 13, message: error.to_string(), nanoseconds }
            }
            Err(status) => PyAnswer {
                token,
                outputs: None,
                code: status.code as u8,
                message: status.message,
                nanoseconds,
            },
        })
    }
}

fn to_dict<'py>(
    py: Python<'py>,
    outputs: Vec<SharedOutput>,
    signature: &PySignature,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for SharedOutput { position, shape, data } in outputs {
        let spec: &PyTensorSpec = &signature.outputs[position];
        dict.set_item(&spec.name, show(py, spec, &shape, data)?)?;
    }
    Ok(dict)
}

/// Returns an array's memory as bytes that keep the array alive.
pub fn array_bytes(array: Py<PyAny>, data: *const u8, len: usize) -> Bytes {
    if len == 0 { Bytes::new() } else { Bytes::from_owner(ArrayMemory { _array: array, data, len }) }
}

struct ArrayMemory {
    _array: Py<PyAny>,
    data: *const u8,
    len: usize,
}

// SAFETY: the memory belongs to the array, which is kept alive, and is only read.
unsafe impl Send for ArrayMemory {}

impl AsRef<[u8]> for ArrayMemory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `array_bytes` was given the memory of a contiguous array that `self` keeps alive.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}
