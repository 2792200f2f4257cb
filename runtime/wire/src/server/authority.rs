//! Lets grpcio's and grpc-java's clients in through UNIX sockets.
//!
//! They send the socket's path as `:authority`, as in `tmp%2Fsocket`; that is none, and h2 refuses the call
//! (<https://github.com/hyperium/h2/pull/487>). The value is not used for anything here, so what may not stand in
//! an authority is replaced on its way from the socket to h2. The length stays, and so HPACK's table stays right.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of HTTP/2 whose `:authority` is always one.
pub struct Mended<S> {
    stream: S,
    mender: Option<Mender>,
}

impl<S> Mended<S> {
    /// Mends what is read from `stream`, if it is to be mended.
    pub fn new(stream: S, mends: bool) -> Mended<S> {
        Mended { stream, mender: mends.then(Mender::default) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(mender) = &mut self.mender {
            mender.mend(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
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

/// What the client says first, before any frame.
const PREFACE: usize = 24;

/// The bytes before a frame's payload.
const FRAME_HEADER: usize = 9;

/// Follows HTTP/2's frames and HPACK's fields through a stream of bytes, however it is cut into pieces.
struct Mender {
    frames: Frames,
    fields: Fields,
}

/// Where in a frame the next byte is.
enum Frames {
    /// Within what does not matter.
    Skip(usize),
    /// Within a frame's header.
    Header([u8; FRAME_HEADER], usize),
    /// Within a header block; afterwards follows padding.
    Block(usize, usize),
    /// At the length of the padding of a header block with this many bytes left.
    Padding(usize, usize),
}

/// Where in a header block the next byte is.
enum Fields {
    /// At the first byte of a field.
    Start,
    /// Within an integer, of which so many bits are known, that means something.
    Integer(usize, u32, Meaning),
    /// At the first byte of a string.
    String(Role),
    /// Within the bytes of a string.
    Bytes(usize, Role),
}

/// What an integer means.
#[derive(Clone, Copy)]
enum Meaning {
    /// Nothing that matters: an indexed field, or a new size of the table.
    Nothing,
    /// The index of a name, whose value follows.
    Name,
    /// The length of a string; whether it is Huffman-coded.
    Length(Role, bool),
}

/// What a string is for.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// A name, which so far has this many bytes in common with `:authority`; None: it is another one.
    Name(Option<usize>),
    Value,
    Authority,
}

/// The name that is looked for, and its place in HPACK's static table.
const AUTHORITY: (&[u8], usize) = (b":authority", 1);

impl Default for Mender {
    fn default() -> Mender {
        Mender { frames: Frames::Skip(PREFACE), fields: Fields::Start }
    }
}

impl Mender {
    fn mend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.frames {
                Frames::Skip(left) | Frames::Block(left, _) => bytes.len().min(*left),
                Frames::Header(..) | Frames::Padding(..) => 1,
            };
            let (now, later) = bytes.split_at_mut(taken);
            self.step(now);
            bytes = later;
        }
    }

    fn step(&mut self, bytes: &mut [u8]) {
        self.frames = match std::mem::replace(&mut self.frames, Frames::Skip(0)) {
            Frames::Skip(left) => Frames::skip(left - bytes.len()),
            Frames::Header(mut header, filled) => {
                header[filled] = bytes[0];
                if filled + 1 < FRAME_HEADER {
                    Frames::Header(header, filled + 1)
                } else {
                    Frames::begin(header)
                }
            }
            Frames::Padding(left, priority) => {
                let padding = usize::from(bytes[0]);
                Frames::block((left - 1).saturating_sub(padding), priority, padding)
            }
            Frames::Block(left, after) => {
                bytes.iter_mut().for_each(|byte| self.fields.step(byte));
                Frames::block(left - bytes.len(), 0, after)
            }
        };
    }
}

impl Frames {
    fn skip(left: usize) -> Frames {
        if left == 0 { Frames::Header([0; FRAME_HEADER], 0) } else { Frames::Skip(left) }
    }

    /// A header block of so many bytes (priority first, padding after); the priority's bytes are no field.
    fn block(left: usize, priority: usize, after: usize) -> Frames {
        match (left, priority) {
            (0, _) => Frames::skip(after),
            (_, 0) => Frames::Block(left, after),
            // grpc's clients send no priorities; a block that has them is left as it is.
            _ => Frames::skip(left + after),
        }
    }

    fn begin(header: [u8; FRAME_HEADER]) -> Frames {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        const PADDED: u8 = 8;
        const PRIORITY: u8 = 0x20;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let priority = usize::from(kind == HEADERS && flags & PRIORITY != 0);
        match kind {
            HEADERS if flags & PADDED != 0 && len > 0 => Frames::Padding(len, priority),
            HEADERS | CONTINUATION => Frames::block(len, priority, 0),
            _ => Frames::skip(len),
        }
    }
}

impl Fields {
    fn step(&mut self, byte: &mut u8) {
        *self = match std::mem::replace(self, Fields::Start) {
            Fields::Start => match *byte {
                first @ 0x80.. => Fields::integer(first, 7, Meaning::Nothing),
                first @ 0x40.. => Fields::integer(first, 6, Meaning::Name),
                first @ 0x20.. => Fields::integer(first, 5, Meaning::Nothing),
                first => Fields::integer(first, 4, Meaning::Name),
            },
            Fields::Integer(value, shift, meaning) => {
                let more = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let value = value.saturating_add(more);
                if *byte < 0x80 {
                    meaning.follow(value)
                } else {
                    Fields::Integer(value, shift.saturating_add(7), meaning)
                }
            }
            Fields::String(role) => Fields::integer(*byte, 7, Meaning::Length(role, *byte & 0x80 != 0)),
            Fields::Bytes(left, role) => {
                if role == Role::Authority && !(byte.is_ascii_alphanumeric() || b".:-[]".contains(byte)) {
                    *byte = b'-';
                }
                Fields::bytes(left - 1, role.and(*byte))
            }
        };
    }

    /// An integer in the low bits of a byte, and in those after it when they are all ones.
    fn integer(first: u8, bits: u32, meaning: Meaning) -> Fields {
        let most = (1 << bits) - 1;
        let value = usize::from(first) & most;
        if value < most { meaning.follow(value) } else { Fields::Integer(value, 0, meaning) }
    }

    fn bytes(left: usize, role: Role) -> Fields {
        match (left, role) {
            (0, Role::Name(Some(same))) if same == AUTHORITY.0.len() => Fields::String(Role::Authority),
            (0, Role::Name(_)) => Fields::String(Role::Value),
            (0, _) => Fields::Start,
            _ => Fields::Bytes(left, role),
        }
    }
}

impl Role {
    /// What the string is for, now that this byte of it is known.
    fn and(self, byte: u8) -> Role {
        match self {
            Role::Name(same) => {
                Role::Name(same.filter(|&same| AUTHORITY.0.get(same) == Some(&byte)).map(|same| same + 1))
            }
            other => other,
        }
    }
}

impl Meaning {
    /// What comes after an integer.
    fn follow(self, value: usize) -> Fields {
        match (self, value) {
            (Meaning::Nothing, _) => Fields::Start,
            (Meaning::Name, 0) => Fields::String(Role::Name(Some(0))),
            (Meaning::Name, index) if index == AUTHORITY.1 => Fields::String(Role::Authority),
            (Meaning::Name, _) => Fields::String(Role::Value),
            // In Huffman's code a byte is not to be had; no client that needs mending uses it.
            (Meaning::Length(Role::Authority, true), len) => Fields::bytes(len, Role::Value),
            (Meaning::Length(Role::Name(_), true), len) => Fields::bytes(len, Role::Name(None)),
            (Meaning::Length(role, _), len) => Fields::bytes(len, role),
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

    fn conversation(authority: &[u8]) -> Vec<u8> {
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
    fn only_the_authority_is_mended_however_the_bytes_are_cut() {
        let expected = conversation(b"tmp-2Fa-2Fsocket");
        for size in 1..expected.len() {
            let mut bytes = conversation(b"tmp%2Fa%2Fsocket");
            let mut mender = Mender::default();
            bytes.chunks_mut(size).for_each(|piece| mender.mend(piece));
            assert_eq!(bytes, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn noise_does_not_matter() {
        let mut mender = Mender::default();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            mender.mend(&mut state.to_le_bytes());
        }
    }
}
