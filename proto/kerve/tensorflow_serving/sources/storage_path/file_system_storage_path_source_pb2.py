"""Generated from proto/tensorflow_serving/sources/storage_path/file_system_storage_path_source.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\nMtensorflow_serving/sources/storage_path/file_system_storag'
    b'e_path_source.proto\x12\x12tensorflow.serving"\xf1\x03\n!FileSystemStorag'
    b'ePathSourceConfig\x1a\xcb\x03\n\x15ServableVersionPolicy\x12l\n\x06latest\x18d \x01(\x0b2'
    b'R.tensorflow.serving.FileSystemStoragePathSourceConfig.Serva'
    b'bleVersionPolicy.LatestH\x00R\x06latest\x12c\n\x03all\x18e \x01(\x0b2O.tensorflow.'
    b'serving.FileSystemStoragePathSourceConfig.ServableVersionPol'
    b'icy.AllH\x00R\x03all\x12r\n\x08specific\x18f \x01(\x0b2T.tensorflow.serving.FileSy'
    b'stemStoragePathSourceConfig.ServableVersionPolicy.SpecificH\x00'
    b'R\x08specific\x1a+\n\x06Latest\x12!\n\x0cnum_versions\x18\x01 \x01(\rR\x0bnumVersions\x1a\x05\n\x03A'
    b'll\x1a&\n\x08Specific\x12\x1a\n\x08versions\x18\x01 \x03(\x03R\x08versionsB\x0f\n\rpolicy_choiceb'
    b'\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
