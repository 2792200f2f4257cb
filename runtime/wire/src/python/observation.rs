//! `Observation`: what became of one request.

use std::time::{Duration, UNIX_EPOCH};

use pyo3::prelude::*;

use crate::observe::Observation;

/// What became of one request; durations and times in nanoseconds.
#[pyclass(frozen, name = "Observation", module = "kerve_wire._native")]
pub struct PyObservation {
    pub observation: Box<Observation>,
}

#[pymethods]
impl PyObservation {
    /// The path of the method.
    #[getter]
    fn method(&self) -> &str {
        self.observation.method
    }

    /// Who asked, in gRPC's notation.
    #[getter]
    fn peer(&self) -> &str {
        &self.observation.peer
    }

    /// The client's id of the request, or one that was made for it.
    #[getter]
    fn request_id(&self) -> &str {
        &self.observation.request
    }

    /// The caller's W3C trace context.
    #[getter]
    fn trace_parent(&self) -> &str {
        &self.observation.trace_parent
    }

    /// The rest of it.
    #[getter]
    fn trace_state(&self) -> &str {
        &self.observation.trace_state
    }

    /// Whether it is traced.
    #[getter]
    fn sampled(&self) -> bool {
        self.observation.sampled
    }

    /// The model that was asked, as far as the request could be read.
    #[getter]
    fn model(&self) -> &str {
        &self.observation.model
    }

    /// The version that answered; what was asked for where none did.
    #[getter]
    fn version(&self) -> &str {
        &self.observation.version
    }

    /// The request's rows.
    #[getter]
    fn rows(&self) -> usize {
        self.observation.rows
    }

    /// The rows of the batch that it was computed in.
    #[getter]
    fn batch(&self) -> usize {
        self.observation.batch
    }

    /// The gRPC status.
    #[getter]
    fn code(&self) -> usize {
        self.observation.code as usize
    }

    /// When it came, since the epoch.
    #[getter]
    fn arrived(&self) -> u64 {
        nanoseconds(self.observation.began.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// From arrival to computation; None: it was not computed.
    #[getter]
    fn queued(&self) -> Option<u64> {
        self.observation.queued().map(nanoseconds)
    }

    /// The computation of its batch.
    #[getter]
    fn computed(&self) -> Option<u64> {
        self.observation.computing().map(nanoseconds)
    }

    /// From arrival to answer.
    #[getter]
    fn total(&self) -> u64 {
        nanoseconds(self.observation.total())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
