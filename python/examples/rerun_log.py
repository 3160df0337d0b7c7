"""Log a run to Rerun (https://rerun.io): frames, masks, boxes and latency on a time line.

    pip install rerun-sdk
    python rerun_log.py                      writes ultramotion.rrd; open it with `rerun ultramotion.rrd`
    python rerun_log.py scan.igs.mha

Says so and ends where Rerun is missing.
"""

# %%
import sys

import numpy as np

import ultramotion

try:
    import rerun
except ImportError:
    print("skipped: rerun is not installed: pip install rerun-sdk")
    raise SystemExit(0) from None

source = sys.argv[1] if len(sys.argv) > 1 else "phantom"
rerun.init("ultramotion")
rerun.save("ultramotion.rrd")

# %%
with ultramotion.run(source, frames=20) as run:
    for packet in run:
        rerun.set_time("frame", sequence=packet.frame_id)
        rerun.set_time("source", duration=packet.timestamp)
        rerun.log("frame", rerun.Image(packet.image))
        # One number a pixel: an object's identity, 0 for none.
        identities = np.zeros((packet.height, packet.width), np.uint16)
        for mask, identity in zip(packet.masks, packet.track_ids, strict=True):
            identities[mask] = identity
        rerun.log("frame/masks", rerun.SegmentationImage(identities))
        names = [f"{label} #{identity}" for label, identity in zip(packet.labels, packet.track_ids, strict=True)]
        boxes = rerun.Boxes2D(array=packet.boxes_xyxy, array_format=rerun.Box2DFormat.XYXY, labels=names)
        rerun.log("frame/boxes", boxes)
        rerun.log("latency_ms", rerun.Scalars(packet.latency_ms["total"]))
        rerun.log("state", rerun.TextLog(packet.state))
print("ultramotion.rrd")
