//! REST: inference is served natively, as over gRPC; all other requests by an application behind a UNIX socket.
//!
//! ```text
//! socket -> connection -> service -> body -> request | raw | predict_request (decode) -> server::infer -> queue
//!                                 -> application    response | predict_response (encode) <- executor in Python
//! ```
//!
//! Requests that cannot be decoded here are forwarded unchanged, so that error messages are made in one place.

pub mod application;
pub mod body;
pub mod connection;
mod elements;
pub mod json;
mod numbers;
mod parameters;
pub mod predict_request;
pub mod predict_response;
pub mod raw;
pub mod request;
pub mod response;
pub mod service;
pub mod status;
mod target;
mod text;

use std::path::PathBuf;

use crate::rest::application::Application;

/// The HTTP frontend of an application: a reverse proxy that serves inference natively.
pub struct Frontend {
    application: Application,
    /// Whether inference is served natively.
    inference: bool,
}

impl Frontend {
    /// Creates a frontend of the application that listens on a UNIX socket.
    pub fn new(socket: PathBuf, inference: bool) -> Frontend {
        Frontend { application: Application::new(socket), inference }
    }
}

/// The response to a request.
pub type Reply = http::Response<bytes::Bytes>;
