# shellcheck shell=bash
# The virtual environment that demo.sh and test.sh share. Source it from the repository's root; it
# leaves the environment's interpreter in $PY. A stamp file makes every later call instant.
#
#   PYTHON          interpreter to build from (default: that of the environment there is, else the
#                   first of python3.11, 3.12, 3.10, 3.13, python3, python)
#   FRESCO_VENV     folder of the environment (default: .venv)
#   TORCH_COMMAND   what to hand to `python -m` for PyTorch, such as "pip install torch==2.13.0+cu130"
#   TORCH_INDEX_URL package index with the wanted build of PyTorch, asked besides the configured ones

TORCH_VERSION=2.13.0
VENV="${FRESCO_VENV:-.venv}"

fail() {
    printf '\nERROR: %s\n' "$*" >&2
    exit 1
}

version_of() {
    "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null
}

# What an environment of an earlier setup was made from; nothing if there is none.
former_python() {
    [ ! -e "$VENV/setup.log" ] || "$(venv_python)" -c 'import sys; print(sys._base_executable)' 2>/dev/null || true
}

find_python() {
    local name version former
    former="$(former_python)"
    for name in ${PYTHON:+"$PYTHON"} ${former:+"$former"} python3.11 python3.12 python3.10 python3.13 python3 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            printf '%s' "$name"
            return
        fi
        if [ "$name" = "${PYTHON:-}" ]; then
            version="$(version_of "$name")" || fail "PYTHON is '$name', which does not run as a Python."
            fail "PYTHON is '$name', a Python $version; this project needs Python 3.10 to 3.13."
        fi
    done
    version="$(version_of python3)" && version=" (python3 is $version)"
    fail "No Python 3.10 to 3.13 was found$version. Install one, or name it: PYTHON=/path/to/python3.11 bash $0"
}

venv_python() {
    if [ -x "$VENV/Scripts/python.exe" ]; then
        printf '%s' "$VENV/Scripts/python.exe"
    else
        printf '%s' "$VENV/bin/python"
    fi
}

# What the environment was made from: the lock, the Python, the wish for PyTorch, and this recipe.
wanted_stamp() {
    "$1" - "$2" tools/setup_venv.sh <<'PYTHON_END'
import hashlib, os, platform, sys
digest = hashlib.sha256()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        digest.update(file.read())
wishes = [os.environ.get(name, "") for name in ("TORCH_COMMAND", "TORCH_INDEX_URL")]
digest.update(repr([sys.version, platform.system(), platform.machine(), platform.libc_ver(), *wishes]).encode())
print(digest.hexdigest())
PYTHON_END
}

# Why a step failed, from what it said.
find_cause() {
    if grep -qiE 'name resolution|getaddrinfo|NewConnectionError|network is unreachable|connection refused|timed out' <<<"$1"; then
        printf 'the package index cannot be reached; check the network, then start this again'
    elif grep -qi 'no space left' <<<"$1"; then
        printf 'the disk is full; 3 GB are needed'
    elif grep -qiE 'ensurepip|no module named.*venv' <<<"$1"; then
        printf "Python's module venv is missing (Debian and Ubuntu: apt install python3-venv)"
    else
        printf 'it ended with: %s' "$(tail -n 1 <<<"$1")"
    fi
}

# step NUMBER WHAT HOW_LONG COMMAND...: one line before, one after, one sentence where it fails.
step() {
    local number="$1" what="$2" long="$3" log="$VENV/setup.log" start=$SECONDS pid before
    shift 3
    touch "$log"
    before="$(wc -l <"$log")"
    printf '[%s/4] %s (usually %s)\n' "$number" "$what" "$long"
    "$@" >>"$log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        if [ $((SECONDS - start)) -ge 30 ] && [ $(((SECONDS - start) % 30)) -eq 0 ]; then
            printf '      still at it, %s s\n' "$((SECONDS - start))"
            sleep 1
        fi
    done
    trap - INT TERM
    if ! wait "$pid"; then
        fail "Step $number of 4 failed: $(find_cause "$(tail -n "+$((before + 1))" "$log")"). The log is $log."
    fi
    printf '      done in %s s\n' "$((SECONDS - start))"
}

