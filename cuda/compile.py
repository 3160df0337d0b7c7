#!/usr/bin/env python3
"""Compiles every CUDA kernel of the repository with NVRTC, without a GPU and without a CUDA toolkit.

    python -m venv .cuda && .cuda/bin/pip install -r cuda/requirements.txt
    .cuda/bin/python cuda/compile.py                write the PTX that is checked in
    .cuda/bin/python cuda/compile.py --check        fail if what is checked in is not what the sources give
    .cuda/bin/python cuda/compile.py --all-targets  compile for every architecture, write nothing
    .cuda/bin/python cuda/compile.py --assemble     let the assemblers of CUDA 11.8 and 13.0 take what is checked in

A kernel file NAME.cu in a crate's sources or tests becomes ptx/NAME.ptx in its folder, for compute_80: a driver translates that for
any later GPU. It is marked as the oldest PTX that has all of its instructions, so that older drivers take it too;
`--assemble` proves that, with the assemblers of CUDA 11.8 and 13.0, also in the form for Hopper, where kernels overlap. `abi.cuh` and
the other shared headers are found from every crate.
"""

import argparse
import concurrent.futures
import ctypes
import functools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["crates/*/src", "crates/*/tests"]
HEADERS = ROOT / "crates/engine/src/cuda/kernels"
# Ampere to Blackwell. 90a is what Hopper's own instructions need.
TARGETS = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
SHIPPED = "compute_80"
# PTX of CUDA 11.0: the first with everything that compute_80 has.
PTX_VERSION = "7.0"
# What `crates/engine/src/cuda/ptx.rs` makes of it where kernels overlap.
OVERLAP = {
    f".version {PTX_VERSION}": ".version 7.8",
    ".target sm_80": ".target sm_90",
    "// overlap: wait": "griddepcontrol.wait;",
    "// overlap: next": "griddepcontrol.launch_dependents;",
}
# Folders of the wheels whose assemblers stand for the oldest and the newest driver.
ASSEMBLERS = ["cuda_nvcc", "cu13"]
OPTIONS = ["--std=c++17", "-default-device"]


