#!/usr/bin/env bash
# What only a GPU can show, in one file: benchmarks/gpu.sh [WHEELS] [OPTION ...]
#
#   WHEELS          a folder of wheels, from which what is missing is installed; nothing is downloaded
#   --peers FOLDER  textual_inversion.py and train_custom_diffusion.py of diffusers; default: WHEELS/peers
#   --work FOLDER   for models and logs, 6 GB; default: speed-results
#   --out FILE      the JSON; default: benchmarks/results/gpu.json
#   --only PARTS    of: best pictures ways compiled documented; put into the JSON beside what is there
#   --seconds N     when whatever still runs is cut off; default: 470
#   --device cpu --tiny   tries all of this out without a GPU, in a few minutes, and is never cut off
#
# Takes less than eight minutes. Parts come in the order of what they are worth: cictl against the peers' best setting first, the
# peers as documented last. Rounds of turns end when their time is up, and every round is in the JSON when it is done. What there
# is no time for is named with the command that measures it later. PYTHON names the interpreter. Exits 2 if a script of the
# peers is missing, 1 if a part failed or had no time; what was measured is in the file all the same.
set -euo pipefail

python=${PYTHON:-python3}
[[ $python != */* ]] || python=$(realpath -s "$python")  # not what a link of a virtual environment leads to
all="best pictures ways compiled documented"
only=""
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
compiled=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --peers) peers=$2; shift 2 ;;
    --work) work=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --tiny) tiny=(--tiny --rounds 1); compiled=(--no-compiled); seconds=3600; shift ;;
    *) echo "benchmarks/gpu.sh: $1 is no option of it" >&2; exit 2 ;;
  esac
done
for name in $only; do
  [[ " $all " == *" $name "* ]] || { echo "benchmarks/gpu.sh: $name is no part of it; parts are $all" >&2; exit 2; }
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

[[ -n $only ]] || rm -f "$out"
shared=(--device "$device" --work "$work" --out "$out" "${tiny[@]}")
failed=0
late=""
part() { # NAME MODULE OPTION ...: cut off when the seconds are over; not begun where it could not come to a round any more
  local name=$1 left=$((seconds - SECONDS))
  shift
  [[ -z $only || " $only " == *" $name "* ]] || return 0
  local code=124  # as timeout says it
  if [[ $left -ge 40 ]]; then
    echo "$name: begun after $SECONDS s"
    code=0
    timeout -k 10 "$left" "$python" -m "$@" "${shared[@]}" || code=$?
  fi
  [[ $code -eq 0 ]] || failed=1
  [[ $code -ne 2 ]] || exit 2
  [[ $code -ne 124 && $code -ne 137 || " $late " == *" $name "* ]] || late="$late $name"
}
# Loading takes most of it: on an H200 with 16 cores half a minute for the programs of each stage, and again for the pictures.
part best benchmarks.steps --peers "$peers" --best --no-pairs --limit 12
part pictures benchmarks.generate --best --limit 12
part ways benchmarks.ways --limit 8 --groups kernels memory pictures
part compiled benchmarks.ways --limit 5 --groups compiled pictures-compiled stage-2 "${compiled[@]}"
part documented benchmarks.steps --peers "$peers" --part steps-documented --others --no-gradient --no-pairs --block 2 --limit 15
part documented benchmarks.generate --part generate-documented --others --rounds 2
echo "in $SECONDS seconds: $out"
if [[ -n $late ]]; then
  echo "not all was measured of$late: there was no time left; the same command with --only '${late# }' measures it" >&2
fi
exit "$failed"
