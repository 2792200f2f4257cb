//! `Queue` and `Batch`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList};
use smallvec::SmallVec;

use crate::grpc::status::{CODES, Code, Status};
use crate::infer::Parameter;
use crate::metrics::{BOUNDS, Counter, Histogram};
use crate::python::arrays::{OutputArray, PyTensorSpec, input, tensor};
use crate::python::local::{PyInbox, SharedBatch, Token};
use crate::queue::batch::Batch;
use crate::queue::local::Local;
use crate::queue::local::Parent;
use crate::queue::pending::{Format, Pending, Responder, Route};
use crate::queue::{Queue, Work};
use crate::signature::{SelectedOutput, Tensor, TensorSpec, ValidRequest};

/// The queue of one model version.
#[pyclass(frozen, name = "Queue", module = "kerve_wire._native")]
pub struct PyQueue {
    pub queue: Arc<Queue>,
    signature: Arc<PySignature>,
}

/// A model's signature as Python objects.
pub struct PySignature {
    pub inputs: Vec<PyTensorSpec>,
    pub outputs: Vec<PyTensorSpec>,
}

impl PyQueue {
    /// Wraps a queue.
    pub fn new(py: Python<'_>, queue: Queue) -> PyResult<PyQueue> {
        let spec = |spec| PyTensorSpec::new(py, spec);
        let inputs = queue.signature.inputs.iter().map(spec).collect::<PyResult<_>>()?;
        let outputs = queue.signature.outputs.iter().map(spec).collect::<PyResult<_>>()?;
        Ok(PyQueue { queue: Arc::new(queue), signature: Arc::new(PySignature { inputs, outputs }) })
    }

    /// Validates an in-process request as far as memory safety requires it; the caller has validated the rest.
    fn check(&self, inputs: &Bound<'_, PyDict>, requested: Option<Vec<String>>) -> PyResult<ValidRequest> {
        let signature = &self.queue.signature;
        let given = |(spec, py_spec): (&TensorSpec, &PyTensorSpec)| {
            inputs.get_item(&py_spec.name)?.map(|value| tensor(value, spec, py_spec)).transpose()
        };
        let tensors: SmallVec<[Option<Tensor>; 2]> =
            signature.inputs.iter().zip(&self.signature.inputs).map(given).collect::<PyResult<_>>()?;
        let rows = if signature.batched { signature.rows(&tensors) } else { Ok(1) };
        let rows = rows.map_err(|status| PyValueError::new_err(status.message))?;
        let position = |name: String| {
            let position = signature.outputs.iter().position(|spec| spec.name == name);
            let position = position.ok_or_else(|| PyValueError::new_err(format!("no output {name:?}")))?;
            Ok(SelectedOutput { position: position as u16, ..SelectedOutput::default() })
        };
        let requested = requested.unwrap_or_default().into_iter().map(position).collect::<PyResult<_>>()?;
        Ok(ValidRequest { tensors, rows, requested })
    }

    fn show(&self, py: Python<'_>, batch: Batch) -> PyResult<PyBatch> {
        let inputs = PyDict::new(py);
        for (position, spec) in self.signature.inputs.iter().enumerate() {
            if let Some(array) = input(py, &batch, position, spec)? {
                inputs.set_item(&spec.name, array)?;
            }
        }
        let (rows, signature) = (batch.rows(), self.signature.clone());
        Ok(PyBatch { rows, inputs: inputs.unbind(), batch: Arc::new(Mutex::new(Some(batch))), signature })
    }
}

#[pymethods]
impl PyQueue {
    /// Wait for work without holding the GIL: a batch or a deferred task; None once the queue is closed and empty.
    ///
    /// A batch that cannot be converted, for instance because Python is out of memory, fails with INTERNAL, and the
    /// next one is taken.
    fn take(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        while let Some(work) = py.detach(|| self.queue.take()) {
            let shown = match work {
                Work::Batch(batch) => catch_panic(|| Ok(Py::new(py, self.show(py, batch)?)?.into_any())),
                Work::Deferred(task) => task.downcast().map(|task| *task).map_err(|_| already_answered()),
            };
            match shown {
                Ok(work) => return Some(work),
                Err(error) => error.write_unraisable(py, None),
            }
        }
        None
    }

    /// Let `take` return a task when no requests are waiting. It does not count toward the limits of requests. False if
    /// the queue is draining or closed.
    fn defer(&self, task: Py<PyAny>) -> bool {
        self.queue.defer(Box::new(task)).is_ok()
    }

