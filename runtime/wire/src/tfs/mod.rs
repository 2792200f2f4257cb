//! TensorFlow Serving's `tensorflow.serving.PredictionService/Predict`.

pub mod request;
pub mod response;
