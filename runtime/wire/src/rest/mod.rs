//! REST: inference is served here, as gRPC's is; everything else by an application behind a UNIX socket.
//!
//! ```text
//! socket -> connection -> service -> body -> request | raw | predict_request (decode) -> server::infer -> queue
//!                                 -> application    response | predict_response (encode) <- executor in Python
//! ```
//!
//! What is not understood here is handed on as it came, so that there is one place that says what is wrong with it.

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

/// What a port of HTTP stands in front of.
pub struct Front {
    application: Application,
    /// Whether inference is served here.
    inference: bool,
}

impl Front {
    /// The front of an application that listens on a UNIX socket.
    pub fn new(socket: PathBuf, inference: bool) -> Front {
        Front { application: Application::new(socket), inference }
    }
}

/// What is answered.
pub type Reply = http::Response<http_body_util::Full<bytes::Bytes>>;