pip_install() {
    "$PY" -m pip install --quiet --disable-pip-version-check "$@"
}

cpu_build_known() {
    case "$(uname -s)" in
        Linux) pip_install --dry-run --no-deps "torch==$TORCH_VERSION+cpu" >>"$VENV/setup.log" 2>&1 ;;
        *) false ;; # elsewhere the plain build is the one without CUDA
    esac
}

install_torch() {
    if [ -n "${TORCH_COMMAND:-}" ]; then
        # Words are split on purpose: it is a command line, as in the WebUI.
        # shellcheck disable=SC2086
        step 4 "PyTorch by TORCH_COMMAND: $TORCH_COMMAND" "1 to 10 min" "$PY" -m $TORCH_COMMAND
    elif [ -n "${TORCH_INDEX_URL:-}" ]; then
        step 4 "PyTorch $TORCH_VERSION by TORCH_INDEX_URL" "1 to 10 min" \
            pip_install --extra-index-url "$TORCH_INDEX_URL" "torch==$TORCH_VERSION"
    elif cpu_build_known; then
        step 4 "PyTorch $TORCH_VERSION, CPU build, 190 MB" "30 s to 2 min" \
            pip_install --no-deps "torch==$TORCH_VERSION+cpu"
    else
        if [ "$(uname -s)" = Linux ]; then
            printf '%s\n' \
                'NOTE: your package sources have no CPU build of PyTorch. The plain one comes instead, with' \
                '      CUDA: about 3 GB to download and 6 GB on the disk. To avoid that, stop here (Ctrl-C) and' \
                "      set TORCH_INDEX_URL to the CPU index that PyTorch's own start page names."
        fi
        step 4 "PyTorch $TORCH_VERSION, plain build" "2 to 15 min" pip_install "torch==$TORCH_VERSION"
    fi
}

create_venv() {
    # setup.log alone is what a setup stopped at once leaves.
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV" | grep -vx setup.log)" ]; then
        fail "$VENV exists and is no virtual environment. Move it away, or name another folder: FRESCO_VENV=..."
    fi
    # Only what an earlier setup made may go: that left its log.
    if [ -e "$VENV/pyvenv.cfg" ] && [ ! -e "$VENV/setup.log" ]; then
        fail "$VENV is a virtual environment that this script did not make. Move it away, or name another folder: FRESCO_VENV=..."
    fi
    rm -rf "$VENV"
    mkdir -p "$VENV"
    step 1 "Virtual environment $VENV from $("$BASE_PYTHON" --version)" "5 to 20 s" \
        "$BASE_PYTHON" -m venv "$VENV"
}

setup_venv() {
    local lock stamp
    BASE_PYTHON="$(find_python)" || exit 1
    lock="requirements/lock-py$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt"
    stamp="$(wanted_stamp "$BASE_PYTHON" "$lock")"
    PY="$(venv_python)"
    if [ -x "$PY" ] && [ "$(cat "$VENV/stamp" 2>/dev/null)" = "$stamp" ] && "$PY" -c '' 2>/dev/null; then
        printf 'Environment %s is ready.\n' "$VENV"
        return
    fi
    printf 'Setting up %s once: 2 to 5 minutes and 2 GB; later runs start at once.\n' "$VENV"
    create_venv
    PY="$(venv_python)"
    step 2 "Newest pip" "5 to 15 s" pip_install --upgrade pip
    step 3 "$(grep -c == "$lock") packages of $lock" "1 to 3 min" pip_install --no-deps -r "$lock"
    install_torch
    "$PY" -c 'import torch, diffusers, cv2, av' 2>>"$VENV/setup.log" || {
        tail -n 25 "$VENV/setup.log" >&2
        fail "The packages were installed but cannot be imported. The whole log is $VENV/setup.log."
    }
    printf '%s\n' "$stamp" >"$VENV/stamp"
}

setup_venv
