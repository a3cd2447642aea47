#!/bin/sh
# Builds and tests the iOS app as far as this machine allows, and says at the end what was executed, compiled,
# type-checked against stubs, or not built. On Linux with the toolchain of swift_toolchain.sh, on a Mac with Xcode's.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
checkout=$(dirname "$tools")
cd "$checkout/sample_apps/ios"
python=${PYTHON:-$checkout/.venv/bin/python}
made=$PWD/.build/satchel
summary=""

note() {
    summary="$summary
  $1"
}

# What the Swift tests are held to besides the shared vectors: calls of Core ML packages, and Parity of today.
vectors() {
    if ! [ -x "$python" ]; then
        note "NOT RUN: the Core ML chain against Python's calls, and Parity against Python's of today: no $python"
        return
    fi
    rm -rf "$made/calls" "$made/output"
    mkdir -p "$made/output"
    "$python" "$checkout/tests/sample_apps/coreml_calls.py" "$made/calls" 2>"$made/calls.log" || { cat "$made/calls.log"; exit 1; }
    "$python" - "$checkout"/sample_apps/vectors/bundle/*.satchel "$made/parity.json" <<'PY'
import sys
from pathlib import Path
from satchel.runtime import strict_json
from satchel.runtime.parity import validate

Path(sys.argv[2]).write_bytes(strict_json.canonical(validate(sys.argv[1]).record({"device": "python"})))
PY
    export SATCHEL_COREML_CALLS="$made/calls" SATCHEL_PARITY="$made/parity.json" SATCHEL_OUTPUT="$made/output"
}

run_tests() {
    "$@" >"$made/tests.log" 2>&1 || { cat "$made/tests.log"; exit 1; }
    cat "$made/tests.log"
}

# Python reads the parity file that Swift wrote, and finds what it found itself.
read_back() {
    [ -e "$made/output/parity-linux-test.json" ] || return 0
    # Its exit code is 1, since a tiny random model is beyond limits of quality on any machine.
    "$(dirname "$python")/satchel" parity compare "$made/parity.json" "$made/output/parity-linux-test.json" \
        >"$made/compared" || [ $? = 1 ]
    cat "$made/compared"
    grep -q "Their best ids agree at each" "$made/compared" || exit 1
    note "EXECUTED: satchel parity compare reads what SatchelKit wrote, and finds no difference to Python's"
}

on_linux() {
    code=0
    "$tools/swift_toolchain.sh" || code=$?
    if [ "$code" = 3 ]; then
        note "NOT BUILT: everything, since there is no Swift toolchain here (see above)"
        return
    fi
    [ "$code" = 0 ] || exit "$code"
    vectors
    library=$("$python" -c 'import glob, onnxruntime, os; print(glob.glob(os.path.dirname(onnxruntime.__file__) + "/capi/libonnxruntime.so.*")[0])' 2>/dev/null || true)
    if [ -n "$library" ]; then
        export SATCHEL_ONNXRUNTIME="$library" SATCHEL_SWIFT_SHARE="${SATCHEL_SWIFT_SHARE:-} $(dirname "$library")"
        # The library finds what it needs beside itself; the header comes with the toolchain.
        set -- -Xcc -I/opt/onnxruntime/usr/include
    else
        set --
        note "NOT BUILT: inference on Linux, since Python has no onnxruntime"
    fi
    inside="$tools/swift_toolchain.sh run"
    $inside swift build --build-tests "$@"
    run_tests $inside swift test --skip-build "$@"
    note "EXECUTED on Linux: SatchelKit, $(grep -Eo 'Executed [0-9]+ tests?, with [^(]*' "$made/tests.log" | tail -1)"
    grep -o 'NOT RUN: .*' "$made/tests.log" >"$made/skipped" || true
    while read -r line; do note "$line"; done <"$made/skipped"
    [ -z "$library" ] || note "EXECUTED on Linux: a real bundle in ONNX Runtime: answers, Parity, the engine"
    read_back
    $inside "$tools/check_ios_app.sh" "$made/stubs"
    note "EXECUTED: Swift's plutil reads the Xcode project and Info.plist"
    note "TYPE-CHECKED AGAINST STUBS: CoreMLBackend and Placement, the SwiftUI app, the parity test for devices"
    note "NOT BUILT: the app, which needs Xcode"
    note "NOT RUN: Core ML, the app, the parity test on a device"
}

on_mac() {
    vectors
    run_tests swift test
    note "EXECUTED on this Mac: SatchelKit, $(grep -Eo 'Executed [0-9]+ tests?, with [^(]*' "$made/tests.log" | tail -1)"
    note "COMPILED: CoreMLBackend and Placement"
    if command -v xcodebuild >/dev/null && xcodebuild -version >/dev/null 2>&1; then
        xcodebuild -project App/Satchel.xcodeproj -scheme Satchel -destination generic/platform=iOS -derivedDataPath "$made/xcode" \
            CODE_SIGNING_ALLOWED=NO build-for-testing
        note "COMPILED: the app and its parity test, for iOS"
    else
        note "NOT BUILT: the app, since there is no Xcode"
    fi
    note "NOT RUN: the app and the parity test on a device; see sample_apps/ios/README.md"
}

mkdir -p "$made"
case $(uname -s) in
Darwin) on_mac ;;
Linux) on_linux ;;
*) note "NOT BUILT: everything; Swift is tried on Linux and macOS" ;;
esac
echo "iOS:$summary"
