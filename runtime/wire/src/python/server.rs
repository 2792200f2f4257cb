//! `Server`: the native part of `kerve_wire.Server`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use crate::datatype::Datatype;
use crate::grpc::compression::Encoding;
use crate::hosted::Event;
use crate::models::Routes;
use crate::python::call::PyCall;
use crate::python::observation::PyObservation;
use crate::python::queue::{PyQueue, codes};
use crate::queue::Queue;
use crate::queue::options::{Options, Policy, TimeoutAction};
use crate::rest::Frontend;
use crate::server::rates::Limit;
use crate::server::tls::{Acceptor, Credentials, Source};
use crate::server::{Config, Protocol, Server};
use crate::signature::{Dimension, Signature, TensorSpec};

/// A gRPC server.
#[pyclass(frozen, name = "Server", module = "kerve_wire._native")]
pub struct PyServer {
    server: Server,
}

/// A tensor spec: name, datatype, shape, labels, whether it is optional.
type Spec<'py> = (String, String, Vec<Bound<'py, PyAny>>, Vec<String>, bool);

#[pymethods]
impl PyServer {
    /// Create a server that does not listen yet; `options` are the fields of `ServerOptions`, durations in seconds.
    #[new]
    fn new(options: &Bound<'_, PyDict>) -> PyResult<PyServer> {
        Ok(PyServer { server: Server::new(config(&OptionsDict(options))?) })
    }

    /// Create the queue of a model version; `options` are the fields of `QueueOptions`.
    fn attach<'py>(
        &self,
        py: Python<'py>,
        model: (String, u64),
        inputs: Vec<Spec<'py>>,
        outputs: Vec<Spec<'py>>,
        batched: bool,
        options: &Bound<'py, PyDict>,
    ) -> PyResult<PyQueue> {
        let specs = |specs: Vec<Spec<'py>>| specs.into_iter().map(spec).collect::<PyResult<Vec<_>>>();
        let signature = Signature {
            model: model.0,
            version: model.1,
            inputs: specs(inputs)?,
            outputs: specs(outputs)?,
            batched,
        };
        let mut specs = signature.inputs.iter().chain(&signature.outputs);
        if let Some(spec) = specs.find(|spec| batched && spec.shape.is_empty()) {
            let problem = "has no axis, but axis 0 of a batched model is the batch";
            return Err(PyValueError::new_err(format!("{}: {problem}", spec.name)));
        }
        let mut options = queue_options(&OptionsDict(options))?;
        if !batched {
            options.max_batch_size = 1;
            options.buckets.clear();
        }
        PyQueue::new(py, Queue::new(signature, options))
    }

    /// Publish the routes of all versions of a model; `unready` maps versions without a queue to the reason.
    fn publish(&self, name: &str, routes: HashMap<String, Py<PyQueue>>, unready: HashMap<String, String>) {
        let ready = routes.into_iter().map(|(version, queue)| (version, queue.get().queue.clone())).collect();
        self.server.shared().models.publish(name, Routes { ready, unready });
    }

    /// Remove a model's routes.
    fn unpublish(&self, name: &str) {
        self.server.shared().models.unpublish(name);
    }

    /// Require a bearer token from now on; `known` maps its SHA-256 to whether it permits inference.
    fn set_tokens(&self, known: HashMap<[u8; 32], bool>) {
        self.server.shared().tokens.set(known);
    }

    /// Bind an address and return its port. `credentials`: private key, certificates, root certificates of clients,
    /// whether client certificates are required.
    ///
    /// Each is the path of a PEM file, which is reloaded when it changes, or PEM as bytes.
    #[pyo3(signature = (address, credentials = None))]
    fn listen(
        &self,
        py: Python<'_>,
        address: &str,
        credentials: Option<(PySource, PySource, Option<PySource>, bool)>,
    ) -> PyResult<u16> {
        let acceptor = credentials.map(|(key, certificates, client_roots, require_client_auth)| {
            Acceptor::new(Credentials {
                key: key.into(),
                certificates: certificates.into(),
                client_roots: client_roots.map(Source::from),
                require_client_auth,
            })
        });
        let acceptor = acceptor.transpose().map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.bind(py, address, Protocol::Grpc(acceptor))
    }

    /// Bind an address for HTTP, in front of the application that listens on a UNIX socket, and return its port.
    /// `inference`: whether inference requests are served natively; all others are forwarded to the application.
    fn listen_http(
        &self,
        py: Python<'_>,
        address: &str,
        application: PathBuf,
        inference: bool,
    ) -> PyResult<u16> {
        self.bind(py, address, Protocol::Http(Arc::new(Frontend::new(application, inference))))
    }

    /// Start to accept connections.
    fn start(&self) -> PyResult<()> {
        Ok(self.server.start()?)
    }

    /// Reject new requests, give inference in flight `grace` seconds, then end all calls and connections, and return.
    fn stop(&self, py: Python<'_>, grace: f64) {
        let grace = Duration::try_from_secs_f64(grace.max(0.0)).unwrap_or(Duration::MAX / 4);
        py.detach(|| self.server.stop(grace));
    }

    /// Wait for the next event of a call (`hosted::Event`); None once the server has stopped.
    fn next_event(&self, py: Python<'_>) -> Option<(&'static str, PyCall)> {
        let event = py.detach(|| self.server.shared().events.next())?;
        Some(match event {
            Event::Begun(call) => ("begun", PyCall::new(call)),
            Event::Complete(call) => ("complete", PyCall::new(call)),
            Event::Ended(call) => ("ended", PyCall::new(call)),
        })
    }

    /// Set whether all requests are observed, and the sampling rate of traces (None: no traces). The caller's sampling
    /// decision, where there is one, takes precedence over the rate.
    fn observe(&self, everything: bool, traced: Option<f64>) {
        self.server.shared().observer.configure(everything, traced);
    }

    /// Take up to `limit` observations of requests that have ended; also returns the number of observations dropped so
    /// far.
    fn observations(&self, limit: usize) -> (Vec<PyObservation>, u64) {
        let observer = &self.server.shared().observer;
        (
            observer.read(limit).into_iter().map(|observation| PyObservation { observation }).collect(),
            observer.dropped(),
        )
    }

    /// The metrics of the server: counts since its creation, and current values for the names in `_now`.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = &self.server.shared().metrics;
        let result = PyDict::new(py);
        result.set_item("connections", metrics.connections.get())?;
        result.set_item("connections_now", metrics.connections_open.get())?;
        result.set_item("calls", metrics.calls.get())?;
        result.set_item("in_flight_now", metrics.in_flight.get())?;
        result.set_item("bytes_buffered_now", self.server.shared().budget.reserved())?;
        result.set_item("bytes_received", metrics.bytes_received.get())?;
        result.set_item("bytes_sent", metrics.bytes_sent.get())?;
        result.set_item("refused", codes(py, &metrics.refused)?)?;
        Ok(result)
    }
}

