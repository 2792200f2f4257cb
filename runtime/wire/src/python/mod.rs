//! The module `kerve_wire._native`: Python bindings of the server, its queues and its calls.

mod arrays;
mod call;
mod load;
mod local;
mod metadata;
mod observation;
mod queue;
mod server;

use pyo3::prelude::*;
use pyo3::pymodule;

/// Requests make many small allocations that are freed on another thread, which mimalloc is fast at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time in milliseconds for which the process keeps freed memory: page faults for the buffers of each large
/// request would cost more than all the rest.
const PURGE_DELAY: std::ffi::c_long = 1000;

/// `mi_option_purge_delay`, which the bindings do not define.
const PURGE_DELAY_OPTION: std::ffi::c_int = 15;

/// Logs a warning with Python's `logging`; warnings that cannot be logged, or during finalization, are lost.
fn warn(message: &str) {
    Python::try_attach(|py| -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("kerve_wire",))?;
        logger.call_method1("warning", ("%s", message)).map(drop)
    });
}

#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: the call only stores a number, which the allocator reads on later frees.
        unsafe { libmimalloc_sys::mi_option_set(super::PURGE_DELAY_OPTION, super::PURGE_DELAY) };
        crate::log::set_sink(super::warn);
        Ok(())
    }

    #[pymodule_export]
    use super::call::PyCall;
    #[pymodule_export]
    use super::load::PyLoad;
    #[pymodule_export]
    use super::local::{PyAnswer, PyInbox};
    #[pymodule_export]
    use super::observation::PyObservation;
    #[pymodule_export]
    use super::queue::{PyBatch, PyQueue};
    #[pymodule_export]
    use super::server::PyServer;
}
