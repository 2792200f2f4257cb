//! Accepts clients of grpcio and grpc-java over UNIX sockets.
//!
//! They send the socket's path as `:authority`, as in `tmp%2Fsocket`, which is not a valid authority, and h2 rejects
//! the call (<https://github.com/hyperium/h2/pull/487>). The value is not used here, so invalid characters are replaced
//! between the socket and h2. The length is preserved, and so HPACK's table remains correct.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An HTTP/2 byte stream whose reads have valid characters in each `:authority`.
pub struct RewriteAuthority<S> {
    stream: S,
    rewriter: Option<AuthorityRewriter>,
}

impl<S> RewriteAuthority<S> {
    /// Wraps a stream; with `rewrites` false, nothing is changed.
    pub fn new(stream: S, rewrites: bool) -> RewriteAuthority<S> {
        RewriteAuthority { stream, rewriter: rewrites.then(AuthorityRewriter::default) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RewriteAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.rewrite(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RewriteAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The length of the connection preface, before any frame.
const PREFACE: usize = 24;

/// The number of bytes before a frame's payload.
const FRAME_HEADER: usize = 9;

/// An incremental parser of HTTP/2 frames and HPACK fields that replaces bytes of `:authority` in place.
struct AuthorityRewriter {
    frames: FrameState,
    fields: FieldState,
}

/// The parser's state in the frame layer: the position of the next byte in a frame.
enum FrameState {
    /// Within bytes that are skipped.
    Skip(usize),
    /// Within a frame's header.
    Header([u8; FRAME_HEADER], usize),
    /// Within a header block with this many bytes left, followed by this much padding.
    Block(usize, usize),
    /// At the padding length of a header block with this many bytes left and this many bytes of priority.
    Padding(usize, usize),
}

/// The parser's state in HPACK: the position of the next byte in a header block.
enum FieldState {
    /// At the first byte of a field.
    Start,
    /// Within an integer: its value so far, the number of bits that are known, and its purpose.
    Integer(usize, u32, IntegerKind),
    /// At the first byte of a string.
    String(StringKind),
    /// Within the bytes of a string.
    Bytes(usize, StringKind),
}

/// The purpose of an integer.
#[derive(Clone, Copy)]
enum IntegerKind {
    /// Unused: an indexed field, or a new size of the table.
    Nothing,
    /// The index of a name; its value follows.
    Name,
    /// The length of a string, and whether it is Huffman-coded.
    Length(StringKind, bool),
}

/// The purpose of a string.
#[derive(Clone, Copy, PartialEq)]
enum StringKind {
    /// A name that so far matches this many bytes of `:authority`; None if it does not match.
    Name(Option<usize>),
    Value,
    Authority,
}

/// The name to find, and its index in HPACK's static table.
const AUTHORITY: (&[u8], usize) = (b":authority", 1);

impl Default for AuthorityRewriter {
    fn default() -> AuthorityRewriter {
        AuthorityRewriter { frames: FrameState::Skip(PREFACE), fields: FieldState::Start }
    }
}

impl AuthorityRewriter {
    fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.frames {
                FrameState::Skip(left) | FrameState::Block(left, _) => bytes.len().min(*left),
                FrameState::Header(..) | FrameState::Padding(..) => 1,
            };
            let (now, later) = bytes.split_at_mut(taken);
            self.step(now);
            bytes = later;
        }
    }

    fn step(&mut self, bytes: &mut [u8]) {
        self.frames = match std::mem::replace(&mut self.frames, FrameState::Skip(0)) {
            FrameState::Skip(left) => FrameState::skip(left - bytes.len()),
            FrameState::Header(mut header, filled) => {
                header[filled] = bytes[0];
                if filled + 1 < FRAME_HEADER {
                    FrameState::Header(header, filled + 1)
                } else {
                    FrameState::begin(header)
                }
            }
            FrameState::Padding(left, priority) => {
                let padding = usize::from(bytes[0]);
                FrameState::block((left - 1).saturating_sub(padding), priority, padding)
            }
            FrameState::Block(left, after) => {
                bytes.iter_mut().for_each(|byte| self.fields.step(byte));
                FrameState::block(left - bytes.len(), 0, after)
            }
        };
    }
}

impl FrameState {
    fn skip(left: usize) -> FrameState {
        if left == 0 { FrameState::Header([0; FRAME_HEADER], 0) } else { FrameState::Skip(left) }
    }

    /// The state at a header block of `left` bytes, which start with `priority` bytes, and `after` bytes of padding.
    fn block(left: usize, priority: usize, after: usize) -> FrameState {
        match (left, priority) {
            (0, _) => FrameState::skip(after),
            (_, 0) => FrameState::Block(left, after),
            // gRPC's clients send no priorities; a block that has them is left unchanged.
            _ => FrameState::skip(left + after),
        }
    }

    fn begin(header: [u8; FRAME_HEADER]) -> FrameState {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        const PADDED: u8 = 8;
        const PRIORITY: u8 = 0x20;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let priority = usize::from(kind == HEADERS && flags & PRIORITY != 0);
        match kind {
            HEADERS if flags & PADDED != 0 && len > 0 => FrameState::Padding(len, priority),
            HEADERS | CONTINUATION => FrameState::block(len, priority, 0),
            _ => FrameState::skip(len),
        }
    }
}

impl FieldState {
    fn step(&mut self, byte: &mut u8) {
        *self = match std::mem::replace(self, FieldState::Start) {
            FieldState::Start => match *byte {
                first @ 0x80.. => FieldState::integer(first, 7, IntegerKind::Nothing),
                first @ 0x40.. => FieldState::integer(first, 6, IntegerKind::Name),
                first @ 0x20.. => FieldState::integer(first, 5, IntegerKind::Nothing),
                first => FieldState::integer(first, 4, IntegerKind::Name),
            },
            FieldState::Integer(value, shift, kind) => {
                let more = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let value = value.saturating_add(more);
                if *byte < 0x80 {
                    kind.next_field_state(value)
                } else {
                    FieldState::Integer(value, shift.saturating_add(7), kind)
                }
            }
            FieldState::String(kind) => {
                FieldState::integer(*byte, 7, IntegerKind::Length(kind, *byte & 0x80 != 0))
            }
            FieldState::Bytes(left, kind) => {
                if kind == StringKind::Authority && !(byte.is_ascii_alphanumeric() || b".:-[]".contains(byte))
                {
                    *byte = b'-';
                }
                FieldState::bytes(left - 1, kind.advance(*byte))
            }
        };
    }

    /// The state after the first byte of an integer: it is complete unless the low bits are all ones.
    fn integer(first: u8, bits: u32, kind: IntegerKind) -> FieldState {
        let most = (1 << bits) - 1;
        let value = usize::from(first) & most;
        if value < most { kind.next_field_state(value) } else { FieldState::Integer(value, 0, kind) }
    }

    fn bytes(left: usize, kind: StringKind) -> FieldState {
        match (left, kind) {
            (0, StringKind::Name(Some(same))) if same == AUTHORITY.0.len() => {
                FieldState::String(StringKind::Authority)
            }
            (0, StringKind::Name(_)) => FieldState::String(StringKind::Value),
            (0, _) => FieldState::Start,
            _ => FieldState::Bytes(left, kind),
        }
    }
}

impl StringKind {
    /// The kind after another byte of the string.
    fn advance(self, byte: u8) -> StringKind {
        match self {
            StringKind::Name(same) => StringKind::Name(
                same.filter(|&same| AUTHORITY.0.get(same) == Some(&byte)).map(|same| same + 1),
            ),
            other => other,
        }
    }
}

impl IntegerKind {
    /// The state after an integer.
    fn next_field_state(self, value: usize) -> FieldState {
        match (self, value) {
            (IntegerKind::Nothing, _) => FieldState::Start,
            (IntegerKind::Name, 0) => FieldState::String(StringKind::Name(Some(0))),
            (IntegerKind::Name, index) if index == AUTHORITY.1 => FieldState::String(StringKind::Authority),
            (IntegerKind::Name, _) => FieldState::String(StringKind::Value),
            // Huffman-coded strings cannot be rewritten in place; the affected clients do not send them.
            (IntegerKind::Length(StringKind::Authority, true), len) => {
                FieldState::bytes(len, StringKind::Value)
            }
            (IntegerKind::Length(StringKind::Name(_), true), len) => {
                FieldState::bytes(len, StringKind::Name(None))
            }
            (IntegerKind::Length(kind, _), len) => FieldState::bytes(len, kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn request_bytes(authority: &[u8]) -> Vec<u8> {
        let literal = |first: &[u8], value: &[u8]| [first, &[value.len() as u8], value].concat();
        let block = [
            vec![0x83, 0x86],
            literal(&[0x44], b"/a%2Fb/c"),
            literal(&[0x41], authority),
            literal(b"\x40\x0a:authority", authority),
            literal(b"\x40\x0b:authoritys", b"a%b"),
            literal(b"\x40\x09:authorit", b"a%b"),
            literal(b"\x40\x04name", b"va%lue"),
            literal(&[0x0f, 0x10], b"application/grpc"),
        ]
        .concat();
        let (head, tail) = block.split_at(20);
        let padded = [&[3], head, &[b'%'; 3]].concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            frame(1, 8, &padded),
            frame(9, 4, tail),
            frame(0, 1, b"\x41\x03%%%"),
        ]
        .concat()
    }

    #[test]
    fn only_the_authority_is_rewritten_however_the_bytes_are_cut() {
        let expected = request_bytes(b"tmp-2Fa-2Fsocket");
        for size in 1..expected.len() {
            let mut bytes = request_bytes(b"tmp%2Fa%2Fsocket");
            let mut rewriter = AuthorityRewriter::default();
            bytes.chunks_mut(size).for_each(|piece| rewriter.rewrite(piece));
            assert_eq!(bytes, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn noise_does_not_matter() {
        let mut rewriter = AuthorityRewriter::default();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            rewriter.rewrite(&mut state.to_le_bytes());
        }
    }
}
