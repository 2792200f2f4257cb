#!/bin/sh
# Build a Triton Inference Server with its ONNX Runtime backend, for `triton.py`, on machines without containers.
#
#   triton_server.sh WHEEL SOURCES HEADERS FOLDER
#
# WHEEL is nvidia-pytriton's (`pip download --no-deps nvidia-pytriton==0.7.0`), which contains NVIDIA's build of the
# server, 2.51. SOURCES contains clones of onnxruntime_backend, backend, core and common at r24.10
# (github.com/triton-inference-server), from which the backend is built as NVIDIA builds it, without GPU. HEADERS
# contains ONNX Runtime's onnxruntime_c_api.h. The library is that of the installed onnxruntime, so that both servers
# use the same. Needs g++, unzip and RapidJSON (rapidjson-dev).
set -eu
wheel=$1 sources=$2 headers=$3 folder=$4
library=$("$(dirname "$0")/../.venv/bin/python" -c \
    'import onnxruntime, pathlib; print(*pathlib.Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))')
mkdir -p "$folder"
unzip -q -o "$wheel" -d "$folder"
server=$folder/pytriton/tritonserver backend=$folder/pytriton/tritonserver/backends/onnxruntime
chmod +x "$server/bin/tritonserver"
mkdir -p "$backend"
cp "$library" "$backend/"
ln -sf "$(basename "$library")" "$backend/libonnxruntime.so.1"
ln -sf "$(basename "$library")" "$backend/libonnxruntime.so"
# device_memory_tracker.cc is used for GPUs only.
g++ -std=c++17 -O3 -DNDEBUG -DTRITON_ENABLE_STATS=1 -w -fPIC -shared -o "$backend/libtriton_onnxruntime.so" \
    -I"$headers" -I"$sources/onnxruntime_backend/src" -I"$sources/backend/include" -I"$sources/backend/src" \
    -I"$sources/core/include" -I"$sources/common/include" \
    "$sources"/onnxruntime_backend/src/*.cc "$sources"/backend/src/backend_*.cc \
    "$sources"/common/src/async_work_queue.cc "$sources"/common/src/thread_pool.cc "$sources"/common/src/error.cc \
    -L"$backend" -lonnxruntime -Wl,-rpath,'$ORIGIN' \
    -Wl,--version-script="$sources/onnxruntime_backend/src/libtriton_onnxruntime.ldscript"
echo "$server"