impl Drop for PyServer {
    /// Stops a server that was not stopped, without the GIL: its workers may need it before they end.
    fn drop(&mut self) {
        // Without an interpreter there is no need to stop.
        let _ = Python::try_attach(|py| py.detach(|| self.server.stop(Duration::ZERO)));
    }
}

impl PyServer {
    fn bind(&self, py: Python<'_>, address: &str, protocol: Protocol) -> PyResult<u16> {
        py.detach(|| self.server.listen(address, protocol))
            .map_err(|error| PyRuntimeError::new_err(format!("cannot listen on {address}: {error}")))
    }
}

#[derive(FromPyObject)]
enum PySource {
    Pem(Vec<u8>),
    File(PathBuf),
}

impl From<PySource> for Source {
    fn from(source: PySource) -> Source {
        match source {
            PySource::Pem(pem) => Source::Memory(pem),
            PySource::File(path) => Source::File(path),
        }
    }
}

/// Typed access to the fields of an options object.
struct OptionsDict<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> OptionsDict<'_, 'py> {
    fn get<T>(&self, name: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
    {
        let value = self
            .0
            .get_item(name)?
            .ok_or_else(|| PyValueError::new_err(format!("option {name} is missing")))?;
        let given = value.to_string();
        value.extract().map_err(|error: _| {
            let error: PyErr = Into::into(error);
            PyValueError::new_err(format!("option {name}: {error}, got {given}"))
        })
    }

    fn seconds(&self, name: &str) -> PyResult<Option<Duration>> {
        let seconds: Option<f64> = self.get(name)?;
        let invalid = |_| PyValueError::new_err(format!("option {name} is not a duration in seconds"));
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(invalid)).transpose()
    }
}

