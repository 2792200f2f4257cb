"""Generated from proto/tensorflow_serving/apis/predict.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.framework import tensor_pb2 as _tensor_pb2
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2

DESCRIPTOR = _descriptors.load(
    b'\n%tensorflow_serving/apis/predict.proto\x12\x12tensorflow.serving\x1a'
    b'&tensorflow/core/framework/tensor.proto\x1a#tensorflow_serving/'
    b'apis/model.proto"\x8f\x02\n\x0ePredictRequest\x12<\n\nmodel_spec\x18\x01 \x01(\x0b2\x1d.te'
    b'nsorflow.serving.ModelSpecR\tmodelSpec\x12F\n\x06inputs\x18\x02 \x03(\x0b2..tens'
    b'orflow.serving.PredictRequest.InputsEntryR\x06inputs\x12#\n\routput_'
    b'filter\x18\x03 \x03(\tR\x0coutputFilter\x1aR\n\x0bInputsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12'
    b'-\n\x05value\x18\x02 \x01(\x0b2\x17.tensorflow.TensorProtoR\x05value:\x028\x01"\xf0\x01\n\x0fPredi'
    b'ctResponse\x12J\n\x07outputs\x18\x01 \x03(\x0b20.tensorflow.serving.PredictResp'
    b'onse.OutputsEntryR\x07outputs\x12<\n\nmodel_spec\x18\x02 \x01(\x0b2\x1d.tensorflow.'
    b'serving.ModelSpecR\tmodelSpec\x1aS\n\x0cOutputsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03k'
    b'ey\x12-\n\x05value\x18\x02 \x01(\x0b2\x17.tensorflow.TensorProtoR\x05value:\x028\x01b\x06proto'
    b'3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
