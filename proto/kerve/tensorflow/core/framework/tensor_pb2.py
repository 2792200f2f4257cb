"""Generated from proto/tensorflow/core/framework/tensor.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.framework import tensor_shape_pb2 as _tensor_shape_pb2
from kerve.tensorflow.core.framework import types_pb2 as _types_pb2

DESCRIPTOR = _descriptors.load(
    b'\n&tensorflow/core/framework/tensor.proto\x12\ntensorflow\x1a,tensor'
    b'flow/core/framework/tensor_shape.proto\x1a%tensorflow/core/fram'
    b'ework/types.proto"\xcd\x03\n\x0bTensorProto\x12*\n\x05dtype\x18\x01 \x01(\x0e2\x14.tensorflo'
    b'w.DataTypeR\x05dtype\x12?\n\x0ctensor_shape\x18\x02 \x01(\x0b2\x1c.tensorflow.TensorS'
    b'hapeProtoR\x0btensorShape\x12%\n\x0eversion_number\x18\x03 \x01(\x05R\rversionNumbe'
    b'r\x12%\n\x0etensor_content\x18\x04 \x01(\x0cR\rtensorContent\x12\x1b\n\tfloat_val\x18\x05 \x03(\x02R'
    b'\x08floatVal\x12\x1d\n\ndouble_val\x18\x06 \x03(\x01R\tdoubleVal\x12\x17\n\x07int_val\x18\x07 \x03(\x05R\x06i'
    b'ntVal\x12\x1d\n\nstring_val\x18\x08 \x03(\x0cR\tstringVal\x12\x1b\n\tint64_val\x18\n \x03(\x03R\x08int'
    b'64Val\x12\x19\n\x08bool_val\x18\x0b \x03(\x08R\x07boolVal\x12\x19\n\x08half_val\x18\r \x03(\x05R\x07halfVal\x12'
    b'\x1d\n\nuint32_val\x18\x10 \x03(\rR\tuint32Val\x12\x1d\n\nuint64_val\x18\x11 \x03(\x04R\tuint64Va'
    b'lb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
