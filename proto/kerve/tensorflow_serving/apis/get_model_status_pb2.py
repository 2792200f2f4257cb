"""Generated from proto/tensorflow_serving/apis/get_model_status.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2
from kerve.tensorflow_serving.util import status_pb2 as _status_pb2

DESCRIPTOR = _descriptors.load(
    b'\n.tensorflow_serving/apis/get_model_status.proto\x12\x12tensorflow'
    b'.serving\x1a#tensorflow_serving/apis/model.proto\x1a$tensorflow_se'
    b'rving/util/status.proto"U\n\x15GetModelStatusRequest\x12<\n\nmodel_sp'
    b'ec\x18\x01 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec"\x80\x02\n\x12Model'
    b'VersionStatus\x12\x18\n\x07version\x18\x01 \x01(\x03R\x07version\x12B\n\x05state\x18\x02 \x01(\x0e2,.ten'
    b'sorflow.serving.ModelVersionStatus.StateR\x05state\x127\n\x06status\x18\x03 '
    b'\x01(\x0b2\x1f.tensorflow.serving.StatusProtoR\x06status"S\n\x05State\x12\x0b\n\x07UNK'
    b'NOWN\x10\x00\x12\t\n\x05START\x10\n\x12\x0b\n\x07LOADING\x10\x14\x12\r\n\tAVAILABLE\x10\x1e\x12\r\n\tUNLOADING\x10('
    b'\x12\x07\n\x03END\x102"r\n\x16GetModelStatusResponse\x12X\n\x14model_version_status\x18'
    b'\x01 \x03(\x0b2&.tensorflow.serving.ModelVersionStatusR\x12modelVersionS'
    b'tatusb\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
