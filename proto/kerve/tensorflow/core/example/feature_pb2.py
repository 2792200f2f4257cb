"""Generated from proto/tensorflow/core/example/feature.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors

DESCRIPTOR = _descriptors.load(
    b'\n%tensorflow/core/example/feature.proto\x12\ntensorflow"!\n\tBytes'
    b'List\x12\x14\n\x05value\x18\x01 \x03(\x0cR\x05value"!\n\tFloatList\x12\x14\n\x05value\x18\x01 \x03(\x02R\x05valu'
    b'e"!\n\tInt64List\x12\x14\n\x05value\x18\x01 \x03(\x03R\x05value"\xb9\x01\n\x07Feature\x126\n\nbytes_li'
    b'st\x18\x01 \x01(\x0b2\x15.tensorflow.BytesListH\x00R\tbytesList\x126\n\nfloat_list\x18\x02'
    b' \x01(\x0b2\x15.tensorflow.FloatListH\x00R\tfloatList\x126\n\nint64_list\x18\x03 \x01(\x0b'
    b'2\x15.tensorflow.Int64ListH\x00R\tint64ListB\x06\n\x04kind"\x98\x01\n\x08Features\x12;\n'
    b'\x07feature\x18\x01 \x03(\x0b2!.tensorflow.Features.FeatureEntryR\x07feature\x1aO'
    b'\n\x0cFeatureEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12)\n\x05value\x18\x02 \x01(\x0b2\x13.tensorflow'
    b'.FeatureR\x05value:\x028\x01b\x06proto3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
