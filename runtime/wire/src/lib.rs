//! A native gRPC and REST transport that passes whole batches to Python.
//!
//! ```text
//! socket -> server::worker -> server::connection -> server::infer
//!        -> oip | tfs (decode) -> signature (check) -> queue (wait, batch) -> executor in Python
//!        -> oip | tfs (encode) -> server::worker -> socket
//! ```
//!
//! All calls other than inference are passed to Python one by one (`hosted`). Without the feature `python` this is a
//! plain Rust library.

pub mod bytes_tensor;
pub mod contents;
pub mod datatype;
pub mod grpc;
pub mod hosted;
pub mod infer;
pub mod load;
pub mod log;
pub mod metrics;
pub mod models;
pub mod observe;
pub mod oip;
pub mod output;
pub mod protobuf;
pub mod queue;
pub mod rest;
pub mod rope;
pub mod server;
pub mod signature;
pub mod tfs;

#[cfg(feature = "python")]
mod python;
