"""What a GPU does without ultramotion: the same networks, with the same weights, in PyTorch.

    python peers.py                      # every peer, one JSON object a line
    python peers.py --device cpu --quick # does it run? (small inputs, two runs)

Peers:
- `dfine_n`, `dfine_s`, `mobile_sam_encoder`, `mobile_sam_decoder`: eager and `torch.compile(mode="max-autotune")`, which
  captures CUDA graphs; inputs stay on the GPU.
- `frame`: D-FINE-S 640, the eight best boxes, MobileSAM 1024, everything kept on the GPU; eager, and compiled.
- `frame_host_matcher`: the design of the system that ultramotion re-creates: eager, boxes and scores to NumPy, SciPy's
  assignment on the host, prompts back to the GPU, masks to NumPy.
- `assignment_round_trip`: a 300 x 100 cost matrix from the GPU to the host, SciPy, and the pairs back.

A time is from the call to the end of the GPU's work, by the host's clock around a synchronisation. Half precision
is autocast to float16, eager and compiled alike.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from networks import Detector, corners, noise, segmenter

OBJECTS, TRACKS, QUERIES = 8, 100, 300


class Clock:
    def __init__(self, device, runs, warm_up):
        self.cuda, self.runs, self.warm_up = device == "cuda", runs, warm_up

    def times_ms(self, work):
        times = []
        for run in range(self.warm_up + self.runs):
            start = time.perf_counter()
            work()
            if self.cuda:
                torch.cuda.synchronize()
            if run >= self.warm_up:
                times.append((time.perf_counter() - start) * 1e3)
        return times


def report(peer, form, precision, times, **more):
    times = sorted(times)
    pick = lambda q: times[min(len(times) - 1, int(q * len(times)))]
    line = {
        "peer": peer, "form": form, "precision": precision, "runs": len(times),
        "p50_ms": statistics.median(times), "p90_ms": pick(0.9), "p99_ms": pick(0.99), "max_ms": times[-1],
    }
    print(json.dumps(line | more), flush=True)


class Frame(torch.nn.Module):
    """Image to the masks of the best boxes, without leaving the device."""

    def __init__(self, side, sam_side):
        super().__init__()
        self.detector, self.segmenter = Detector("s"), segmenter()
        self.side, self.sam_side = side, sam_side

    def boxes(self, image):
        logits, boxes = self.detector(image)
        scores = logits.sigmoid().amax(-1)[0]
        best = scores.topk(OBJECTS).indices
        return boxes[0, best], scores[best]

    def masks(self, image, boxes_cxcywh):
        centre, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
        xyxy = torch.cat([centre - size / 2, centre + size / 2], -1) * self.sam_side
        embedding = self.segmenter.image_encoder(image)
        masks, iou = self.segmenter.predict(embedding, boxes_xyxy=xyxy)
        return masks > 0, iou

    def forward(self, detector_image, segmenter_image):
        boxes, scores = self.boxes(detector_image)
        masks, iou = self.masks(segmenter_image, boxes)
        return boxes, scores, masks, iou


def host_matcher_frame(frame, tracks_cxcywh, detector_image, segmenter_image):
    """The re-created design: each stage's result visits the host."""
    boxes, scores = frame.boxes(detector_image)
    boxes_host, scores_host = boxes.float().cpu().numpy(), scores.float().cpu().numpy()
    cost = np.abs(boxes_host[:, None] - tracks_cxcywh[None]).sum(-1) - scores_host[:, None]
    rows, columns = linear_sum_assignment(cost)
    prompts = torch.as_tensor(boxes_host[rows], device=detector_image.device)
    masks, iou = frame.masks(segmenter_image, prompts)
    return masks.cpu().numpy(), iou.float().cpu().numpy(), columns


def networks(sides):
    detector_side, sam_side = sides
    image = noise(1, detector_side, detector_side, 3)
    sam_image = noise(1, sam_side, sam_side, 3)
    embedding = noise(1, sam_side // 16, sam_side // 16, 256)
    sam = segmenter()
    yield "dfine_n", Detector("n"), (image,)
    yield "dfine_s", Detector("s"), (image,)
    yield "mobile_sam_encoder", sam.image_encoder, (sam_image,)

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sam = sam

        def forward(self, embedding, boxes_xyxy):
            return self.sam.predict(embedding, boxes_xyxy=boxes_xyxy)

    yield "mobile_sam_decoder", Decoder(), (embedding, corners(OBJECTS, sam_side))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="small inputs and two runs: does it work?")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    args = parser.parse_args()
    device = args.device
    clock = Clock(device, 2 if args.quick else args.runs, 1 if args.quick else 20)
    sides = (128, 128) if args.quick else (640, 1024)
    torch.set_grad_enabled(False)
    if device == "cuda":
        # Helper tensors that the models make inside `forward` have to be on the GPU as well.
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}))

    forms = ["eager"] + ([] if args.no_compile else ["compiled"])
    half = torch.float16 if device == "cuda" else torch.bfloat16
    precisions = [("f16" if device == "cuda" else "bf16", half), ("f32", None)]

    def measure(peer, module, inputs):
        module = module.to(device).eval()
        inputs = [x.to(device) for x in inputs]
        for form in forms:
            run = module if form == "eager" else torch.compile(module, mode="max-autotune")
            for precision, dtype in precisions if form == "eager" else precisions[:1]:
                with torch.autocast(device, dtype=dtype or half, enabled=dtype is not None):
                    peak = {}
                    if device == "cuda":
                        torch.cuda.reset_peak_memory_stats()
                    times = clock.times_ms(lambda: run(*inputs))
                    if device == "cuda":
                        peak = {"peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6}
                report(peer, form, precision, times, **peak)

    for name, module, inputs in networks(sides):
        measure(name, module, inputs)
    frame = Frame(*sides)
    images = (noise(1, sides[0], sides[0], 3), noise(1, sides[1], sides[1], 3))
    measure("frame", frame, images)

    frame = frame.to(device).eval()
    images = [x.to(device) for x in images]
    tracks = np.random.default_rng(0).random((TRACKS, 4), dtype=np.float32)
    with torch.autocast(device, dtype=half):
        times = clock.times_ms(lambda: host_matcher_frame(frame, tracks, *images))
    report("frame_host_matcher", "eager", precisions[0][0], times)

    cost = torch.rand(QUERIES, TRACKS, device=device)

    def round_trip():
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        return torch.as_tensor(np.stack([rows, columns]), device=device)

    report("assignment_round_trip", "scipy", "f32", clock.times_ms(round_trip), rows=QUERIES, columns=TRACKS)


if __name__ == "__main__":
    main()
