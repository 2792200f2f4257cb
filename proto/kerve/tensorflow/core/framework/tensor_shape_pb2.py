"""Generated from proto/tensorflow/core/framework/tensor_shape.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n,tensorflow/core/framework/tensor_shape.proto\x12\ntensorflow"\x98'
    b'\x01\n\x10TensorShapeProto\x122\n\x03dim\x18\x02 \x03(\x0b2 .tensorflow.TensorShapePro'
    b'to.DimR\x03dim\x12!\n\x0cunknown_rank\x18\x03 \x01(\x08R\x0bunknownRank\x1a-\n\x03Dim\x12\x12\n\x04siz'
    b'e\x18\x01 \x01(\x03R\x04size\x12\x12\n\x04name\x18\x02 \x01(\tR\x04nameb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
