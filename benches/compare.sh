#!/usr/bin/env bash
# Compares the speed of two builds of Bulla: rounds of each in turn, medians, and the median
# of the ratios within the rounds. Above 1.00 the first is faster.
#
#   benches/compare.sh NEW OLD DIR [ROUNDS]
#
# NEW and OLD are checkouts whose benches/peers was built (cargo build --release
# --ignore-rust-version); DIR is on the disk to measure. Needs python3.
set -euo pipefail

new=$1 old=$2 dir=$3 rounds=${4:-9}
workloads=append-64,append-1k,append-64-2t,batch-64,strict-1,strict-8,strict-128,replay-64
stores=store-put,store-put-1000,store-get
out=$(mktemp -d)
trap 'rm -rf -- "$out"' EXIT

measure() {
    local peers=$1/benches/peers/target/release/bulla-peers
    "$peers" --dir "$dir" --rounds 1 --only 'bulla std direct,bulla uring direct' \
        --workload "$workloads" --format json 2>/dev/null >"$2.log"
    "$peers" --dir "$dir" --rounds 1 --only 'bulla store' --records 2000000 \
        --workload "$stores" --format json 2>/dev/null >"$2.store"
}

for round in $(seq "$rounds"); do
    # The order changes, so that neither always comes after the other.
    if ((round % 2)); then
        measure "$new" "$out/new.$round" && measure "$old" "$out/old.$round"
    else
        measure "$old" "$out/old.$round" && measure "$new" "$out/new.$round"
    fi
    [[ -t 2 ]] && printf '\rround %d of %d' "$round" "$rounds" >&2
done

python3 - "$out" "$rounds" <<'PYTHON'
import json, statistics, sys
out, rounds = sys.argv[1], int(sys.argv[2])
def rows(side, number):
    found = {}
    for part in ("log", "store"):
        for workload in json.load(open(f"{out}/{side}.{number}.{part}"))["workloads"]:
            for log in workload["logs"]:
                if log.get("rounds"):
                    rate = log["rounds"][0]["records_per_s"]
                    found[workload["name"], log["name"]] = rate
    return found
pairs = [(rows("new", n), rows("old", n)) for n in range(1, rounds + 1)]
print(f"{'workload':16} {'log':20} {'new/s':>12} {'old/s':>12}  new/old")
for key in pairs[0][0]:
    new, old = [p[0][key] for p in pairs], [p[1][key] for p in pairs]
    ratio = statistics.median(n / o for n, o in zip(new, old))
    print(f"{key[0]:16} {key[1]:20} {statistics.median(new):12,.0f} {statistics.median(old):12,.0f}  {ratio:.3f}")
PYTHON
