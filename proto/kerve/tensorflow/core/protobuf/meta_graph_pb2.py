"""Generated from proto/tensorflow/core/protobuf/meta_graph.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.framework import tensor_shape_pb2 as _tensor_shape_pb2
from kerve.tensorflow.core.framework import types_pb2 as _types_pb2

DESCRIPTOR = _descriptors.load(
    b'\n)tensorflow/core/protobuf/meta_graph.proto\x12\ntensorflow\x1a,ten'
    b'sorflow/core/framework/tensor_shape.proto\x1a%tensorflow/core/f'
    b'ramework/types.proto"\x8d\x01\n\nTensorInfo\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12*\n\x05d'
    b'type\x18\x02 \x01(\x0e2\x14.tensorflow.DataTypeR\x05dtype\x12?\n\x0ctensor_shape\x18\x03 \x01('
    b'\x0b2\x1c.tensorflow.TensorShapeProtoR\x0btensorShape"\xd5\x02\n\x0cSignatureDe'
    b'f\x12<\n\x06inputs\x18\x01 \x03(\x0b2$.tensorflow.SignatureDef.InputsEntryR\x06inp'
    b'uts\x12?\n\x07outputs\x18\x02 \x03(\x0b2%.tensorflow.SignatureDef.OutputsEntryR'
    b'\x07outputs\x12\x1f\n\x0bmethod_name\x18\x03 \x01(\tR\nmethodName\x1aQ\n\x0bInputsEntry\x12\x10\n\x03'
    b'key\x18\x01 \x01(\tR\x03key\x12,\n\x05value\x18\x02 \x01(\x0b2\x16.tensorflow.TensorInfoR\x05value'
    b':\x028\x01\x1aR\n\x0cOutputsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12,\n\x05value\x18\x02 \x01(\x0b2\x16.tens'
    b'orflow.TensorInfoR\x05value:\x028\x01b\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
