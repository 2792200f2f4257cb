"""Builds a GPU without a GPU: libraries under which ONNX Runtime's real CUDA provider runs on the host.

    python build_fake_gpu.py FOLDER

They lie as NVIDIA's packages have them. What the stand-ins for the driver and the CUDA runtime do not define
of what the provider needs does nothing, with success.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import onnxruntime

HERE = Path(__file__).parent
PROVIDER = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"

# Folder, name of the library, the symbols that are its own, what defines some of them, and a version of
# symbols, which the provider asks for.
LIBRARIES = (
    ("driver", "libcuda.so.1", r"cu[A-Z]", "fake_libcuda.c", False),
    ("nvidia/cu{}/lib", "libcudart.so.{}", r"(__)?cuda", "fake_cudart.c", True),
    ("nvidia/cu{}/lib", "libcublasLt.so.{}", r"cublasLt", None, True),
    ("nvidia/cu{}/lib", "libcublas.so.{}", r"cublas(?!Lt)", None, True),
    ("nvidia/cu{}/lib", "libcurand.so.10", r"curand", None, False),
    ("nvidia/cudnn/lib", "libcudnn.so.9", r"cudnn", None, False),
)
# What gives a handle gives one.
HANDLES = ("cublasCreate_v2", "cublasLtCreate", "cudnnCreate")


def build(folder: Path) -> None:
    """Write the libraries below a folder."""
    major = onnxruntime.cuda_version.partition(".")[0]
    for below, name, pattern, source, versioned in LIBRARIES:
        file = folder / below.format(major) / name.format(major)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "" if source is None else (HERE / source).read_text()
        defined = set(re.findall(r"^(?:EXPORT )?[\w ]+[ *](\w+)\(", text, re.MULTILINE))
        missing = sorted(each for each in needed() if re.match(pattern, each) and each not in defined)
        stubs = "".join(
            f"int {each}(void **made) {{ static int one; *made = &one; return 0; }}\n"
            if each in HANDLES
            else f"int {each}() {{ return 0; }}\n"
            for each in missing
        )
        code, script = folder / f"{file.name}.c", folder / f"{file.name}.map"
        code.write_text(text + "\n" + stubs)
        script.write_text(f"{file.name} {{ global: *; }};\n")
        version = [f"-Wl,--version-script={script}"] if versioned else []
        flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{file.name}", *version]
        subprocess.run(["cc", *flags, "-o", str(file), str(code)], check=True)


@cache
def needed() -> frozenset[str]:
    """Return the symbols that the provider needs, and those of cuDNN, which it looks up by name."""
    listed = subprocess.check_output(["nm", "-D", "--undefined-only", str(PROVIDER)], text=True)
    names = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    looked_up = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", PROVIDER.read_bytes())
    return frozenset(names | {name.decode() for name in looked_up})


if __name__ == "__main__":
    build(Path(sys.argv[1]))
