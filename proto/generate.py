"""Write what is made of every contract under proto/, or with --check say whether it is up to date.

Python stubs, and the pages of docs/reference that describe the contracts.

`make proto` runs this with the pinned tools of requirements/proto.txt. Two things differ from plain protoc:

- the stubs load into `kerve.descriptors.POOL`, not into protobuf's default pool;
- a contract that others own keeps its public path (`inference/grpc_service.proto`), while its stub goes below
  `kerve/` (`kerve/inference/grpc_service_pb2.py`), so that kerve installs no top-level package but its own.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path, PurePosixPath

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from writers.contracts import pages

ROOT = Path(__file__).resolve().parent
DOCS = ROOT.parent / "docs"
WELL_KNOWN = "google/protobuf/"

STUB = '''\
"""Generated from {source} by `make proto`. Do not edit."""

from google.protobuf.internal import builder as _builder
{well_known_imports}
from kerve import descriptors as _descriptors
{imports}
DESCRIPTOR = _descriptors.load(
{serialized}
{well_known})

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
'''


def main() -> int:
    """Return the exit code: 1 when --check finds a file that differs."""
    parser = argparse.ArgumentParser(description="Write stubs and pages of the contracts under proto/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a file is stale"
    )
    check = parser.parse_args().check

    wanted = dict(generate())
    there = (*ROOT.rglob("*_pb2.py*"), *(path for path in wanted if path.exists()))
    present = {path: path.read_text() for path in there}
    stale = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    for path in stale:
        if not check:
            write(path, wanted.get(path))
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT.parent)}")  # noqa: T201  a script's output
    return 1 if check and stale else 0


def write(path: Path, text: str | None) -> None:
    """Write one stub; None means that its contract is gone."""
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def generate() -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of every stub and page."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.proto"))
    descriptors = {file.name: file for file in compile_descriptors(sources).file}
    for source in sources:
        yield ROOT / stub_path(source), stub(descriptors[source])
    yield from ((ROOT / name, text) for name, text in type_stubs(descriptors, sources))
    yield from ((DOCS / name, text) for name, text in pages(descriptors.values()))


def compile_descriptors(sources: list[str]) -> FileDescriptorSet:
    """Return the descriptors of the sources and of all that they import, with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "descriptors")
        includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        run(
            "-m",
            "grpc_tools.protoc",
            *includes,
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            *sources,
        )
        return FileDescriptorSet.FromString(output.read_bytes())


def run(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run this Python with the arguments and return its output; a failure raises."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout


def installed(source: str) -> str:
    """Return where a contract's stub is found: below kerve/, or in protobuf itself."""
    return source if source.startswith(("kerve/", WELL_KNOWN)) else f"kerve/{source}"


def stub_path(source: str) -> str:
    """Return the path of the Python module of a contract."""
    return installed(source).removesuffix(".proto") + "_pb2.py"


def import_of(source: str) -> str:
    """Return the statement that imports the stub of a contract, under a name that is its own."""
    path = PurePosixPath(stub_path(source))
    return f"from {'.'.join(path.parent.parts)} import {path.stem} as _{path.stem}"


def stub(file: FileDescriptorProto) -> str:
    """Return the text of the Python module of one contract."""
    bare = FileDescriptorProto.FromString(file.SerializeToString())
    bare.ClearField("source_code_info")
    data = bare.SerializeToString(deterministic=True)
    literals = [f"    {data[start : start + 60]!r}\n" for start in range(0, len(data), 60)]
    well_known = [name for name in file.dependency if name.startswith(WELL_KNOWN)]
    ours = [name for name in file.dependency if not name.startswith(WELL_KNOWN)]
    return STUB.format(
        source=f"proto/{file.name}",
        well_known_imports="".join(f"{import_of(name)}\n" for name in well_known),
        imports="".join(f"{import_of(name)}\n" for name in ours),
        serialized="".join(literals).rstrip() + ",",
        well_known="".join(
            f"    _{PurePosixPath(stub_path(name)).stem}.DESCRIPTOR,\n" for name in well_known
        ),
    )


def type_stubs(descriptors: dict[str, FileDescriptorProto], sources: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the `.pyi` files, from mypy-protobuf; it is told where the stubs are installed."""
    request = CodeGeneratorRequest(parameter="quiet")
    request.file_to_generate.extend(installed(source) for source in sources)
    for file in descriptors.values():
        moved = request.proto_file.add()
        moved.CopyFrom(file)
        moved.name = installed(file.name)
        moved.dependency[:] = [installed(name) for name in file.dependency]
    answer = run("-c", "from mypy_protobuf.main import main; main()", stdin=request.SerializeToString())
    response = CodeGeneratorResponse.FromString(answer)
    if response.error:
        raise RuntimeError(response.error)
    yield from ((written.name, written.content) for written in response.file)


if __name__ == "__main__":
    sys.exit(main())
