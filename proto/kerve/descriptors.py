"""The descriptor pool that every contract of kerve lives in.

Protobuf's default pool is one per process and refuses a second copy of a message. Clients of other servers
(`tritonclient`, `kserve`, `tensorflow-serving-api`) put their copies of the same public contracts there, so
kerve's stubs keep to a pool of their own: both can be imported in one process, in either order.
"""

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()


def load(serialized: bytes, *well_known: FileDescriptor) -> FileDescriptor:
    """Add a serialized FileDescriptorProto to the pool and return its descriptor; called by generated stubs.

    `well_known` are the `google/protobuf/*.proto` files it imports, which protobuf itself ships.
    """
    for file in well_known:
        POOL.AddSerializedFile(file.serialized_pb)
    return POOL.AddSerializedFile(serialized)
