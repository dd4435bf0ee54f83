"""The image's own Python, run from outside without root, to compile byte code that the image can use.

Rules:
1. Byte code is never checked against its source (`unchecked-hash`): an image does not change, and the files of a layer
   have no times.
2. One process compiles, in sorted order and with a fixed hash seed: so the same sources give the same bytes.
"""

import os
import subprocess
from pathlib import Path

from ambit.core.errors import EnvironmentProblem

VERSION = "3.11"
PYTHON = f"/usr/bin/python{VERSION}"
PACKAGES = f"/usr/local/lib/python{VERSION}/dist-packages"
"""Where Debian's Python looks for what is not Debian's."""
STANDARD_LIBRARY = f"/usr/lib/python{VERSION}"

_COMPILE = """
import compileall, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
folder, root = sys.argv[1:]
good = compileall.compile_dir(folder, stripdir=root, prependdir="/", maxlevels=99, force=True, quiet=1,
                              invalidation_mode=mode, workers=1)
sys.exit(not good)
"""


def compile_byte_code(base: Path, root: Path, folder: str) -> None:
    """Compile every module below `folder` of the tree `root` by the interpreter in the tree `base`."""
    libraries = [path for path in (base / "usr/lib").glob("*-linux-gnu") if path.is_dir()]
    loaders = [path for library in libraries for path in library.glob("ld-linux-*.so.*")]
    if not loaders:
        raise EnvironmentProblem(f"{base} has no dynamic loader", "rm -r .cache/image, then build again")
    done = subprocess.run(
        [
            loaders[0], "--library-path", ":".join(map(os.fspath, libraries)), f"{base}{PYTHON}", "-s", "-S",
            "-c", _COMPILE, f"{root}{folder}", os.fspath(root),
        ],
        env={"PYTHONHOME": f"{base}/usr", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EnvironmentProblem(
            f"byte code of {folder}: {done.stdout}{done.stderr}", "see the module it names"
        )
