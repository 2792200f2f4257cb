//! JSON strings.

/// Appends text as a JSON string.
pub fn put(target: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(target, text).expect("a vector takes everything, and text is always JSON");
}
