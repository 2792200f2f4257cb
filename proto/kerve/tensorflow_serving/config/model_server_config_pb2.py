"""Generated from proto/tensorflow_serving/config/model_server_config.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
from google.protobuf import any_pb2 as _any_pb2

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.sources.storage_path import file_system_storage_path_source_pb2 as _file_system_storage_path_source_pb2

DESCRIPTOR = _descriptors.load(
    b'\n3tensorflow_serving/config/model_server_config.proto\x12\x12tenso'
    b'rflow.serving\x1a\x19google/protobuf/any.proto\x1aMtensorflow_serving'
    b'/sources/storage_path/file_system_storage_path_source.proto"'
    b'\x81\x03\n\x0bModelConfig\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1b\n\tbase_path\x18\x02 \x01(\tR\x08base'
    b'Path\x12%\n\x0emodel_platform\x18\x04 \x01(\tR\rmodelPlatform\x12}\n\x14model_version'
    b'_policy\x18\x07 \x01(\x0b2K.tensorflow.serving.FileSystemStoragePathSour'
    b'ceConfig.ServableVersionPolicyR\x12modelVersionPolicy\x12Y\n\x0eversio'
    b'n_labels\x18\x08 \x03(\x0b22.tensorflow.serving.ModelConfig.VersionLabel'
    b'sEntryR\rversionLabels\x1a@\n\x12VersionLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03ke'
    b'y\x12\x14\n\x05value\x18\x02 \x01(\x03R\x05value:\x028\x01"J\n\x0fModelConfigList\x127\n\x06config\x18\x01 \x03'
    b'(\x0b2\x1f.tensorflow.serving.ModelConfigR\x06config"\xb8\x01\n\x11ModelServerC'
    b'onfig\x12Q\n\x11model_config_list\x18\x01 \x01(\x0b2#.tensorflow.serving.ModelC'
    b'onfigListH\x00R\x0fmodelConfigList\x12F\n\x13custom_model_config\x18\x02 \x01(\x0b2\x14.'
    b'google.protobuf.AnyH\x00R\x11customModelConfigB\x08\n\x06configb\x06proto3',
    _any_pb2.DESCRIPTOR,
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
