"""Does the data stay on the device? Device mode against host mode: latency, memory and transfers, side by side.

    python -m ultramotion.validate_gpu_pipeline_kpi
    python -m ultramotion.validate_gpu_pipeline_kpi --json --device cuda --frames 200 --detector my.pth

Exit code 0 if every frame in device mode keeps to one copy in, one copy out, one wait and no allocation; 1 if one does
not, or if the device or a model cannot be had; 2 if the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ultramotion import _ultramotion


def _parser() -> argparse.ArgumentParser:
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m ultramotion.validate_gpu_pipeline_kpi",
        description=f"{description}\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for both modes, instead of the table")
    parser.add_argument(
        "--frames", type=int, default=30, metavar="N", help="frames in each mode, 2 at least (%(default)s)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda[:N]; auto takes the first NVIDIA GPU that can be had, else the CPU (%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="T",
        help="threads on the CPU; 0 takes one for each core (%(default)s)",
    )
    parser.add_argument("--detector", metavar="NAME|PATH", help="a detector by name, or a checkpoint of one")
    parser.add_argument("--segmenter", metavar="NAME|PATH", help="a segmenter by name, or a checkpoint of one")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit with these arguments, and return the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        json, table, passed = _ultramotion.audit(
            frames=given.frames,
            device=given.device,
            threads=given.threads,
            detector=given.detector,
            segmenter=given.segmenter,
        )
    except (ValueError, OverflowError) as error:
        parser.error(str(error))
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json if given.json else table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
