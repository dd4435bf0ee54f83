"""Build ambit's image of all roles, and those of the samples, as OCI archives.

A layer whose inputs did not change is taken from `.cache/image`; otherwise a Debian mirror and the package index are
asked. `ctr -n k8s.io images import FILE`, `podman load -i FILE` or `skopeo` load an archive.
"""

import argparse
import sys
from pathlib import Path

from ambit.core.errors import AmbitError
from image.build import build
from image.trees import ROOT

CACHE = ROOT / ".cache/image"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev image", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--output", type=Path, default=CACHE / "ambit.tar", help="archive of ambit's image")
    parser.add_argument(
        "--samples", type=Path, default=CACHE / "samples.tar", help="archive of the samples' images"
    )
    parser.add_argument("--name", default="localhost/ambit:dev", help="name of ambit's image (%(default)s)")
    parser.add_argument("--no-cache", action="store_true", help="make every layer anew")
    options = parser.parse_args()
    try:
        built = build(options.output, options.samples, options.name, CACHE, fresh=options.no_cache)
    except AmbitError as problem:
        print(f"error: {problem.message}\n\nhint: {problem.hint}", file=sys.stderr)
        return problem.exit_code
    print(f"{'layer':<10}{'MB':>8}{'unpacked':>10}")
    for name, layer in built.layers.items():
        print(f"{name:<10}{layer.size / 1e6:8.1f}{layer.unpacked / 1e6:10.1f}")
    print()
    print(f"{options.name} {built.digest}")
    print(f"{options.output}  {options.output.stat().st_size / 1e6:.1f} MB")
    print(f"{options.samples}  {options.samples.stat().st_size / 1e6:.1f} MB, {len(built.names)} images")
    print(f"{built.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
