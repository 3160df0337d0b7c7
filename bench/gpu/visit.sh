#!/usr/bin/env bash
# One visit to a GPU machine: checks every kernel and network, measures, and writes it all down. Needs the NVIDIA driver and
# a Python with PyTorch and SciPy; runs by itself in under ten minutes, and goes on when a part fails.
#
#     FOLDER/bench/gpu/visit.sh [RESULTS_FOLDER]
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
results=${1:-$here/results}
mkdir -p "$results"
export ULTRAMOTION_LOG=info

# part NAME SECONDS COMMAND...: its output goes to a file of its name; its end, and how it ended, to the summary.
part() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    timeout "$limit" "$@" >"$results/$name.txt" 2>&1
    printf '%-28s exit %3d  %4d s\n' "$name" $? $((SECONDS - start)) | tee -a "$results/summary.txt"
}

: >"$results/summary.txt"
{
    date -u
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit --format=csv
} | tee "$results/machine.txt"

ultramotion=$here/ultramotion
part doctor 30 "$ultramotion" doctor
part ops 120 env ULTRAMOTION_GPU=0 "$here/ops" cuda_
shopt -s nullglob
fixtures=("$here"/fixtures/*.safetensors)
if ((${#fixtures[@]})); then
    part parity_f32 60 "$ultramotion" parity "${fixtures[@]}" --device cuda --precision f32
    part parity_f16 60 "$ultramotion" parity "${fixtures[@]}" --device cuda --precision f16
fi
# The best tiles of each network's products, for this visit and to be brought back.
for model in dfine_s mobile_sam_encoder mobile_sam_decoder; do
    part "tiles_$model" 60 "$ultramotion" bench --model "$model" --boxes 8 --device cuda --runs 10 --tune
done
cat "$results"/tiles_*.txt >"$results/tiles.txt"
export ULTRAMOTION_TILES=$results/tiles.txt
part assignment 30 "$ultramotion" bench --model assignment_300x100 --device cuda --runs 2000 --json
for precision in f16 f32; do
    for model in dfine_n dfine_s mobile_sam_encoder mobile_sam_decoder; do
        part "${model}_$precision" 40 "$ultramotion" bench --model "$model" --boxes 8 --device cuda \
            --precision "$precision" --runs 500 --json
    done
    part "frame_$precision" 60 "$ultramotion" bench --detector dfine_s --segmenter mobile_sam --device cuda \
        --precision "$precision" --runs 1000 --json
done
# What the overlap of kernels gives.
part frame_f16_in_turn 60 env ULTRAMOTION_OVERLAP=0 "$ultramotion" bench --detector dfine_s --segmenter mobile_sam \
    --device cuda --runs 1000 --json
part frame_kernels_f16 60 "$ultramotion" bench --detector dfine_s --segmenter mobile_sam --device cuda --runs 20 --plan
# CUPTI comes with CUDA, or with PyTorch's wheels.
cupti=$(python3 -c 'import glob, sys; print(next((f for p in sys.path for f in glob.glob(p + "/nvidia/*/lib/libcupti.so*")), ""))')
part audit 60 "$ultramotion" audit --detector dfine_s --segmenter mobile_sam --device cuda ${cupti:+--cupti "$cupti"}
part peers 300 python3 "$here/bench/gpu/peers.py"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        part "sanitizer_$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            env ULTRAMOTION_GPU=0 ULTRAMOTION_SEED=1 "$here/ops" cuda_ --test-threads 1
    done
fi
# The built-in models for as many frames as ten seconds hold; memory at the beginning and the end is in the log.
part long_run 60 "$ultramotion" bench --device cuda --runs 20000 --json
python3 "$here/bench/gpu/table.py" "$results" | tee "$results/table.md"