fn config(options: &OptionsDict<'_, '_>) -> PyResult<Config> {
    let compression: Option<String> = options.get("compression")?;
    let encoding = |name: String| {
        Encoding::from_name(&name).ok_or_else(|| {
            PyValueError::new_err(format!("option compression: expected gzip or deflate, got {name:?}"))
        })
    };
    Ok(Config {
        workers: options.get("workers")?,
        max_receive_message_length: options.get("max_receive_message_length")?,
        max_buffered_bytes: options.get("max_buffered_bytes")?,
        rate: rate(options)?,
        max_concurrent_streams: options.get("max_concurrent_streams")?,
        max_metadata_size: options.get("max_metadata_size")?,
        keepalive_time: options.seconds("keepalive_time")?,
        keepalive_timeout: options.seconds("keepalive_timeout")?.unwrap_or(Duration::MAX / 4),
        max_connections: options.get::<Option<usize>>("max_connections")?.unwrap_or(usize::MAX),
        max_connection_idle: options.seconds("max_connection_idle")?,
        max_connection_age: options.seconds("max_connection_age")?,
        max_connection_age_grace: options.seconds("max_connection_age_grace")?,
        handshake_timeout: options.seconds("handshake_timeout")?.unwrap_or(Duration::MAX / 4),
        compression: compression.map(encoding).transpose()?,
        so_reuseport: options.get("so_reuseport")?,
        host_shared_memory: options.get("host_shared_memory")?,
    })
}

/// A queue policy: size, default timeout in microseconds, whether requests may override it, "REJECT" or "DELAY".
type PolicyFields = (usize, u64, bool, String);

/// Returns the rate limit of each client.
fn rate(options: &OptionsDict<'_, '_>) -> PyResult<Option<Limit>> {
    let rate: Option<f64> = options.get("rate_limit")?;
    let burst: u32 = options.get("rate_burst")?;
    let limit = |rate: f64| {
        let burst = burst.max(1);
        // Durations are computed from the time of a burst, which must be representable.
        if (1e-9..1e9).contains(&(f64::from(burst) / rate)) && rate <= 1e9 {
            return Ok(Limit { rate, burst });
        }
        Err(PyValueError::new_err(format!("option rate_limit: expected requests per second, got {rate}")))
    };
    rate.map(limit).transpose()
}

fn queue_options(options: &OptionsDict<'_, '_>) -> PyResult<Options> {
    let ascending = |name: &str| {
        let mut sizes: Vec<usize> = options.get(name)?;
        sizes.sort_unstable();
        PyResult::Ok(sizes)
    };
    let policies: Vec<PolicyFields> = options.get("policies")?;
    let policies: Vec<Policy> = policies.into_iter().map(policy).collect::<PyResult<_>>()?;
    if policies.is_empty() {
        return Err(PyValueError::new_err("option policies: expected one for each priority, got none"));
    }
    let max_batch_size: usize = options.get("max_batch_size")?;
    Ok(Options {
        max_batch_size: max_batch_size.max(1),
        preferred_batch_sizes: ascending("preferred_batch_size")?,
        max_queue_delay: Duration::from_micros(options.get("max_queue_delay_microseconds")?),
        policies,
        default_priority: options.get("default_priority_level")?,
        preserve_ordering: options.get("preserve_ordering")?,
        buckets: ascending("batch_buckets")?,
        max_queue_bytes: options.get("max_queue_bytes")?,
        triton_codes: options.get("triton_codes")?,
        hosted: options.get("hosted")?,
        single_request_batches: options.get("single_request_batches")?,
    })
}

fn policy((max_queue_size, timeout, allow_timeout_override, action): PolicyFields) -> PyResult<Policy> {
    let timeout_action = match &action[..] {
        "REJECT" => TimeoutAction::Reject,
        "DELAY" => TimeoutAction::Delay,
        _ => {
            let message = format!("option timeout_action: expected REJECT or DELAY, got {action:?}");
            return Err(PyValueError::new_err(message));
        }
    };
    let default_timeout = (timeout > 0).then(|| Duration::from_micros(timeout));
    Ok(Policy { max_queue_size, default_timeout, allow_timeout_override, timeout_action })
}

fn spec((name, datatype, shape, labels, optional): Spec<'_>) -> PyResult<TensorSpec> {
    let unknown = || PyValueError::new_err(format!("{name}: datatype {datatype:?} is not known"));
    let datatype = Datatype::from_name(&datatype).ok_or_else(unknown)?;
    let shape = shape.iter().map(dimension).collect::<PyResult<_>>()?;
    Ok(TensorSpec { name, datatype, shape, labels, optional })
}

fn dimension(size: &Bound<'_, PyAny>) -> PyResult<Dimension> {
    if size.is_none() {
        return Ok(Dimension::Any);
    }
    if size.is_instance_of::<PyInt>() {
        return Ok(Dimension::Fixed(size.extract()?));
    }
    Ok(Dimension::Named(size.cast::<PyString>()?.to_cow()?.into_owned()))
}
