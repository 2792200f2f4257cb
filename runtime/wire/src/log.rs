//! Warnings for the server log.

use std::sync::OnceLock;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Sets the destination of warnings, standard error by default; later calls have no effect.
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
