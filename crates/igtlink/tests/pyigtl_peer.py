"""The other end of tests/pyigtl.rs: pyigtl as server or as client.

Waits for one message of each type that pyigtl can read and prints what it found as a line of JSON;
then sends one of each type that it can write, and waits to be told that they came.

Usage: pyigtl_peer.py server | pyigtl_peer.py client PORT
"""

import json
import sys

import numpy as np
import pyigtl

WATCHDOG_SEC = 30


def expect(peer, device_name):
    message = peer.wait_for_message(device_name, timeout=WATCHDOG_SEC)
    if message is None:
        sys.exit(f"no message from {device_name} came")
    return message


def common(message):
    return {
        "type": message.message_type,
        "version": message.header_version,
        "timestamp": message.timestamp,
        "message_id": message.message_id,
        "metadata": message.metadata,
    }


def found(peer):
    image = expect(peer, "Image")
    transform = expect(peer, "Transform")
    string = expect(peer, "String")
    point = expect(peer, "Point")
    return {
        "image": common(image)
        | {
            "shape": list(image.image.shape),
            "dtype": str(image.image.dtype),
            "pixels": image.image.flatten().tolist(),
            "matrix": image.ijk_to_world_matrix.tolist(),
            "system": image.world_coordinate_system,
        },
        "transform": common(transform) | {"matrix": transform.matrix.tolist()},
        "string": common(string) | {"string": string.string},
        "point": common(point)
        | {
            "names": point.names,
            "groups": point.groups,
            "rgba": point.rgba_colors,
            "positions": point.positions,
            "diameters": point.diameters,
            "owners": point.owners,
        },
    }


def answers():
    rotated = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=np.float32)
    pixels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 5
    spaced = np.diag([0.5, 0.25, 2.0, 1.0])
    spaced[:3, 3] = [1, 2, 3]
    messages = [
        pyigtl.ImageMessage(pixels, ijk_to_world_matrix=spaced, world_coordinate_system="ras", device_name="PyImage"),
        pyigtl.TransformMessage(rotated, device_name="PyTransform"),
        pyigtl.StringMessage("greetings", device_name="PyString"),
        pyigtl.PointMessage(
            positions=[[1, 2, 3], [4, 5, 6]],
            names=["a", "b"],
            rgba_colors=[[1, 2, 3, 4], [5, 6, 7, 8]],
            diameters=[0.5, 1.5],
            groups=["g", "h"],
            owners="PyImage",
            device_name="PyPoint",
        ),
        # pyigtl writes vertices in the machine's byte order, which is not the protocol's: none here.
        pyigtl.PolyDataMessage(
            points=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32),
            lines=np.array([4, 0, 1, 2, 0]),
            polygons=np.array([3, 0, 1, 2]),
            device_name="PyPolyData",
        ),
    ]
    for number, message in enumerate(messages):
        message.timestamp = 1700000000.25 + number
        message.header_version = 2
        message.message_id = number
        message.metadata = {"Sender": "pyigtl", "Depth": f"{number} mm"}
    # And one without metadata, in version 1.
    plain = pyigtl.StringMessage("plain", timestamp=1700000000.5, device_name="PyPlain")
    return [*messages, plain]


def main():
    if sys.argv[1] == "server":
        peer = pyigtl.OpenIGTLinkServer(port=0, local_server=True)
        print(peer.server_address[1], flush=True)
    else:
        peer = pyigtl.OpenIGTLinkClient(host="127.0.0.1", port=int(sys.argv[2]))
    print(json.dumps(found(peer)), flush=True)
    for message in answers():
        peer.send_message(message, wait=True)
    expect(peer, "Done")
    print("done", flush=True)
    # pyigtl's threads would keep the process.
    import os

    os._exit(0)


main()
