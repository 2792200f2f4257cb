//! Warnings for the operator's log.

use std::sync::OnceLock;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Says where warnings go, once and for all; without it they go to standard error.
pub fn set_sink(sink: fn(&str)) {
    let _ = SINK.set(sink);
}

/// Logs a warning.
pub fn warn(message: &str) {
    match SINK.get() {
        Some(sink) => sink(message),
        None => eprintln!("kerve-wire: {message}"),
    }
}
