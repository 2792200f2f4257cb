//! A rope holds the bytes that were pushed, regardless of its pieces, and so does each slice of a slice.
#![no_main]

use bytes::Bytes;
use kerve_wire::rope::Rope;
use libfuzzer_sys::fuzz_target;

/// The minimum bytes that a piece counts for, so that many small ones do not bypass a limit.
const PIECE: usize = 64;

fuzz_target!(|data: &[u8]| {
    let [pieces, cuts, rest @ ..] = data else { return };
    let (sizes, rest) = rest.split_at(rest.len().min(usize::from(*pieces)));
    let (cuts, mut body) = rest.split_at(rest.len().min(usize::from(*cuts)));
    let mut rope = Rope::default();
    let whole = body;
    for size in sizes {
        let (piece, left) = body.split_at(body.len().min(usize::from(*size)));
        rope.push(Bytes::copy_from_slice(piece));
        body = left;
    }
    let mut expected = &whole[..whole.len() - body.len()];
    check(&rope, expected);
    for cut in cuts.chunks_exact(2) {
        let start = usize::from(cut[0]) % (expected.len() + 1);
        let len = usize::from(cut[1]) % (expected.len() - start + 1);
        expected = &expected[start..start + len];
        rope = rope.slice(start, len);
        check(&rope, expected);
    }
});

fn check(rope: &Rope, expected: &[u8]) {
    assert_eq!((rope.len(), rope.is_empty()), (expected.len(), expected.is_empty()));
    assert!(rope.pieces().iter().all(|piece| !piece.is_empty()));
    assert!(rope.weight() >= rope.len().max(PIECE * rope.pieces().len()));
    let mut copy = vec![0; expected.len()];
    rope.copy_to(&mut copy);
    assert_eq!(copy, expected);
    assert_eq!(rope.clone().into_bytes(), expected);
}
