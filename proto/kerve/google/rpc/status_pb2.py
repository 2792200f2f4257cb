"""Generated from proto/google/rpc/status.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
from google.protobuf import any_pb2 as _any_pb2

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n\x17google/rpc/status.proto\x12\ngoogle.rpc\x1a\x19google/protobuf/any.p'
    b'roto"f\n\x06Status\x12\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12\x18\n\x07message\x18\x02 \x01(\tR\x07message'
    b'\x12.\n\x07details\x18\x03 \x03(\x0b2\x14.google.protobuf.AnyR\x07detailsb\x06proto3',
    _any_pb2.DESCRIPTOR,
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
