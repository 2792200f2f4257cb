"""A native gRPC and REST transport that passes whole batches to Python.

`Server` hosts servicers written for grpcio, and serves `inference.GRPCInferenceService/ModelInfer`,
`ModelStreamInfer` and `tensorflow.serving.PredictionService/Predict` natively: decoding, validation,
queueing, batching and encoding run without the GIL, and an executor takes whole batches from a `Queue`.
"""

from kerve_wire._native import Answer, Batch, Inbox, Load, Observation, Queue
from kerve_wire._options import QueueOptions, QueuePolicy, ServerOptions, TensorSpec
from kerve_wire._server import Credentials, Server

__all__ = [
    "Answer",
    "Batch",
    "Credentials",
    "Inbox",
    "Load",
    "Observation",
    "Queue",
    "QueueOptions",
    "QueuePolicy",
    "Server",
    "ServerOptions",
    "TensorSpec",
]
