"""Generated from proto/tensorflow_serving/apis/classification.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import input_pb2 as _input_pb2
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2

DESCRIPTOR = _descriptors.load(
    b'\n,tensorflow_serving/apis/classification.proto\x12\x12tensorflow.s'
    b'erving\x1a#tensorflow_serving/apis/input.proto\x1a#tensorflow_serv'
    b'ing/apis/model.proto"3\n\x05Class\x12\x14\n\x05label\x18\x01 \x01(\tR\x05label\x12\x14\n\x05score'
    b'\x18\x02 \x01(\x02R\x05score"F\n\x0fClassifications\x123\n\x07classes\x18\x01 \x03(\x0b2\x19.tensorfl'
    b'ow.serving.ClassR\x07classes"e\n\x14ClassificationResult\x12M\n\x0fclassif'
    b'ications\x18\x01 \x03(\x0b2#.tensorflow.serving.ClassificationsR\x0fclassif'
    b'ications"\x86\x01\n\x15ClassificationRequest\x12<\n\nmodel_spec\x18\x01 \x01(\x0b2\x1d.ten'
    b'sorflow.serving.ModelSpecR\tmodelSpec\x12/\n\x05input\x18\x02 \x01(\x0b2\x19.tensor'
    b'flow.serving.InputR\x05input"\x98\x01\n\x16ClassificationResponse\x12@\n\x06resu'
    b'lt\x18\x01 \x01(\x0b2(.tensorflow.serving.ClassificationResultR\x06result\x12<'
    b'\n\nmodel_spec\x18\x02 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec'
    b'b\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
