"""Generated from proto/google/rpc/error_details.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
from google.protobuf import duration_pb2 as _duration_pb2

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n\x1egoogle/rpc/error_details.proto\x12\ngoogle.rpc\x1a\x1egoogle/protobu'
    b'f/duration.proto"G\n\tRetryInfo\x12:\n\x0bretry_delay\x18\x01 \x01(\x0b2\x19.google.'
    b'protobuf.DurationR\nretryDelayb\x06proto3',
    _duration_pb2.DESCRIPTOR,
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
