//! The Open Inference Protocol with Triton's extensions (`inference.GRPCInferenceService`).

pub mod classification;
pub mod request;
pub mod response;
pub mod stream;