    /// Add an in-process request, made for the requests of a batch; it is cancelled when all of them are.
    ///
    /// `inputs` must match the signature. The response is put into the inbox with the token.
    fn ask(
        &self,
        py: Python<'_>,
        inputs: &Bound<'_, PyDict>,
        requested: Option<Vec<String>>,
        parent: &PyBatch,
        inbox: &PyInbox,
        token: Py<PyAny>,
    ) -> PyResult<()> {
        let checked = self.check(inputs, requested)?;
        let (deadline, id, parameters) = parent.with_batch(|batch| {
            let id = batch.request_ids().into_iter().next().unwrap_or_default();
            (batch.deadline(), id, batch.parameters().to_vec())
        })?;
        let priority = parameters.iter().rev().find(|(key, _)| key == "priority");
        let priority = priority.and_then(|(_, value)| value.unsigned()).unwrap_or(0);
        let token = Box::new(Token { token, signature: self.signature.clone() });
        let queue = &self.queue;
        let (level, batched, arrived) =
            (queue.options.level(priority), queue.signature.batched, Instant::now());
        let expires = queue.options.policies[level].timeout(None).and_then(|time| arrived.checked_add(time));
        let request = Pending {
            key: checked.key(batched),
            tensors: checked.tensors,
            rows: checked.rows,
            batched,
            level,
            counts_toward_limit: true,
            arrived,
            deadline,
            expires,
            parameters,
            reservation: None,
            responder: Responder {
                format: Format::Oip,
                id,
                requested: checked.requested,
                encoding: None,
                route: Route::Local(Local::new(token, inbox.inbox.clone(), parent.batch.clone())),
                observation: None,
            },
        };
        py.detach(|| {
            if queue.push(request) {
                queue.wake();
            }
        });
        Ok(())
    }

    /// Reject client requests with UNAVAILABLE; waiting requests and in-process requests are still taken.
    fn drain(&self) {
        self.queue.drain();
    }

    /// Reject new requests with UNAVAILABLE; waiting requests are still taken.
    fn close(&self) {
        self.queue.close();
    }

    /// The number of waiting requests.
    #[getter]
    fn depth(&self) -> usize {
        self.queue.depth()
    }

    /// The metrics of the queue: counts since its creation, durations in nanoseconds.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = &self.queue.metrics;
        let result = PyDict::new(py);
        result.set_item("requests", metrics.requests.get())?;
        result.set_item("rows", metrics.rows.get())?;
        result.set_item("batches", metrics.batches.get())?;
        result.set_item("waiting", self.queue.depth())?;
        result.set_item("codes", codes(py, &metrics.codes)?)?;
        let histograms = [
            ("succeeded", &metrics.succeeded),
            ("failed", &metrics.failed),
            ("waited", &metrics.waited),
            ("computed", &metrics.computed),
        ];
        for (name, values) in histograms {
            result.set_item(name, histogram(py, values)?)?;
        }
        Ok(result)
    }
}

/// One or more requests that are computed together; completed exactly once, by `reply` or `fail`.
#[pyclass(frozen, name = "Batch", module = "kerve_wire._native")]
pub struct PyBatch {
    batch: Arc<SharedBatch>,
    signature: Arc<PySignature>,
    /// One contiguous array per input: the rows of all requests on axis 0, then padding.
    #[pyo3(get)]
    inputs: Py<PyDict>,
    /// The number of rows, without padding; 1 for a model without a batch dimension.
    #[pyo3(get)]
    rows: usize,
}

#[pymethods]
impl PyBatch {
    /// The number of requests; a split request is counted with its first part.
    #[getter]
    fn requests(&self) -> PyResult<usize> {
        self.with_batch(Batch::requests)
    }

    /// The number of requests, with each part of a split request counted.
    #[getter]
    fn parts(&self) -> PyResult<usize> {
        self.with_batch(Batch::parts)
    }

    /// The ids of the requests that have one; empty once the batch is completed, so that logging an error then does not
    /// fail.
    #[getter]
    fn request_ids(&self) -> Vec<String> {
        let ids = |batch: &Batch| batch.request_ids().into_iter().map(String::from).collect();
        self.lock().as_ref().map(ids).unwrap_or_default()
    }