class Nvrtc:
    """The compiler library of NVIDIA's wheels."""

    def __init__(self):
        wheel = self.wheel_folder()
        library = next(iter(sorted(wheel.glob("lib/libnvrtc.so*"))), None)
        headers = wheel / "include"
        if library is None or not (headers / "cuda_fp16.h").exists():
            sys.exit(f"{wheel} lacks NVRTC or cuda_fp16.h: pip install -r {ROOT / 'cuda/requirements.txt'}")
        self.headers = headers
        for part in sorted(wheel.glob("lib/libnvrtc-builtins.so*")):
            # NVRTC looks for it by name, where the loader does not look.
            ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(library))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        if (major.value, minor.value) != (13, 0):
            sys.exit(f"NVRTC {major.value}.{minor.value} instead of 13.0: PTX would differ from what is checked in")

    @staticmethod
    def wheel_folder():
        for folder in map(pathlib.Path, sys.path):
            if (folder / "nvidia/cu13").is_dir():
                return folder / "nvidia/cu13"
        sys.exit(f"NVRTC was not found: pip install -r {ROOT / 'cuda/requirements.txt'} and run with that Python")

    def compile(self, source, target):
        """The PTX (for compute_N) or the cubin (for sm_N) of a file; exits with the compiler's words."""
        # Relative names and paths, so that nothing of this machine enters the result.
        options = [f"--gpu-architecture={target}", f"-I{HEADERS}", f"-I{source.parent}", f"-I{self.headers}", *OPTIONS]
        arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None
        )
        status = self.library.nvrtcCompileProgram(program, len(options), arguments)
        log = self._text(program, "ProgramLog")
        if status != 0 or "warning" in log:
            sys.exit(f"{source.relative_to(ROOT)} for {target}:\n{log}")
        result = self._text(program, "PTX") if target.startswith("compute") else self._bytes(program, "CUBIN")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return result

    def _bytes(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    def _text(self, program, what):
        return self._bytes(program, what).rstrip(b"\0").decode()


def kernels():
    """Every kernel file, sorted."""
    return sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.cu"))


def ptx(nvrtc, source):
    """The text that is checked in: the compiler's, without the comment that names its build, as `PTX_VERSION`: of the
    instructions all are older, and a hint that is not is left out."""
    text = re.sub(r"\A(//[^\n]*\n|\n)*", "", nvrtc.compile(source, SHIPPED))
    text = re.sub(r"\n[ \t]*\.pragma \"used_bytes_mask[^\n]*", "", text)
    return re.sub(r"\A\.version [0-9.]+", f".version {PTX_VERSION}", text).rstrip() + "\n"


def assemblers():
    """ptxas of the oldest and of the newest CUDA, as NVIDIA's wheels have them."""
    found = [p for f in map(pathlib.Path, sys.path) for w in ASSEMBLERS for p in f.glob(f"nvidia/{w}/bin/ptxas")]
    if len(found) != len(ASSEMBLERS):
        sys.exit(f"found {found}, two of ptxas are needed: pip install -r {ROOT / 'cuda/requirements.txt'} and use its Python")
    for ptxas in found:
        ptxas.chmod(0o755)
    return found


def assemble(ptxas, path):
    """Exits with the assembler's words if it does not take a file, as it is or for kernels that overlap."""
    text = path.read_text()
    overlapping = functools.reduce(lambda text, change: text.replace(*change), OVERLAP.items(), text)
    for target, ptx in ("sm_80", text), ("sm_90", overlapping):
        with tempfile.NamedTemporaryFile() as result:
            command = [ptxas, f"-arch={target}", "-O0", "/dev/stdin", "-o", result.name]
            done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{ptxas} for {target}: {path.relative_to(ROOT)}: {done.stdout}{done.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is checked in, write nothing")
    parser.add_argument("--all-targets", action="store_true", help=f"compile for {', '.join(TARGETS)}, write nothing")
    parser.add_argument("--assemble", action="store_true", help="run the assemblers of CUDA 11.8 and 13.0, write nothing")
    parser.add_argument("--only", metavar="NAME", help="the kernel file with this name, without .cu")
    arguments = parser.parse_args()
    # The compilers work outside Python's lock.
    workers = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    if arguments.assemble:
        checked_in = [p for f in FOLDERS for p in sorted(ROOT.glob(f"{f}/**/ptx/*.ptx"))]
        for ptxas in assemblers():
            list(workers.map(functools.partial(assemble, ptxas), checked_in))
        print(f"CUDA 11.8 and 13.0 assemble {len(checked_in)} files as PTX {PTX_VERSION}")
        return

    nvrtc = Nvrtc()
    sources = [s for s in kernels() if arguments.only in (None, s.stem)]
    if not sources:
        sys.exit(f"no kernel file is called {arguments.only}.cu")

    if arguments.all_targets:
        def sizes(source):
            started = time.monotonic()
            sizes = [f"{target} {len(nvrtc.compile(source, target)) / 1024:.0f} KiB" for target in TARGETS]
            return f"{source.relative_to(ROOT)}: {', '.join(sizes)} in {time.monotonic() - started:.1f} s"

        for line in workers.map(sizes, sources):
            print(line, flush=True)
        return

    wanted = {source.parent / "ptx" / f"{source.stem}.ptx": source for source in sources}
    stale = []
    for path, text in zip(wanted, workers.map(lambda source: ptx(nvrtc, source), sources), strict=True):
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not arguments.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    left_over = []
    if arguments.only is None:
        left_over = [p for f in FOLDERS for p in sorted(ROOT.glob(f"{f}/**/ptx/*.ptx")) if p not in wanted]
        for path in left_over:
            stale.append(f"{path.relative_to(ROOT)} (no kernel file)")
            if not arguments.check:
                path.unlink()
    if arguments.check and stale:
        sys.exit("differs from its source: " + ", ".join(stale) + "; run cuda/compile.py")
    print(f"{len(wanted)} files, {len(stale)} {'differ' if arguments.check else 'written or removed'}")


if __name__ == "__main__":
    main()
