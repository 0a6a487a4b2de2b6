#!/usr/bin/env bash
# Every fuzz target for SECONDS (default 60); new inputs go to fuzz/corpus/ (not committed), crashes to fuzz/artifacts/.
# Works on a stable toolchain: coverage instrumentation without a sanitizer.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
target_dir=${CARGO_TARGET_DIR:-target}/fuzz
cargo build --release --target "$host" --target-dir "$target_dir"
for target in $(sed -n 's/^    ("\([a-z0-9_]*\)", .*/\1/p' src/targets.rs); do
    mkdir -p "corpus/$target" "artifacts/$target" "seeds/$target"
    echo "== $target: ${seconds} s"
    FUZZ_TARGET=$target "$target_dir/$host/release/patchbay-fuzz" "corpus/$target" "seeds/$target" \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=2048 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=0 -verbosity=0
done
echo "every target ran ${seconds} s without a crash"
