"""Regenerate the protobuf modules: `python tests/tools/generate_proto.py` from the repository root.

Owns: the one command line by which `kvsecure/proto/*_pb2.py` and `*_pb2.pyi` come about.
Never: touches the `.proto` files.
"""

import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

__all__ = ["ROOT", "describe", "generate", "sources"]

ROOT = Path(__file__).resolve().parents[2]


def sources() -> list[str]:
    """Return the `.proto` files, relative to the root, in the order of their names."""
    return sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "kvsecure" / "proto").glob("*.proto")
    )


def generate(target: Path) -> None:
    """Write the modules below a directory, as `kvsecure/proto/NAME_pb2.py` and `.pyi`.

    Raises:
        RuntimeError: protoc refused; it has said why on stderr.
    """
    _run(f"--python_out={target}", f"--pyi_out={target}")


def describe(target: Path) -> None:
    """Write what the `.proto` files say as one FileDescriptorSet.

    Raises:
        RuntimeError: protoc refused; it has said why on stderr.
    """
    _run(f"--descriptor_set_out={target}")


def _run(*outputs: str) -> None:
    included = files("grpc_tools") / "_proto"
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{included}", *outputs, *sources()])
    if status != 0:
        raise RuntimeError(f"protoc ended with {status}")


if __name__ == "__main__":
    generate(ROOT)
    sys.stdout.write(
        f"{len(sources())} files generated with grpcio-tools {version('grpcio-tools')}\n"
    )
