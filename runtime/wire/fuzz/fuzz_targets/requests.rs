//! Requests of both protocols: bytes decode to the same result in one piece and in several.
#![no_main]

use bytes::Bytes;
use kerve_wire::rope::Rope;
use kerve_wire::{oip, tfs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [size, body @ ..] = data else { return };
    let whole = Rope::from(Bytes::copy_from_slice(body));
    let mut pieces = Rope::default();
    body.chunks(usize::from(*size).max(1)).for_each(|piece| pieces.push(Bytes::copy_from_slice(piece)));
    for decode in [oip::request::decode, tfs::request::decode] {
        match (decode(&whole), decode(&pieces)) {
            (Ok(left), Ok(right)) => {
                assert_eq!((&left.model, &left.version, &left.id), (&right.model, &right.version, &right.id));
                assert_eq!(left.inputs.len(), right.inputs.len());
            }
            (Err(left), Err(right)) => assert_eq!(left, right),
            (left, right) => panic!("in one piece {left:?}, in many {right:?}"),
        }
    }
});
