//! The headers of requests and responses.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::grpc::compression::{ACCEPTED, Encoding};
use crate::grpc::status::{Code, Status};

/// The request headers that the transport itself interprets.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHead {
    /// The timeout of the call.
    pub timeout: Option<Duration>,
    /// The encoding of the request's compressed messages.
    pub encoding: Option<Encoding>,
    /// Whether the client accepts responses compressed with gzip.
    pub accepts_gzip: bool,
    /// The same for deflate.
    pub accepts_deflate: bool,
}

/// Why a request is rejected.
#[derive(Debug)]
pub enum Refusal {
    /// It is not a gRPC request; the HTTP status.
    Http(StatusCode),
    /// It is a gRPC request that cannot be served.
    Grpc(Status),
}

impl RequestHead {
    /// Reads the headers of a request; rejects headers of more than `max_size` bytes.
    pub fn read(parts: &Parts, max_size: usize) -> Result<RequestHead, Refusal> {
        if parts.method != Method::POST {
            return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
        }
        let mut head = RequestHead::default();
        let mut is_grpc = false;
        let mut size = 0;
        for (name, value) in &parts.headers {
            size += name.as_str().len() + value.len() + ENTRY_OVERHEAD;
            match name.as_str() {
                "content-type" => is_grpc = is_grpc_type(value),
                "grpc-timeout" => head.timeout = Some(timeout(value).map_err(Refusal::Grpc)?),
                "grpc-encoding" => head.encoding = encoding(value).map_err(Refusal::Grpc)?,
                "grpc-accept-encoding" => head.accept(value),
                _ => {}
            }
        }
        if !is_grpc {
            return Err(Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if size > max_size { Err(Refusal::Grpc(too_large(size, max_size))) } else { Ok(head) }
    }

    /// Whether the client accepts responses in this encoding.
    pub fn accepts(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::Gzip => self.accepts_gzip,
            Encoding::Deflate => self.accepts_deflate,
        }
    }

    fn accept(&mut self, value: &HeaderValue) {
        for name in value.to_str().unwrap_or_default().split(',') {
            match Encoding::from_name(name.trim()) {
                Some(Encoding::Gzip) => self.accepts_gzip = true,
                Some(Encoding::Deflate) => self.accepts_deflate = true,
                None => {}
            }
        }
    }
}

/// The bytes that a header counts for in addition to its name and value (RFC 9113, section 6.5.2).
const ENTRY_OVERHEAD: usize = 32;

fn too_large(size: usize, max_size: usize) -> Status {
    let message = format!("metadata: expected at most {max_size} bytes, got {size}; send less of it");
    Status::new(Code::ResourceExhausted, message)
}

/// Whether a content type is `application/grpc`, alone or with a suffix (`+proto`) or `;parameters`.
fn is_grpc_type(value: &HeaderValue) -> bool {
    let rest = value.as_bytes().strip_prefix(b"application/grpc");
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

fn encoding(value: &HeaderValue) -> Result<Option<Encoding>, Status> {
    let name = value.to_str().unwrap_or("?");
    if name == "identity" {
        return Ok(None);
    }
    let unknown =
        || Status::new(Code::Unimplemented, format!("grpc-encoding {name} is not one of {ACCEPTED}"));
    Encoding::from_name(name).map(Some).ok_or_else(unknown)
}

/// Parses a timeout: at most eight digits and a unit.
fn timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let malformed =
        || Status::internal(format!("grpc-timeout {value:?} is not up to 8 digits and one of HMSmun"));
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let amount = digits.iter().fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Ok(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return Err(malformed()),
    })
}

/// The initial headers of a response.
pub fn response_headers(encoding: Option<Encoding>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    if let Some(encoding) = encoding {
        headers.insert("grpc-encoding", HeaderValue::from_static(encoding.name()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        let read = |text| timeout(&HeaderValue::from_static(text)).ok();
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "1", "m", "123456789S", "1s", "-1S", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_grpc_is_served() {
        for (value, served) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc_type(&HeaderValue::from_static(value)), served, "{value}");
        }
    }
}
