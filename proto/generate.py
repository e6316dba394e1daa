"""Generate the Python modules of the wire contract from the proto file.

    python proto/generate.py            write csi/v1/csi_pb2*.py and their type stubs
    python proto/generate.py --check    change nothing; exit 1 where one of them is stale

The generated modules are committed, so that neither an installation nor the image needs the
compiler; --check is what keeps them honest. What is generated depends on the versions of
grpcio-tools and mypy-protobuf, which is why the development lock file pins both.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
CONTRACT = "csi/v1/csi.proto"
GENERATED = (
    "csi/v1/csi_pb2.py",
    "csi/v1/csi_pb2.pyi",
    "csi/v1/csi_pb2_grpc.py",
    "csi/v1/csi_pb2_grpc.pyi",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated modules, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Generate the Python modules of the wire contract."
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 where a module is stale"
    )
    check: bool = parser.parse_args(arguments).check

    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        try:
            compile_contract(fresh)
        except subprocess.CalledProcessError as error:
            # The compiler has said on stderr what is wrong.
            print(f"{CONTRACT}: the compiler failed, nothing was written", file=sys.stderr)
            return error.returncode
        stale = find_stale(fresh)
        if not check:
            for name in stale:
                shutil.copyfile(fresh / name, ROOT / name)
                print(f"wrote {name}")
            return 0

    for name in stale:
        print(f"stale: {name}", file=sys.stderr)
    if stale:
        print("to mend: python proto/generate.py", file=sys.stderr)
    return 1 if stale else 0


def compile_contract(target: Path) -> None:
    """Compile the contract into a folder.

    Raises:
        subprocess.CalledProcessError: The compiler refused the contract, or a plugin is missing.
    """
    # protoc finds the type stubs' plugins on PATH, where a virtual environment that was not
    # activated does not put its scripts.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path={SOURCES}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            # The server is synchronous. Stubs that allow for both kinds give every handler's
            # context a type that is neither.
            f"--mypy_grpc_out=quiet,only_sync:{target}",
            CONTRACT,
        ],
        check=True,
        env={**os.environ, "PATH": path},
    )


def find_stale(fresh: Path) -> list[str]:
    """Name the generated modules that are missing or differ from fresh ones."""
    return [
        name
        for name in GENERATED
        if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (fresh / name).read_bytes()
    ]


if __name__ == "__main__":
    sys.exit(main())
