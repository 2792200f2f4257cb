//! The module `kerve_wire._native`: Python's view of the server, its queues and its calls.

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

/// Small and many: what a request allocates is freed on another thread, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory stays with the process, in milliseconds: the buffers of large requests come and go, and to
/// get their pages anew each time costs more than all the rest.
const PURGE_DELAY: std::ffi::c_long = 1000;

/// `mi_option_purge_delay`, which the bindings leave out.
const PURGE_DELAY_OPTION: std::ffi::c_int = 15;

/// A warning in Python's log; one that cannot be written is lost, as are those of an interpreter that ends.
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
        // SAFETY: the call only stores a number, which the allocator reads when it next frees.
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
