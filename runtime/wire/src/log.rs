//! What nobody asked for and somebody should know: a line in the log of whoever runs the server.

use std::sync::OnceLock;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Says where warnings go, once and for all; without it they go to standard error.
pub fn set_sink(sink: fn(&str)) {
    let _ = SINK.set(sink);
}

/// Tells the operator something.
pub fn warn(message: &str) {
    match SINK.get() {
        Some(sink) => sink(message),
        None => eprintln!("kerve-wire: {message}"),
    }
}
