"""Generated from proto/tensorflow_serving/apis/regression.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import input_pb2 as _input_pb2
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2

DESCRIPTOR = _descriptors.load(
    b'\n(tensorflow_serving/apis/regression.proto\x12\x12tensorflow.servi'
    b'ng\x1a#tensorflow_serving/apis/input.proto\x1a#tensorflow_serving/'
    b'apis/model.proto""\n\nRegression\x12\x14\n\x05value\x18\x01 \x01(\x02R\x05value"T\n\x10Regr'
    b'essionResult\x12@\n\x0bregressions\x18\x01 \x03(\x0b2\x1e.tensorflow.serving.Regre'
    b'ssionR\x0bregressions"\x82\x01\n\x11RegressionRequest\x12<\n\nmodel_spec\x18\x01 \x01(\x0b'
    b'2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec\x12/\n\x05input\x18\x02 \x01(\x0b2\x19.'
    b'tensorflow.serving.InputR\x05input"\x90\x01\n\x12RegressionResponse\x12<\n\x06re'
    b'sult\x18\x01 \x01(\x0b2$.tensorflow.serving.RegressionResultR\x06result\x12<\n\n'
    b'model_spec\x18\x02 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpecb\x06'
    b'proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
