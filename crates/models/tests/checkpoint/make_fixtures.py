"""Makes the committed fixtures of the checkpoint tests. Needs torch 2.15, and transformers 5.23 for `huggingface`.

    python make_fixtures.py pth small.pth
    python make_fixtures.py huggingface n dfine_n.huggingface.txt    (or s)

`dfine_{n,s}.official.txt` list names and shapes of the state_dict of the official dfine_{n,s}_coco.pth; the class
counts are those of our reference fixtures (N: 2, S: 80).
"""

import argparse
import datetime
import sys
import tempfile


def pth(path):
    """A training checkpoint in small: EMA weights, all number formats, views, and what scripts leave beside."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 3, 3, bias=False)
            self.bn = torch.nn.BatchNorm2d(3)
            self.fc = torch.nn.Linear(4, 2)

    torch.manual_seed(0)
    model, ema = Net(), Net()
    with torch.no_grad():
        for i, value in enumerate(ema.state_dict().values()):
            if value.dtype == torch.float32:
                value.copy_(torch.arange(value.numel()).reshape(value.shape) / 8 + i)
    weights = {f"module.{name}": value for name, value in ema.state_dict().items()}
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    extra = {
        "transposed": base.t(),
        "slice": base[1:, 1:3],
        "half": torch.tensor([1.5, -2.0]).half(),
        "bf16": torch.tensor([1.5, -2.0]).bfloat16(),
        "double": torch.tensor([0.1]).double(),
        "int32": torch.tensor([-7], dtype=torch.int32),
        "mask": torch.tensor([True, False]),
        "byte": torch.tensor([200], dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([3.0])),
    }
    weights.update({f"module.{name}": value for name, value in extra.items()})
    torch.save(
        {
            "ema": {"module": weights, "updates": 7},
            "model": model.state_dict(),
            "last_epoch": 3,
            "date": "2026-01-01",
            "args": argparse.Namespace(lr=1e-3, out="x"),
            "when": datetime.datetime(2026, 1, 1),
            "optimizer": None,
        },
        path,
    )


def config(size):
    """The configuration of ustc-community/dfine-nano-coco (`n`) or dfine-small-coco (`s`)."""
    from transformers import DFineConfig

    config = DFineConfig(num_labels={"n": 2, "s": 80}[size])
    backbone = {
        "hidden_sizes": [128, 256, 512, 1024],
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256, 512],
        "stage_mid_channels": [16, 32, 64, 128],
        "stage_out_channels": [64, 256, 512, 1024],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_downsample": [False, True, True, True],
        "stage_light_block": [False, False, True, True],
        "stage_kernel_size": [3, 3, 5, 5],
        "stage_numb_of_layers": [3, 3, 3, 3],
        "use_learnable_affine_block": True,
    }
    common = {"decoder_layers": 3}
    of_size = {
        "n": {
            "num_feature_levels": 2,
            "encoder_ffn_dim": 512,
            "encode_proj_layers": [1],
            "d_model": 128,
            "head_dim": 16,
            "encoder_hidden_dim": 128,
            "decoder_ffn_dim": 512,
            "encoder_in_channels": [512, 1024],
            "decoder_n_points": [6, 6],
            "decoder_in_channels": [128, 128],
            "feat_strides": [16, 32],
            "depth_mult": 0.5,
            "hidden_expansion": 0.34,
        },
        "s": {
            "hidden_expansion": 0.5,
            "depth_mult": 0.34,
            "decoder_n_points": [3, 6, 3],
            "encoder_in_channels": [256, 512, 1024],
        },
    }[size]
    if size == "n":
        backbone |= {"out_indices": [3, 4], "out_features": ["stage3", "stage4"]}
    for target, values in ((config.backbone_config, backbone), (config, common | of_size)):
        for key, value in values.items():
            setattr(target, key, value)
    return config


def huggingface(size, path):
    """Names and shapes that `save_pretrained` writes."""
    from safetensors import safe_open
    from transformers import DFineForObjectDetection

    with tempfile.TemporaryDirectory() as folder:
        DFineForObjectDetection(config(size)).save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", "pt") as file, open(path, "w") as out:
            for name in file.keys():
                shape = file.get_slice(name).get_shape()
                print(name, "x".join(map(str, shape)) or "-", file=out)


if __name__ == "__main__":
    {"pth": pth, "huggingface": huggingface}[sys.argv[1]](*sys.argv[2:])
