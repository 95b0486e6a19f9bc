#!/usr/bin/env bash
# What only a GPU can show, in one file: benchmarks/gpu.sh [WHEELS] [OPTION ...]
#
#   WHEELS          a folder of wheels, from which what is missing is installed; nothing is downloaded
#   --peers FOLDER  textual_inversion.py and train_custom_diffusion.py of diffusers; default: WHEELS/peers
#   --work FOLDER   for models and logs, 5 GB; default: speed-results
#   --out FILE      the JSON; default: benchmarks/results/gpu.json
#   --device cpu --tiny   tries all of this out without a GPU, in a minute or two, and is never cut off
#
# Takes less than eight minutes: rounds of turns end when their time is up, and a part that takes longer is cut off, so that those
# after it have their time. PYTHON names the interpreter. Exits 2 if a script of the peers is missing, 1 if a part failed; what was measured is in the file all the same.
set -euo pipefail

python=${PYTHON:-python3}
[[ $python != */* ]] || python=$(realpath -s "$python")  # not what a link of a virtual environment leads to
seconds=470
wheels=""
if [[ $# -gt 0 && $1 != --* ]]; then
  wheels=$(realpath "$1")
  shift
fi
peers=${wheels:-.}/peers
work=speed-results
root=$(dirname "$(dirname "$(realpath "$0")")")
out=$root/benchmarks/results/gpu.json
device=cuda
tiny=()
best=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --peers) peers=$2; shift 2 ;;
    --work) work=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --tiny) tiny=(--tiny --rounds 1); best=(--best) seconds=3600; shift ;;
    *) echo "benchmarks/gpu.sh: $1 is no option of it" >&2; exit 2 ;;
  esac
done
mkdir -p "$work" "$(dirname "$out")"
peers=$(realpath -m "$peers") work=$(realpath "$work") out=$(realpath -m "$out")
cd "$root"

if [[ -n $wheels ]]; then
  install=("$python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$wheels")
  "$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > "$work/requirements.txt"
  "${install[@]}" -r "$work/requirements.txt"
  "${install[@]}" --no-deps torchvision || echo "no torchvision among the wheels: a stand-in is used where there is none" >&2
fi

if [[ $device == cuda ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch finds no GPU: nvidia-smi shows whether there is one, and --device cpu --tiny tries this out without" >&2
  exit 1
fi

rm -f "$out"
shared=(--device "$device" --work "$work" --out "$out" "${tiny[@]}")
failed=0
part() { # LEFT MODULE OPTION ...: cut off when LEFT seconds of all are left, which the parts after it need
  local limit=$((seconds - SECONDS - $1))
  shift
  timeout -k 10 "$((limit > 0 ? limit : 1))" "$python" -m "$@" "${shared[@]}" || failed=$?  # of timeout, 0 is no limit
}
# Loading takes most of it: on an H200 with 16 cores half a minute for the programs of each stage, and again for the pictures.
part 150 benchmarks.steps --peers "$peers" --no-pairs --block 2 --limit 20 "${best[@]}"
[[ $failed -eq 2 ]] && exit 2
part 110 benchmarks.steps --alone --part steps-lowest --stages invert --set model.memory=lowest --block 2 --limit 5
part 0 benchmarks.generate --limit 12
echo "in $SECONDS seconds: $out"
exit $((failed ? 1 : 0))
