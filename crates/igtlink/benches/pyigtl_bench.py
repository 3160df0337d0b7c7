"""The pyigtl side of benches/igtl.rs: the same frames, server and client in two processes.

pyigtl is given the benefit of the doubt twice: its client is timed where it stores a message, before
its user can see it (`wait_for_message` polls every 10 ms), and it does not check checksums.
"""

import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import pyigtl
from pyigtl.messages import CRC64

THROUGHPUT_FRAMES = 150
LATENCY_FRAMES = 300
RATE_HZ = 60.0
PIXELS = np.arange(640 * 480, dtype=np.uint32).astype(np.uint8).reshape(1, 480, 640)


def rate(call):
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        call()
        calls += 1
    return calls / (time.perf_counter() - start)


class Arrivals(dict):
    """pyigtl's store of the last message of each device, with the time of each arrival."""

    def __init__(self):
        super().__init__()
        self.times = []

    def __setitem__(self, device, message):
        self.times.append((time.time(), message.timestamp))
        super().__setitem__(device, message)


def receive(port):
    client = pyigtl.OpenIGTLinkClient("127.0.0.1", port)
    client.incoming_messages = arrivals = Arrivals()
    total = THROUGHPUT_FRAMES + LATENCY_FRAMES
    deadline = time.time() + 60
    while len(arrivals.times) < total and time.time() < deadline:
        time.sleep(0.01)
    times = arrivals.times
    if len(times) < total:
        sys.exit(f"pyigtl: {total - len(times)} of {total} frames never came")
    burst = times[:THROUGHPUT_FRAMES]
    print(f"pyigtl throughput, no checksum checked: {(len(burst) - 1) / (burst[-1][0] - burst[0][0]):.0f} frames/s")
    ms = sorted((arrived - sent) * 1e3 for arrived, sent in times[THROUGHPUT_FRAMES:])
    pick = lambda part: ms[round((len(ms) - 1) * part)]
    print(
        f"pyigtl latency at {RATE_HZ:.0f} Hz, {len(ms)} frames: "
        f"p50 {pick(0.5):.3f} ms, p99 {pick(0.99):.3f} ms, max {ms[-1]:.3f} ms",
        flush=True,
    )
    # pyigtl's threads would keep the process.
    import os

    os._exit(0)


def frame():
    return pyigtl.ImageMessage(PIXELS, device_name="Image")


def main():
    print(f"pyigtl {version('pyigtl')}, Python {sys.version.split()[0]}")
    data = PIXELS.tobytes()
    print(f"pyigtl crc64, {len(data)} bytes: {rate(lambda: CRC64(data)) * len(data) / 1e9:.3f} GB/s")
    packed = frame().pack()
    header = pyigtl.messages.MessageBase.parse_header(packed[:58])
    message = pyigtl.messages.MessageBase.create_message("IMAGE")
    encode, decode = rate(lambda: frame().pack()), rate(lambda: message.unpack(header, packed[58:]))
    print(f"pyigtl encode with checksum: {encode:.0f} frames/s; decode without: {decode:.0f} frames/s", flush=True)

    server = pyigtl.OpenIGTLinkServer(port=0, local_server=True)
    client = subprocess.Popen([sys.executable, __file__, str(server.server_address[1])])
    while not server.is_connected():
        time.sleep(0.01)
    for _ in range(THROUGHPUT_FRAMES):
        # Its queue holds 100 and lets the oldest go without a word.
        server.send_message(frame(), wait=True)
    begin = time.time() + 0.2
    for number in range(LATENCY_FRAMES):
        time.sleep(max(0.0, begin + number / RATE_HZ - time.time()))
        server.send_message(frame(), wait=False)
    code = client.wait(timeout=60)
    sys.stdout.flush()
    import os

    os._exit(code)


if len(sys.argv) > 1:
    receive(int(sys.argv[1]))
else:
    main()
