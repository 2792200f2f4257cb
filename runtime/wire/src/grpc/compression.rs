//! Message compression: gzip and deflate (in zlib format, as in HTTP).

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::grpc::status::{Code, Status};
use crate::rope::Rope;

/// A supported compression algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are gRPC's")]
pub enum Encoding {
    Gzip,
    Deflate,
}

/// The encodings that the server accepts, as the value of `grpc-accept-encoding`.
pub const ACCEPTED: &str = "identity,deflate,gzip";

/// The minimum size of a message to compress; smaller ones are cheaper to send uncompressed.
const MIN_LEN: usize = 1024;

impl Encoding {
    /// Returns the encoding with this name.
    pub fn from_name(name: &str) -> Option<Encoding> {
        match name {
            "gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }

    /// Returns the name used in headers.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }

    /// Compresses a message; None if that does not make it smaller.
    pub fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() < MIN_LEN {
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

    /// Decompresses a message; an error if the result exceeds `limit` bytes.
    pub fn decompress(self, message: &Rope, limit: usize) -> Result<Rope, Status> {
        let mut decompressor = Decompressor::new(self, message.clone(), limit);
        while !decompressor.advance()? {}
        Ok(decompressor.finish())
    }
}

/// The maximum number of bytes decompressed at a time.
const CHUNK: usize = 256 << 10;

/// Decompresses a message chunk by chunk, so that the caller can yield or stop in between.
pub struct Decompressor {
    source: Box<dyn Read + Send>,
    whole: Vec<u8>,
    limit: usize,
}

impl Decompressor {
    /// Creates a decompressor of a message; its result may not exceed `limit` bytes.
    pub fn new(encoding: Encoding, message: Rope, limit: usize) -> Decompressor {
        let source = RopeReader { message, piece: 0, offset: 0 };
        let source: Box<dyn Read + Send> = match encoding {
            Encoding::Gzip => Box::new(MultiGzDecoder::new(source)),
            Encoding::Deflate => Box::new(ZlibDecoder::new(source)),
        };
        Decompressor { source, whole: Vec::new(), limit }
    }

    /// The number of bytes decompressed so far.
    pub fn decompressed_len(&self) -> usize {
        self.whole.len()
    }

    /// Decompresses the next chunk; returns whether it was the last.
    pub fn advance(&mut self) -> Result<bool, Status> {
        let read = self
            .source
            .by_ref()
            .take(CHUNK as u64)
            .read_to_end(&mut self.whole)
            .map_err(|error| Status::internal(format!("the message cannot be decompressed: {error}")))?;
        if self.whole.len() > self.limit {
            let limit = self.limit;
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("Received message larger than max: it decompresses to more than {limit} bytes"),
            ));
        }
        Ok(read < CHUNK)
    }

    /// Returns the whole message.
    pub fn finish(self) -> Rope {
        self.whole.into()
    }
}

/// Implements `Read` for a rope.
struct RopeReader {
    message: Rope,
    piece: usize,
    offset: usize,
}

impl Read for RopeReader {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let Some(piece) = self.message.pieces().get(self.piece) else { return Ok(0) };
        let rest = &piece[self.offset..];
        let taken = rest.len().min(target.len());
        target[..taken].copy_from_slice(&rest[..taken]);
        self.offset += taken;
        if self.offset == piece.len() {
            self.piece += 1;
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
