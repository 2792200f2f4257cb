//! `kerve_wire.Load`.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::load::{Arrivals, Call, Load};

/// Sends the same call repeatedly until it is stopped.
#[pyclass(name = "Load", module = "kerve_wire", frozen)]
pub struct PyLoad(Mutex<Option<Load>>);

#[pymethods]
impl PyLoad {
    #[new]
    #[pyo3(signature = (address, path, metadata, message, *, concurrency = None, request_rate = None))]
    fn new(
        address: String,
        path: String,
        metadata: Vec<(String, String)>,
        message: &[u8],
        concurrency: Option<usize>,
        request_rate: Option<f64>,
    ) -> PyResult<Self> {
        let arrivals = match (concurrency, request_rate) {
            (Some(count), None) => Arrivals::Concurrency(count),
            (None, Some(rate)) if rate > 0.0 => Arrivals::RequestRate(rate),
            _ => return Err(PyValueError::new_err("expected concurrency, or request_rate above 0")),
        };
        let call = Call::new(address, path, &metadata, message)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyLoad(Mutex::new(Some(Load::start(call, arrivals)))))
    }

    /// Take the calls that have completed since the previous `take`: for each successful call its end, on the clock
    /// of `now`, and its latency, in seconds; and the number of failed calls.
    fn take(&self, now: f64) -> PyResult<(Vec<(f64, f64)>, u64)> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(load) = guard.as_ref() else { return Ok((Vec::new(), 0)) };
        let (completed, reference) = (load.take(), Instant::now());
        if let Some(why) = completed.error {
            return Err(PyRuntimeError::new_err(why));
        }
        let calls = completed.succeeded.into_iter();
        let succeeded = calls.map(|(end, took)| (now - (reference - end).as_secs_f64(), took.as_secs_f64()));
        Ok((succeeded.collect(), completed.failed))
    }

    /// Stop sending calls and wait for those in flight.
    fn stop(&self, py: Python<'_>) {
        let load = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(load) = load {
            py.detach(|| load.stop());
        }
    }
}
