"""Generated from proto/tensorflow/core/example/example.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.example import feature_pb2 as _feature_pb2

DESCRIPTOR = _descriptors.load(
    b'\n%tensorflow/core/example/example.proto\x12\ntensorflow\x1a%tensorf'
    b'low/core/example/feature.proto";\n\x07Example\x120\n\x08features\x18\x01 \x01(\x0b2'
    b'\x14.tensorflow.FeaturesR\x08featuresb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
