"""Generated from proto/tensorflow_serving/apis/input.proto by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder

from kerve import descriptors as _descriptors
from kerve.tensorflow.core.example import example_pb2 as _example_pb2

DESCRIPTOR = _descriptors.load(
    b'\n#tensorflow_serving/apis/input.proto\x12\x12tensorflow.serving\x1a%t'
    b'ensorflow/core/example/example.proto">\n\x0bExampleList\x12/\n\x08examp'
    b'les\x18\x01 \x03(\x0b2\x13.tensorflow.ExampleR\x08examples"x\n\x16ExampleListWithC'
    b'ontext\x12/\n\x08examples\x18\x01 \x03(\x0b2\x13.tensorflow.ExampleR\x08examples\x12-\n\x07c'
    b'ontext\x18\x02 \x01(\x0b2\x13.tensorflow.ExampleR\x07context"\xbe\x01\n\x05Input\x12D\n\x0cexam'
    b'ple_list\x18\x01 \x01(\x0b2\x1f.tensorflow.serving.ExampleListH\x00R\x0bexampleLi'
    b'st\x12g\n\x19example_list_with_context\x18\x02 \x01(\x0b2*.tensorflow.serving.E'
    b'xampleListWithContextH\x00R\x16exampleListWithContextB\x06\n\x04kindb\x06pro'
    b'to3',
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
