"""Generated from proto/tensorflow_serving/apis/inference.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import classification_pb2 as _classification_pb2
from kerve.tensorflow_serving.apis import input_pb2 as _input_pb2
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2
from kerve.tensorflow_serving.apis import regression_pb2 as _regression_pb2

DESCRIPTOR = _descriptors.load(
    b"\n'tensorflow_serving/apis/inference.proto\x12\x12tensorflow.servin"
    b'g\x1a,tensorflow_serving/apis/classification.proto\x1a#tensorflow_'
    b'serving/apis/input.proto\x1a#tensorflow_serving/apis/model.prot'
    b'o\x1a(tensorflow_serving/apis/regression.proto"n\n\rInferenceTask'
    b'\x12<\n\nmodel_spec\x18\x01 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSp'
    b'ec\x12\x1f\n\x0bmethod_name\x18\x02 \x01(\tR\nmethodName"\x8f\x02\n\x0fInferenceResult\x12<\n\nm'
    b'odel_spec\x18\x01 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec\x12_\n'
    b'\x15classification_result\x18\x02 \x01(\x0b2(.tensorflow.serving.Classifica'
    b'tionResultH\x00R\x14classificationResult\x12S\n\x11regression_result\x18\x03 \x01('
    b'\x0b2$.tensorflow.serving.RegressionResultH\x00R\x10regressionResultB'
    b'\x08\n\x06result"\x81\x01\n\x15MultiInferenceRequest\x127\n\x05tasks\x18\x01 \x03(\x0b2!.tensorf'
    b'low.serving.InferenceTaskR\x05tasks\x12/\n\x05input\x18\x02 \x01(\x0b2\x19.tensorflow'
    b'.serving.InputR\x05input"W\n\x16MultiInferenceResponse\x12=\n\x07results\x18\x01'
    b' \x03(\x0b2#.tensorflow.serving.InferenceResultR\x07resultsb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
