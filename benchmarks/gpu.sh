#!/bin/sh
# The tests of what a device changes, and the quick table of peers, on one GPU, in under 8 minutes.
#
#   benchmarks/gpu.sh [OUTPUT]          on cuda; exit 2 where there is no GPU
#   DEVICE=cpu benchmarks/gpu.sh        the same steps without one
#
# PYTHON names the interpreter (default: .venv/bin/python where it is there, else python). Peers that
# are not installed are named in the table. OUTPUT (default: build/gpu) gets what was printed.
set -u
cd "$(dirname "$0")/.." || exit 2
output=${1:-build/gpu}
device=${DEVICE:-cuda}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
if [ "$device" = cuda ] && ! "$PYTHON" -c \
    'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "No GPU was found by torch.cuda.is_available(): run this where there is one, or set DEVICE=cpu." >&2
    exit 2
fi
mkdir -p "$output" || exit 2
failed=0

step() {
    # step SECONDS NAME COMMAND...: run it, keep what it prints, and say how it ended
    limit=$1 name=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" >"$output/$name.txt" 2>&1
    ended=$?
    tail -n "${SHOWN:-40}" "$output/$name.txt"
    if [ "$ended" -ne 0 ]; then
        echo "== $name ended with $ended"
        failed=1
    fi
}

TRAINSCOPE_TEST_DEVICE=$device
export TRAINSCOPE_TEST_DEVICE
step 60 machine "$PYTHON" -c 'import torch; print(torch.__version__, [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])'
step 150 tests "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_device.py
step 30 hooks "$PYTHON" benchmarks/hooks.py --device "$device" --rounds 10
step 240 peers "$PYTHON" benchmarks/peers.py --quick --device "$device" --repeats 3 --seconds 4 \
    --cache "$output/cache" --output "$output/peers.jsonl"
exit $failed
