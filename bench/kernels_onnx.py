"""Compares the CPU kernels, one by one, with ONNX Runtime on single-operator models.

    THREADS=2 cargo bench -p ultramotion-engine --bench kernels > ours.txt
    python bench/kernels_onnx.py ours.txt --threads 2

Reads the names and times that the kernel benchmark printed, builds for each name it knows a model of that one
operator (with its bias and activation, NCHW as ONNX has it), times it with the same number of threads, and
prints both and their ratio (below 1: ours is faster). Needs onnx, onnxruntime and numpy.
"""
import argparse
import re
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

rng = np.random.default_rng(0)


def noise(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def activation(name, x, y):
    """Nodes for an activation from tensor x to tensor y."""
    if name == "Silu":
        return [helper.make_node("Sigmoid", [x], [y + "_s"]), helper.make_node("Mul", [x, y + "_s"], [y])]
    if name == "None":
        return [helper.make_node("Identity", [x], [y])]
    return [helper.make_node(name, [x], [y])]


def conv(x, weight, stride, pad, groups, act):
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["c"], strides=[stride] * 2, pads=[pad] * 4, group=groups
        ),
        *activation(act, "c", "y"),
    ]
    return {"x": x}, {"w": weight, "b": noise(weight.shape[0])}, nodes


def build(name):
    """Inputs, constants and nodes of a benchmark's name, or None."""
    if m := re.fullmatch(r"conv(\d)x\ds(\d) (\d+)x\d+ (\d+)->(\d+)", name):
        k, s, h, ci, co = map(int, m.groups())
        return conv(noise(1, ci, h, h), noise(co, ci, k, k), s, k // 2, 1, "Relu")
    if m := re.fullmatch(r"depthwise(\d)x\ds(\d) (\d+)x\d+ (\d+) (\w+)", name):
        k, s, h, c = map(int, m.groups()[:4])
        return conv(noise(1, c, h, h), noise(c, 1, k, k), s, k // 2, c, m[5])
    if m := re.fullmatch(r"linear (\d+)x(\d+)->(\d+) (\w+)", name):
        rows, k, n = map(int, m.groups()[:3])
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["c"]), *activation(m[4], "c", "y")]
        return {"x": noise(rows, k)}, {"w": noise(k, n), "b": noise(n)}, nodes
    if m := re.fullmatch(r"attention (\d+)x(\d+) (\d+)x(\d+)x(\d+)( bias)?", name):
        batch, heads, lq, lk, d = map(int, m.groups()[:5])
        # From and to [batch, length, heads * d], as the surrounding layers have it.
        nodes, constants = [], {"scale": np.float32(d**-0.5).reshape(1)}
        for t, length in (("q", lq), ("k", lk), ("v", lk)):
            constants[t + "_shape"] = np.array([batch, length, heads, d])
            nodes.append(helper.make_node("Reshape", [t, t + "_shape"], [t + "4"]))
            perm = [0, 2, 3, 1] if t == "k" else [0, 2, 1, 3]
            nodes.append(helper.make_node("Transpose", [t + "4"], [t + "t"], perm=perm))
        constants["y_shape"] = np.array([batch, lq, heads * d])
        nodes += [helper.make_node("Mul", ["qt", "scale"], ["qs"]), helper.make_node("MatMul", ["qs", "kt"], ["s"])]
        if m[6]:
            constants["bias"] = noise(1, heads, lq, lk)
            nodes.append(helper.make_node("Add", ["s", "bias"], ["sb"]))
        nodes += [
            helper.make_node("Softmax", ["sb" if m[6] else "s"], ["p"], axis=-1),
            helper.make_node("MatMul", ["p", "vt"], ["o"]),
            helper.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["ot", "y_shape"], ["y"]),
        ]
        inputs = {t: noise(batch, length, heads * d) for t, length in (("q", lq), ("k", lk), ("v", lk))}
        return inputs, constants, nodes
    if m := re.fullmatch(r"layer_norm (\d+)x(\d+)", name):
        r, c = map(int, m.groups())
        node = helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], axis=-1)
        return {"x": noise(r, c)}, {"g": noise(c), "b": noise(c)}, [node]
    if m := re.fullmatch(r"softmax (\d+)x(\d+)", name):
        r, c = map(int, m.groups())
        return {"x": noise(r, c)}, {}, [helper.make_node("Softmax", ["x"], ["y"], axis=-1)]
    if m := re.fullmatch(r"add (\d+)x(\d+)", name):
        r, c = map(int, m.groups())
        return {"x": noise(r, c), "z": noise(r, c)}, {}, [helper.make_node("Add", ["x", "z"], ["y"])]
    if m := re.fullmatch(r"unary (\d+)x(\d+) (\w+)", name):
        r, c = map(int, m.groups()[:2])
        return {"x": noise(r, c)}, {}, activation(m[3], "x", "y")
    if m := re.fullmatch(r"max_pool2x2s1 (\d+)x\d+ (\d+)", name):
        h, c = map(int, m.groups())
        node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])
        return {"x": noise(1, c, h, h)}, {}, [node]
    if m := re.fullmatch(r"(upsample|resize)2 (\d+)x\d+ (\d+)", name):
        h, c = int(m[2]), int(m[3])
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if m[1] == "resize":
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **how)
        return {"x": noise(1, c, h, h)}, {"scales": np.array([1, 1, 2, 2], np.float32)}, [node]
    if m := re.fullmatch(r"transpose (\d+)x\d+ (\d+)", name):
        h, c = map(int, m.groups())
        node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])
        return {"x": noise(1, h, h, c)}, {}, [node]
    if m := re.fullmatch(r"up2x2 (\d+)x\d+ (\d+)->(\d+)", name):
        h, ci, co = map(int, m.groups())
        node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2])
        return {"x": noise(1, ci, h, h)}, {"w": noise(ci, co, 2, 2), "b": noise(co)}, [node]
    if m := re.fullmatch(r"top_k (\d+) of (\d+)", name):
        k, n = map(int, m.groups())
        node = helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=-1)
        return {"x": noise(1, n)}, {"k": np.array([k])}, [node]
    return None


def session(inputs, constants, nodes, threads):
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def median_ms(run, seconds):
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    n = int(min(300, max(5, seconds / once)))
    for _ in range(n // 5):
        run()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[n // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", help="what the kernel benchmark printed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--filter", default="")
    parser.add_argument("--seconds", type=float, default=0.08, help="time spent on each")
    args = parser.parse_args()
    print(f"ONNX Runtime {ort.__version__}, {args.threads} threads, median ms")
    print(f"{'operator':40} {'ours':>9} {'onnx':>9} ratio")
    for line in open(args.ours):
        m = re.match(r"(.+?)\s+([\d.]+) ms", line)
        if not m or args.filter not in m[1]:
            continue
        parts = build(m[1])
        if parts is None:
            print(f"{m[1]:40} {float(m[2]):9.4f}         - -")
            continue
        one = session(*parts, args.threads)
        # Bound once, so that no copy of the result is part of the time.
        binding = one.io_binding()
        for name, value in parts[0].items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        for output in one.get_outputs():
            binding.bind_output(output.name)
        theirs = median_ms(lambda: one.run_with_iobinding(binding), args.seconds)
        print(f"{m[1]:40} {float(m[2]):9.4f} {theirs:9.4f} {float(m[2]) / theirs:5.2f}", flush=True)


if __name__ == "__main__":
    main()
