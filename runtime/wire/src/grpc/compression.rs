//! Message compression: gzip and deflate (which is zlib's format, as in HTTP).

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::grpc::status::{Code, Status};
use crate::rope::Rope;

/// A compression that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are gRPC's")]
pub enum Encoding {
    Gzip,
    Deflate,
}

/// What a server accepts, as the value of `grpc-accept-encoding`.
pub const ACCEPTED: &str = "identity,deflate,gzip";

/// Smaller messages are cheaper to send as they are.
const WORTHWHILE: usize = 1024;

impl Encoding {
    /// The encoding of that name.
    pub fn from_name(name: &str) -> Option<Encoding> {
        match name {
            "gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }

    /// The name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// Compresses a message; None when that does not make it smaller.
    pub fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() < WORTHWHILE {
            return None;
        }
        let target = Vec::with_capacity(message.len() / 2);
        let compressed = match self {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(target, Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(target, Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
        };
        compressed.ok().filter(|compressed| compressed.len() < message.len())
    }

    /// Decompresses a message that may not grow past `limit` bytes.
    pub fn decompress(self, message: &Rope, limit: usize) -> Result<Rope, Status> {
        let source = Pieces { pieces: message.pieces(), offset: 0 };
        match self {
            Encoding::Gzip => read(MultiGzDecoder::new(source), limit),
            Encoding::Deflate => read(ZlibDecoder::new(source), limit),
        }
    }
}

fn read(decoder: impl Read, limit: usize) -> Result<Rope, Status> {
    let mut target = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut target)
        .map_err(|error| Status::internal(format!("the message cannot be decompressed: {error}")))?;
    if target.len() > limit {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("Received message larger than max: it decompresses to more than {limit} bytes"),
        ));
    }
    Ok(target.into())
}

/// Reads a rope.
struct Pieces<'a> {
    pieces: &'a [bytes::Bytes],
    offset: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let Some((piece, later)) = self.pieces.split_first() else { return Ok(0) };
        let rest = &piece[self.offset..];
        let taken = rest.len().min(target.len());
        target[..taken].copy_from_slice(&rest[..taken]);
        self.offset += taken;
        if self.offset == piece.len() {
            self.pieces = later;
            self.offset = 0;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back() {
        let message = b"again and ".repeat(1000);
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let compressed = encoding.compress(&message).unwrap();
            assert!(compressed.len() < 200);
            let mut rope = Rope::default();
            compressed.chunks(7).for_each(|chunk| rope.push(bytes::Bytes::copy_from_slice(chunk)));
            assert_eq!(encoding.decompress(&rope, message.len()).unwrap().into_bytes(), message);
            let error = encoding.decompress(&rope, message.len() - 1).unwrap_err();
            assert_eq!(error.code, Code::ResourceExhausted);
            assert_eq!(encoding.decompress(&vec![1, 2, 3].into(), 10).unwrap_err().code, Code::Internal);
        }
    }
}
