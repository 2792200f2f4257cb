//! `Observation`: the record of one request.

use std::time::{Duration, UNIX_EPOCH};

use pyo3::prelude::*;

use crate::observe::Observation;

/// The record of one request; times and durations in nanoseconds.
#[pyclass(frozen, name = "Observation", module = "kerve_wire._native")]
pub struct PyObservation {
    pub observation: Box<Observation>,
}

#[pymethods]
impl PyObservation {
    /// The method's path.
    #[getter]
    fn method(&self) -> &str {
        self.observation.method
    }

    /// The client's address, in gRPC's notation.
    #[getter]
    fn peer(&self) -> &str {
        &self.observation.peer
    }

    /// The client's id of the request, or a generated one.
    #[getter]
    fn request_id(&self) -> &str {
        &self.observation.request
    }

    /// The caller's `traceparent` (W3C Trace Context).
    #[getter]
    fn trace_parent(&self) -> &str {
        &self.observation.trace_parent
    }

    /// The caller's `tracestate`.
    #[getter]
    fn trace_state(&self) -> &str {
        &self.observation.trace_state
    }

    /// Whether the request is traced.
    #[getter]
    fn sampled(&self) -> bool {
        self.observation.sampled
    }

    /// The requested model; empty if the request could not be decoded.
    #[getter]
    fn model(&self) -> &str {
        &self.observation.model
    }

    /// The version that served the request, or the requested version if none did.
    #[getter]
    fn version(&self) -> &str {
        &self.observation.version
    }

    /// The number of rows.
    #[getter]
    fn rows(&self) -> usize {
        self.observation.rows
    }

    /// The number of rows of the batch that it was computed in.
    #[getter]
    fn batch(&self) -> usize {
        self.observation.batch
    }

    /// The gRPC status code.
    #[getter]
    fn code(&self) -> usize {
        self.observation.code as usize
    }

    /// The time of arrival, since the epoch.
    #[getter]
    fn arrived(&self) -> u64 {
        nanoseconds(self.observation.began.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Time from arrival to the start of the computation; None if it was not computed.
    #[getter]
    fn queued(&self) -> Option<u64> {
        self.observation.queued().map(nanoseconds)
    }

    /// Computation time of its batch; None if it was not computed.
    #[getter]
    fn computed(&self) -> Option<u64> {
        self.observation.computing().map(nanoseconds)
    }

    /// Time from arrival to response.
    #[getter]
    fn total(&self) -> u64 {
        nanoseconds(self.observation.total())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
