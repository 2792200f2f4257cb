"""Generated from proto/tensorflow_serving/util/status.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n$tensorflow_serving/util/status.proto\x12\x12tensorflow.serving"Q'
    b'\n\x0bStatusProto\x12\x1d\n\nerror_code\x18\x01 \x01(\x05R\terrorCode\x12#\n\rerror_messag'
    b'e\x18\x02 \x01(\tR\x0cerrorMessageb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
