"""Generated from proto/tensorflow_serving/apis/get_model_metadata.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
from google.protobuf import any_pb2 as _any_pb2

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.protobuf import meta_graph_pb2 as _meta_graph_pb2
from kerve.tensorflow_serving.apis import model_pb2 as _model_pb2

DESCRIPTOR = _descriptors.load(
    b'\n0tensorflow_serving/apis/get_model_metadata.proto\x12\x12tensorfl'
    b'ow.serving\x1a\x19google/protobuf/any.proto\x1a)tensorflow/core/proto'
    b'buf/meta_graph.proto\x1a#tensorflow_serving/apis/model.proto"\xc8\x01'
    b'\n\x0fSignatureDefMap\x12Z\n\rsignature_def\x18\x01 \x03(\x0b25.tensorflow.servin'
    b'g.SignatureDefMap.SignatureDefEntryR\x0csignatureDef\x1aY\n\x11Signatu'
    b'reDefEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12.\n\x05value\x18\x02 \x01(\x0b2\x18.tensorflow.Sig'
    b'natureDefR\x05value:\x028\x01"~\n\x17GetModelMetadataRequest\x12<\n\nmodel_spe'
    b'c\x18\x01 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec\x12%\n\x0emetadat'
    b'a_field\x18\x02 \x03(\tR\rmetadataField"\x83\x02\n\x18GetModelMetadataResponse\x12<\n'
    b'\nmodel_spec\x18\x01 \x01(\x0b2\x1d.tensorflow.serving.ModelSpecR\tmodelSpec\x12'
    b'V\n\x08metadata\x18\x02 \x03(\x0b2:.tensorflow.serving.GetModelMetadataRespo'
    b'nse.MetadataEntryR\x08metadata\x1aQ\n\rMetadataEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03k'
    b'ey\x12*\n\x05value\x18\x02 \x01(\x0b2\x14.google.protobuf.AnyR\x05value:\x028\x01b\x06proto3',
    _any_pb2.DESCRIPTOR,
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
