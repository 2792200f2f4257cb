//! The module `kerve_wire._native`: Python's view of the server, its queues and its calls.

mod arrays;
mod call;
mod metadata;
mod queue;
mod server;

use pyo3::prelude::*;

/// Small and many: what a request allocates is freed on another thread, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::call::PyCall;
    #[pymodule_export]
    use super::queue::{PyBatch, PyQueue};
    #[pymodule_export]
    use super::server::PyServer;
}
