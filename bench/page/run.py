#!/usr/bin/env python3
"""What the live page costs the stream: the latency of frames with no page open, with one, and with ten and one that never reads.

    cargo build --release && python3 bench/page/run.py [--seconds 10] [--rounds 5] [--rate 6]

A simulated scanner, the service and the viewers are processes and threads of this machine. The three situations take turns, so that
what else the machine does meets all of them. Needs Python 3.9 and nothing else; see README.md beside this file.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target/release/ultramotion"


class Viewer(threading.Thread):
    """A page's WebSocket: reads frames and says that they are drawn, or never reads at all."""

    def __init__(self, port: int, reads: bool) -> None:
        super().__init__(daemon=True)
        self.reads, self.bytes, self.frames, self.over = reads, 0, 0, False
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.start()

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def run(self) -> None:
        if not self.reads:
            return
        try:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.exactly(1)
            while not self.over:
                first, length = self.exactly(2)
                if length == 126:
                    (length,) = struct.unpack(">H", self.exactly(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", self.exactly(8))
                self.exactly(length)
                if first & 15 == 2:
                    self.frames += 1
                    self.bytes += length
                    said = b'{"type":"drawn"}'
                    mask = os.urandom(4)
                    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(said))
                    self.socket.sendall(bytes([0x81, 0x80 | len(said)]) + mask + masked)
        except (ConnectionError, OSError):
            pass

    def close(self) -> None:
        self.over = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def mean_ms(port: int) -> tuple[float, float]:
    """Sum of all latencies so far, milliseconds, and their number."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    value = lambda name: float(re.search(rf"^{name} (\S+)$", text, re.M)[1])
    name = "ultramotion_frame_latency_seconds"
    return 1e3 * value(f"{name}_sum"), value(f"{name}_count")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=10, help="of each situation in a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--rate", default="6", help="frames a second, such that the pipeline keeps up")
    options = arguments.parse_args()
    scanner, page = free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    address = f"127.0.0.1:{scanner}"
    simulate = [PROGRAM, "simulate", "--listen", address, "--rate", options.rate, "--loop", "--frames", "1000000"]
    serve = [PROGRAM, "serve", "--connect", address, "--listen", "127.0.0.1:0", "--page", f"127.0.0.1:{page}"]
    processes = [subprocess.Popen(simulate, **quiet), subprocess.Popen(serve + ["--device", "cpu"], **quiet)]
    situations = {"no page": (0, 0), "one page": (1, 0), "ten pages and one that never reads": (10, 1)}
    means: dict[str, list[float]] = {name: [] for name in situations}
    shown: dict[str, list[float]] = {name: [] for name in situations}
    frame_bytes: list[float] = []
    try:
        time.sleep(8)
        for _ in range(options.rounds):
            for name, (reading, deaf) in situations.items():
                viewers = [Viewer(page, True) for _ in range(reading)] + [Viewer(page, False) for _ in range(deaf)]
                time.sleep(1)
                before_ms, before = mean_ms(page)
                seen = sum(viewer.frames for viewer in viewers)
                time.sleep(options.seconds)
                after_ms, after = mean_ms(page)
                means[name].append((after_ms - before_ms) / (after - before))
                if reading:
                    shown[name].append((sum(v.frames for v in viewers) - seen) / reading / (after - before))
                    frame_bytes += [v.bytes / v.frames for v in viewers if v.frames]
                for viewer in viewers:
                    viewer.close()
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    base = means["no page"]
    for name, values in means.items():
        ratios = [value / without for value, without in zip(values, base)]
        drawn = f", {100 * statistics.median(shown[name]):.0f} % of frames drawn" if shown[name] else ""
        print(
            f"{name:36} {statistics.median(values):6.1f} ms ({min(values):.1f} to {max(values):.1f}), "
            f"{statistics.median(ratios):.3f} of none ({min(ratios):.3f} to {max(ratios):.3f}){drawn}"
        )
    size = statistics.median(frame_bytes)
    print(f"a frame as a page gets it: {size / 1024:.1f} KiB, {30 * 8 * size / 1e6:.1f} Mbit/s at 30 frames a second")


if __name__ == "__main__":
    main()
