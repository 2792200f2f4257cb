//! gRPC message frames, compressed or not, in pieces of any size.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use kerve_wire::grpc::budget::Budget;
use kerve_wire::grpc::compression::Encoding;
use kerve_wire::grpc::frame::Decoder;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let [encoding, size, body @ ..] = data else { return };
    let encoding = [None, Some(Encoding::Gzip), Some(Encoding::Deflate)][usize::from(*encoding) % 3];
    let budget = Arc::new(Budget::new(LIMIT));
    let mut decoder = Decoder::new(encoding, LIMIT, &budget);
    for piece in body.chunks(usize::from(*size).max(1)) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.message() {
                Ok(Some(message)) => {
                    if let Ok((message, _)) = message.decode() {
                        assert!(message.len() <= LIMIT);
                    }
                }
                Ok(None) => {
                    assert!(budget.reserved() <= 64 * body.len());
                    break;
                }
                Err(_) => return,
            }
        }
    }
    drop(decoder);
    assert_eq!(budget.reserved(), 0);
});
