"""Outline what you point at: MobileSAM by points and by boxes, on one frame.

    python point_and_box.py

Needs nothing but ultramotion.
"""

# %%
import numpy as np

import ultramotion

frame = next(ultramotion.run("phantom", frames=1)).image
assert frame is not None
predictor = ultramotion.SamPredictor("ultrasound-sam")
predictor.set_image(frame)  # encoded once; every prompt below is quick

# %% A box of the detector: one mask.
boxes, scores, labels = ultramotion.Detector("ultrasound-n").predict(frame)
masks, mask_scores, low_res = predictor.predict(box=boxes[0], multimask_output=False)
print(f"{labels[0]} ({scores[0]:.2f}): {masks.sum()} pixels, estimated IoU {mask_scores[0]:.2f}")

# %% A point is ambiguous: three masks, the best first.
centre = boxes[0].reshape(2, 2).mean(axis=0)
masks, mask_scores, low_res = predictor.predict(point_coords=centre[None], point_labels=[1])
for index in np.argsort(-mask_scores):
    print(f"point: {masks[index].sum()} pixels, estimated IoU {mask_scores[index]:.2f}")

# %% Better: the same point, one beside the structure, and the mask so far.
assert low_res is not None
best = low_res[mask_scores.argmax()][None]
outside = np.array([boxes[0][0] - 20, centre[1]])
masks, mask_scores, _ = predictor.predict(
    point_coords=np.stack([centre, outside]), point_labels=[1, 0], mask_input=best, multimask_output=False
)
print(f"two points: {masks.sum()} pixels, estimated IoU {mask_scores[0]:.2f}")

# %% Several boxes at once; the results stay where they are until someone asks for them.
tensors = predictor.predict_torch(boxes=boxes, multimask_output=False)[0]
print(tensors, tensors.numpy().sum(axis=(1, 2, 3)))
