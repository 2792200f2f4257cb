//! gRPC over HTTP/2, as specified: headers, message frames, compression, statuses.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

pub mod budget;
pub mod compression;
pub mod frame;
pub mod head;
pub mod message;
pub mod status;
pub mod unary;
