"""Generated from proto/tensorflow_serving/apis/model.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
from google.protobuf import wrappers_pb2 as _wrappers_pb2

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n#tensorflow_serving/apis/model.proto\x12\x12tensorflow.serving\x1a\x1eg'
    b'oogle/protobuf/wrappers.proto"\xb8\x01\n\tModelSpec\x12\x12\n\x04name\x18\x01 \x01(\tR\x04n'
    b'ame\x127\n\x07version\x18\x02 \x01(\x0b2\x1b.google.protobuf.Int64ValueH\x00R\x07version'
    b'\x12%\n\rversion_label\x18\x04 \x01(\tH\x00R\x0cversionLabel\x12%\n\x0esignature_name\x18\x03 '
    b'\x01(\tR\rsignatureNameB\x10\n\x0eversion_choiceb\x06proto3',
    _wrappers_pb2.DESCRIPTOR,
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
