"""Generated from proto/tensorflow_serving/apis/model_management.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.config import model_server_config_pb2 as _model_server_config_pb2
from kerve.tensorflow_serving.util import status_pb2 as _status_pb2

DESCRIPTOR = _descriptors.load(
    b'\n.tensorflow_serving/apis/model_management.proto\x12\x12tensorflow'
    b'.serving\x1a3tensorflow_serving/config/model_server_config.prot'
    b'o\x1a$tensorflow_serving/util/status.proto"T\n\x13ReloadConfigReque'
    b'st\x12=\n\x06config\x18\x01 \x01(\x0b2%.tensorflow.serving.ModelServerConfigR\x06c'
    b'onfig"O\n\x14ReloadConfigResponse\x127\n\x06status\x18\x01 \x01(\x0b2\x1f.tensorflow.s'
    b'erving.StatusProtoR\x06statusb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
