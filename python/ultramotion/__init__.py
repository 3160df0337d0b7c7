"""Real-time ultrasound perception: finds, follows and outlines anatomy, all of it on the device.

Research software. Not a medical device: do not use it for diagnosis or treatment.

>>> import ultramotion
>>> for packet in ultramotion.run("phantom", frames=3):
...     print(packet)

What there is:

- `run`: packets of a recording, a folder of images, a scanner, or simulated ultrasound.
- `Orchestrator`: images in, packets out.
- `Detector`, `SamPredictor`, `run_segmentation`: the parts by themselves.
- `HungarianMatcher`: which query answers for which target, for training loops.
- `Tensor`: results where they lie, for NumPy and, by DLPack, for PyTorch and its kin.
- `to_coco`, `ResultPacket.to_supervision`: results for the tools that label, plot and evaluate.
- `python -m ultramotion.validate_gpu_pipeline_kpi`: does the data stay on the device?
"""

from ultramotion._ultramotion import (
    Detector,
    HungarianMatcher,
    Orchestrator,
    ResultPacket,
    Run,
    SamPredictor,
    Tensor,
    __version__,
    copied_bytes,
    run,
)
from ultramotion.detections import Detections
from ultramotion.exports import to_coco
from ultramotion.segmentation import run_segmentation

__all__ = [
    "Detections",
    "Detector",
    "HungarianMatcher",
    "Orchestrator",
    "ResultPacket",
    "Run",
    "SamPredictor",
    "Tensor",
    "__version__",
    "copied_bytes",
    "run",
    "run_segmentation",
    "to_coco",
]
