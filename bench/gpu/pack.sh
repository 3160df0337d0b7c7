#!/usr/bin/env bash
# Collects what a visit to a GPU machine needs into one folder: the program, the test programs of the kernels, fixtures,
# and the peers. Nothing has to be built there.
#
#     bench/gpu/pack.sh FOLDER [FIXTURE...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=${1:?where to collect}
shift
mkdir -p "$folder"/{bench/gpu,training,fixtures}

cargo build --release --locked
cp target/release/ultramotion "$folder/"
# The test programs by name, as cargo reports them.
cargo test --release --locked --no-run --message-format=json -p ultramotion-engine --test ops |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "ops":
        print(message["executable"])' |
    while read -r program; do cp "$program" "$folder/ops"; done
strip "$folder/ultramotion" "$folder/ops"

cp bench/networks.py "$folder/bench/"
cp bench/gpu/*.py bench/gpu/visit.sh "$folder/bench/gpu/"
cp -r training/detector training/segmenter training/*.py "$folder/training/"
for fixture in "$@"; do cp "$fixture" "$folder/fixtures/"; done
du -sh "$folder"
