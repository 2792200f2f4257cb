"""The servers measured by `serving.py`, each in a separate process.

    python serving_servers.py wire|constant MODEL PORT_FILE [--workers N] [--queue N]

`wire` is ONNX Runtime behind kerve_wire; `constant` is a grpc.aio server that only returns the same bytes:
the upper limit of a Python server.
"""

import argparse
import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import onnxruntime

METHOD = "/inference.GRPCInferenceService/ModelInfer"
NAME = "model"
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


def session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def serve_wire(arguments: argparse.Namespace) -> None:
    from kerve_wire import QueueOptions, QueuePolicy, Server, ServerOptions, TensorSpec

    model = session(arguments.model, arguments.threads)

    def specs(nodes: Any) -> list[TensorSpec]:
        return [TensorSpec(each.name, DATATYPES[each.type], tuple(each.shape)) for each in nodes]

    server = Server(ServerOptions(workers=arguments.workers))
    policy = QueuePolicy(max_queue_size=arguments.queue)
    queue = server.attach(
        NAME,
        1,
        specs(model.get_inputs()),
        specs(model.get_outputs()),
        batched=True,
        options=QueueOptions(max_batch_size=arguments.batch, policies=(policy,)),
    )
    names = [each.name for each in model.get_outputs()]

    def execute() -> None:
        while (batch := queue.take()) is not None:
            assert not callable(batch)  # there are no deferred tasks here
            batch.reply(dict(zip(names, model.run(names, batch.inputs), strict=True)))

    threading.Thread(target=execute, name="executor", daemon=True).start()
    server.publish(NAME, {"": queue})
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    announce(arguments.port_file, port)
    sys.stdin.read()
    queue.close()
    server.stop(1.0).wait()


class Constant(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        async def answer(_request: bytes, _context: Any) -> bytes:
            return self._answer

        return grpc.unary_unary_rpc_method_handler(answer)


async def serve_constant(arguments: argparse.Namespace) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Constant(b"\x0a\x05model\x12\x011" + b"\x32\x28" + bytes(40)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(arguments.port_file, port)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1.0)


def announce(file: Path, port: int) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(str(port))
    temporary.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("wire", "constant"))
    parser.add_argument("model", type=Path)
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queue", type=int, default=1024)
    arguments = parser.parse_args()
    if arguments.kind == "wire":
        serve_wire(arguments)
    else:
        asyncio.run(serve_constant(arguments))


if __name__ == "__main__":
    main()
