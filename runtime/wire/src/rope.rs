//! A message as it was received: a few reference-counted pieces that are not joined.

use bytes::Bytes;
use smallvec::SmallVec;

/// The minimum bytes that a piece counts for in memory, because of its overhead: many small pieces must not bypass a
/// limit.
const PIECE: usize = 64;

/// A sequence of bytes in any number of pieces; clones and slices share the memory.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    pieces: SmallVec<[Bytes; 1]>,
    len: usize,
    weight: usize,
}

impl Rope {
    /// Appends a piece; empty pieces are dropped, so that no piece is ever empty.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.weight += piece.len().max(PIECE);
            self.pieces.push(piece);
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of bytes that it counts for in memory.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether the rope has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, none of them empty.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Copies all bytes to `target`. Panics unless its length equals the rope's.
    pub fn copy_to(&self, mut target: &mut [u8]) {
        assert_eq!(target.len(), self.len, "the target must be as long as the rope");
        for piece in &self.pieces {
            let (head, tail) = target.split_at_mut(piece.len());
            head.copy_from_slice(piece);
            target = tail;
        }
    }

    /// Returns a part of the rope that shares its memory. Panics if the range reaches past the end.
    pub fn slice(&self, start: usize, len: usize) -> Rope {
        assert!(start <= self.len && len <= self.len - start, "the slice reaches past the end");
        let mut result = Rope::default();
        let (mut skip, mut wanted) = (start, len);
        for piece in &self.pieces {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let taken = wanted.min(piece.len() - skip);
            result.push(piece.slice(skip..skip + taken));
            wanted -= taken;
            skip = 0;
            if wanted == 0 {
                break;
            }
        }
        result
    }

    /// Returns all bytes in one piece; copies only if there are several pieces.
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() <= 1 {
            return self.pieces.pop().unwrap_or_default();
        }
        let mut joined = Vec::with_capacity(self.len);
        self.pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.into()
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Rope {
        let mut rope = Rope::default();
        rope.push(piece);
        rope
    }
}

impl From<Vec<u8>> for Rope {
    fn from(bytes: Vec<u8>) -> Rope {
        Bytes::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(pieces: &[&'static [u8]]) -> Rope {
        let mut rope = Rope::default();
        pieces.iter().for_each(|piece| rope.push(Bytes::from_static(piece)));
        rope
    }

    #[test]
    fn slices_cross_pieces() {
        let rope = rope(&[b"ab", b"", b"cde", b"f"]);
        assert_eq!(rope.len(), 6);
        for start in 0..=6 {
            for len in 0..=6 - start {
                assert_eq!(&rope.slice(start, len).into_bytes()[..], &b"abcdef"[start..start + len]);
            }
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        let rope = Rope::from(bytes.clone());
        assert_eq!(rope.into_bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn copies_to_a_target_in_order() {
        let mut target = [0; 6];
        rope(&[b"ab", b"cde", b"f"]).copy_to(&mut target);
        assert_eq!(&target, b"abcdef");
    }
}
