"""Losses on mask logits and predicted IoU.

A mask's logits are trained to be the *distance to the outline*, in units of `PIXELS_PER_LOGIT`: smooth, so that the
bilinear filter through which they are read at run time puts the outline between the cells of their coarse grid, and
with their zero, the run-time threshold, in the middle of what the outline could be. Compared at half the input's
resolution, through that filter.
"""

import torch
import torch.nn.functional as F

PIXELS_PER_LOGIT = 2.0
# Distances beyond this are not told apart, and count a tenth.
REACH_PIXELS = 16.0
FAR_WEIGHT = 0.1
DISTANCE_WEIGHT = 0.3
# A pixel off costs a small object more of its Dice: distances count by this size (square root of the area) over the
# object's, within limits.
USUAL_SIZE_PIXELS, SIZE_FACTORS = 40.0, (0.6, 2.5)
DICE_EPSILON = 1.0


def distance_error(logits, distance):
    """Mean smooth L1 between logits and distances in pixels, mostly near the outline. [N, M]"""
    reach = REACH_PIXELS / PIXELS_PER_LOGIT
    target = (distance / PIXELS_PER_LOGIT).clamp(-reach, reach).expand_as(logits)
    weight = FAR_WEIGHT + (distance.abs() < REACH_PIXELS)
    error = F.smooth_l1_loss(logits, target, reduction="none")
    # A cell at half resolution is four pixels.
    size = (4 * (distance > 0).sum((2, 3))).clamp(min=1).sqrt()
    return (USUAL_SIZE_PIXELS / size).clamp(*SIZE_FACTORS) * (error * weight).sum((2, 3)) / weight.sum((2, 3))


def dice(logits, target):
    """1 - Dice, soft. [N, M]"""
    p = logits.sigmoid()
    both = (p * target).sum((2, 3))
    return 1 - (2 * both + DICE_EPSILON) / (p.sum((2, 3)) + target.sum((2, 3)) + DICE_EPSILON)


def overlap(logits, target):
    """IoU and Dice of the thresholded masks. Two of [N, M], without gradient."""
    with torch.no_grad():
        own, true = logits > 0, target > 0.5
        both = (own & true).sum((2, 3)).float()
        sizes = (own.sum((2, 3)) + true.sum((2, 3))).float()
        return both / (sizes - both).clamp(min=1), 2 * both / sizes.clamp(min=1)


def outline_loss(logits, iou, distance):
    """Dice + distance + squared error of the predicted IoU. Several masks for a prompt compete: the best one learns.

    `logits` [N, M, S/4, S/4], `iou` [N, M], `distance` [N, S/2, S/2] in pixels, positive inside. Returns the loss and
    the mean Dice score."""
    logits = F.interpolate(logits.float(), scale_factor=2, mode="bilinear", align_corners=False)
    distance = distance.unsqueeze(1)
    inside = (distance / PIXELS_PER_LOGIT + 0.5).clamp(0, 1)
    shape_loss = dice(logits, inside) + DISTANCE_WEIGHT * distance_error(logits, distance)
    actual_iou, dice_score = overlap(logits, inside)
    best = shape_loss.argmin(1, keepdim=True)
    loss = shape_loss.gather(1, best).mean() + F.mse_loss(iou.float(), actual_iou)
    return loss, dice_score.gather(1, best).mean().item()