    /// The outputs that any of the requests selects; None for all.
    #[getter]
    fn requested<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        let positions = self.with_batch(|batch| batch.requested())?;
        let name = |position: usize| self.signature.outputs[position].name.bind(py);
        positions.map(|positions| PyFrozenSet::new(py, positions.into_iter().map(name))).transpose()
    }

    /// Whether any of the requests is not cancelled.
    #[getter]
    fn active(&self) -> bool {
        self.batch.is_active()
    }

    /// The earliest deadline, in seconds of `time.monotonic()`.
    #[getter]
    fn deadline(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let Some(deadline) = self.with_batch(|batch| batch.deadline())? else { return Ok(None) };
        let now: f64 = py.import("time")?.call_method0("monotonic")?.extract()?;
        let late = Instant::now().saturating_duration_since(deadline).as_secs_f64();
        Ok(Some(now + deadline.saturating_duration_since(Instant::now()).as_secs_f64() - late))
    }

    /// The parameters of the request; empty if the batch has several requests.
    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let result = PyDict::new(py);
        for (name, value) in self.with_batch(|batch| batch.parameters().to_vec())? {
            match value {
                Parameter::Bool(value) => result.set_item(&*name, value)?,
                Parameter::Int64(value) => result.set_item(&*name, value)?,
                Parameter::Uint64(value) => result.set_item(&*name, value)?,
                Parameter::Double(value) => result.set_item(&*name, value)?,
                Parameter::String(value) => result.set_item(&*name, &*value)?,
            }
        }
        Ok(result)
    }

    /// Complete the requests with at least the requested outputs, padded like the inputs; never blocks.
    fn reply(&self, py: Python<'_>, outputs: &Bound<'_, PyAny>) -> PyResult<()> {
        let batch = self.take_batch()?;
        match self.collect(&batch, outputs) {
            Ok(mut arrays) => {
                let shared = batch.is_local();
                let outputs: Vec<_> = arrays.iter_mut().map(|array| array.output(shared)).collect();
                catch_panic(|| {
                    py.detach(|| batch.reply(&outputs));
                    Ok(())
                })
            }
            Err(error) => {
                // The batch is not completed: the caller can still call `fail`.
                *self.lock() = Some(batch);
                Err(error)
            }
        }
    }

    /// Complete all requests of the batch with a gRPC error status.
    fn fail(&self, py: Python<'_>, code: usize, message: String) -> PyResult<()> {
        let code = CODES.get(code).copied().filter(|&code| code != Code::Ok).unwrap_or(Code::Unknown);
        let batch = self.take_batch()?;
        py.detach(|| batch.fail(&Status::new(code, message)));
        Ok(())
    }
}

impl PyBatch {
    fn collect<'py>(&self, batch: &Batch, outputs: &Bound<'py, PyAny>) -> PyResult<Vec<OutputArray<'py>>> {
        let take =
            |position: usize| OutputArray::new(outputs, batch, position, &self.signature.outputs[position]);
        match batch.requested() {
            Some(positions) => positions.into_iter().map(take).collect(),
            None => (0..self.signature.outputs.len()).map(take).collect(),
        }
    }

    fn with_batch<T>(&self, read: impl FnOnce(&Batch) -> T) -> PyResult<T> {
        self.lock().as_ref().map(read).ok_or_else(already_answered)
    }

    fn take_batch(&self) -> PyResult<Batch> {
        self.lock().take().ok_or_else(already_answered)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts a panic to an exception that executors catch: its batch is completed, and the next one can be served.
fn catch_panic<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(PyRuntimeError::new_err("kerve-wire failed; its panic is in the server's log"))
    })
}

pub fn already_answered() -> PyErr {
    PyRuntimeError::new_err("the batch has been answered; a batch is answered exactly once")
}

/// Returns the nonzero counters by status code.
pub fn codes<'py>(py: Python<'py>, counters: &[Counter; 17]) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    for (code, counter) in counters.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
        result.set_item(code, counter.get())?;
    }
    Ok(result)
}

/// Converts a histogram: upper bounds in microseconds, counts (one more, for values above), and the sum in
/// nanoseconds.
fn histogram<'py>(py: Python<'py>, values: &Histogram) -> PyResult<Bound<'py, PyDict>> {
    let (counts, sum) = values.read();
    let result = PyDict::new(py);
    result.set_item("bounds", PyList::new(py, BOUNDS)?)?;
    result.set_item("counts", counts)?;
    result.set_item("sum", sum)?;
    Ok(result)
}
