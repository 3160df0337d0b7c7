"""Read a recording, follow what is in it, and write what was found for the tools that label and evaluate.

    python recording.py                      simulated ultrasound
    python recording.py scan.igs.mha found.json

Needs nothing but ultramotion.
"""

# %%
import sys
from collections import defaultdict
from pathlib import Path

import ultramotion

source = sys.argv[1] if len(sys.argv) > 1 else "phantom"
target = Path(sys.argv[2] if len(sys.argv) > 2 else "found.json")

# %% Follow each structure through the recording.
areas_px: dict[tuple[str, int], list[int]] = defaultdict(list)
packets = []
with ultramotion.run(source, frames=20) as run:
    for packet in run:
        packets.append(packet)
        seen = zip(packet.labels, packet.track_ids, packet.mask_areas_px, packet.confirmed, strict=True)
        for label, identity, area, confirmed in seen:
            if confirmed:
                areas_px[label, int(identity)].append(int(area))

# %% How large is each, on average, and for how long was it seen?
spacing = packets[0].spacing_mm
for (label, identity), areas in sorted(areas_px.items()):
    mean = sum(areas) / len(areas)
    size = f"{mean:.0f} px" if spacing is None else f"{mean * spacing[0] * spacing[1]:.1f} mm²"
    print(f"{label} #{identity}: {size} in {len(areas)} of {len(packets)} frames")

# %% COCO: opens in CVAT, Label Studio, FiftyOne.
coco = ultramotion.to_coco(packets, target)
print(f"{target}: {len(coco['annotations'])} objects in {len(coco['images'])} images")
