"""Generated from proto/tensorflow_serving/apis/model_service.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import get_model_status_pb2 as _get_model_status_pb2
from kerve.tensorflow_serving.apis import model_management_pb2 as _model_management_pb2

DESCRIPTOR = _descriptors.load(
    b'\n+tensorflow_serving/apis/model_service.proto\x12\x12tensorflow.se'
    b'rving\x1a.tensorflow_serving/apis/get_model_status.proto\x1a.tenso'
    b'rflow_serving/apis/model_management.proto2\xe7\x01\n\x0cModelService\x12g'
    b'\n\x0eGetModelStatus\x12).tensorflow.serving.GetModelStatusRequest\x1a'
    b'*.tensorflow.serving.GetModelStatusResponse\x12n\n\x19HandleReloadC'
    b"onfigRequest\x12'.tensorflow.serving.ReloadConfigRequest\x1a(.tens"
    b'orflow.serving.ReloadConfigResponseb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
