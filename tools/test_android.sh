#!/usr/bin/env bash
# Tests sample_apps/android as far as that can be done without Android Studio, and says how far that was.
#
#   tools/test_android.sh              everything
#   tools/test_android.sh --quick      the JVM modules: core and onnx, with inference of two tiny bundles
#   ... --if-possible                  says so and succeeds where what android_toolchain.sh starts from is missing
#
# SATCHEL_BUNDLE=FOLDER also asks a bundle of a whole model a question, and replays SATCHEL_PROMPTS (2) of its prompts.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
project="$here/sample_apps/android"
vectors="$here/sample_apps/vectors"
tools="${SATCHEL_ANDROID_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/satchel/android}"
out="$tools/build/$(echo "$project" | cksum | cut -d ' ' -f 1)"
java=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1)
quick=
report=()

main() {
  local if_possible=
  for option in "$@"; do
    case "$option" in
      --quick) quick=--core ;;
      --if-possible) if_possible=yes ;;
      *) echo "no such option: $option" >&2; exit 2 ;;
    esac
  done
  if [ -n "$if_possible" ] && missing="$(missing_commands)" && [ -n "$missing" ]; then
    echo "ANDROID: NOT RUN, NOTHING TESTED: without $missing no Kotlin compiler can be set up"
    return
  fi
  "$here/tools/android_toolchain.sh" $quick
  mkdir -p "$out"
  [ -n "$quick" ] || style
  jvm_modules
  [ -z "${SATCHEL_BUNDLE:-}" ] || whole_model
  if [ -z "$quick" ]; then
    resources
    app
    package
    alignment
    report+=("NOT BUILT     by Gradle and Android's plug-in, which cannot be had here; not run on a device or an emulator")
  else
    report+=("NOT BUILT     the app: this was the quick mode")
  fi
  printf '\nANDROID, how far it was tried:\n'
  printf '  %s\n' "${report[@]}"
}

missing_commands() {
  local found=()
  [ "$(uname -sm)" = "Linux x86_64" ] || found+=("Linux on x86-64,")
  for name in java javac jar npm curl gcc dpkg-deb unzip tar xz; do command -v "$name" > /dev/null || found+=("$name"); done
  echo "${found[*]}"
}

stdlib="$tools/kotlin/kotlin-stdlib.jar"
junit() { printf '%s:' "$tools"/junit/*.jar; }

# kotlin NAME CLASSPATH OPTIONS... -- FOLDERS...: compiles folders into $out/NAME, unless that was done already.
kotlin() {
  local name="$1" path="$2" options=() sources stamp
  shift 2
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  mapfile -t sources < <(find "$@" -name '*.kt' | LC_ALL=C sort)
  stamp="$({ cat "${sources[@]}"; echo "$path ${options[*]}"; } | sha256sum)${stamps:-}"
  [ "$name" = tests ] || stamps="${stamps:-}$stamp" # what is compiled later depends on all but the tests
  [ -d "$out/$name" ] && [ "$(cat "$out/$name.stamp" 2> /dev/null)" = "$stamp" ] && return
  echo "android: compiling $name"
  rm -rf "${out:?}/$name" "$out/$name.stamp"
  "${java[@]}" -Xmx1g -cp "$tools/kotlin/compiler.jar" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect \
    -jvm-target 1.8 -Werror -nowarn -module-name "$name" -cp "$stdlib:$path" "${options[@]}" -d "$out/$name" "${sources[@]}"
  echo "$stamp" > "$out/$name.stamp"
}

style() {
  (cd "$project" && "${java[@]}" --add-opens=java.base/java.lang=ALL-UNNAMED -Xmx1g -cp "$tools/kotlin/compiler.jar" \
    com.pinterest.ktlint.Main --log-level=warn '**/*.kt' '**/*.kts') || { echo "ktlint: add -F to its command to correct" >&2; exit 1; }
  report+=("CHECKED       style, by ktlint")
}

jvm_modules() {
  local ort="$tools/ort-jvm"
  kotlin core "" -- "$project/core/src/main"
  cp -r "$project/core/src/main/resources/." "$out/core"
  kotlin onnx "$out/core:$ort/onnxruntime.jar" -- "$project/onnx/src/main"
  kotlin tests "$out/core:$out/onnx:$ort/onnxruntime.jar:$(junit)" "-Xfriend-paths=$out/core" -- "$project/core/src/test" "$project/onnx/src/test"
  local log="$out/junit.log"
  "${java[@]}" -Xmx1g "-Dsatchel.vectors=$vectors" "-Dsatchel.resources=$project/core/src/test/resources" \
    "-Dsatchel.fp32=$project/onnx/src/test/bundle" "-Donnxruntime.native.path=$ort" \
    -cp "$stdlib:$out/core:$out/onnx:$ort/onnxruntime.jar:$out/tests:$(junit)" org.junit.platform.console.ConsoleLauncher \
    --scan-classpath "$out/tests" --details=summary --disable-banner --disable-ansi-colors > "$log" 2>&1 || { cat "$log"; exit 1; }
  local passed
  passed="$(sed -n 's/^\[ *\([0-9]*\) tests successful.*/\1/p' "$log")"
  grep -q '^\[ *0 tests skipped' "$log" || { cat "$log"; echo "tests were skipped" >&2; exit 1; }
  [ "${passed:-0}" -gt 1800 ] || { cat "$log"; echo "too few tests ran: $passed" >&2; exit 1; }
  report+=("EXECUTED      core and onnx: compiled by Kotlin's compiler, $passed tests under JUnit on the JVM, none skipped")
  report+=("EXECUTED      inference of two tiny bundles through ONNX Runtime's Java API on the JVM, with Python's figures")
}

whole_model() {
  local ort="$tools/ort-jvm"
  "${java[@]}" -Xmx1g "-Donnxruntime.native.path=$ort" -cp "$stdlib:$out/core:$out/onnx:$ort/onnxruntime.jar:$out/tests" \
    ai.satchel.onnx.WholeModelKt "$SATCHEL_BUNDLE" "${SATCHEL_PROMPTS:-2}"
  report+=("EXECUTED      ${SATCHEL_BUNDLE##*/}: an answer, and Parity passes")
}

resources() {
  local aapt="$tools/resources/aapt2" work="$out/resources"
  rm -rf "$work" && mkdir -p "$work/java"
  # As Gradle's plug-in merges it; what is newer than API 29 is left out, since no newer resources can be had.
  sed -e 's/<manifest /<manifest package="ai.satchel.sample" /' -e '/android:dataExtractionRules/d' \
    "$project/app/src/main/AndroidManifest.xml" > "$work/AndroidManifest.xml"
  "$aapt" compile --dir "$project/app/src/main/res" -o "$work/compiled.zip"
  "$aapt" link -I "$tools/resources/framework-res.apk" --manifest "$work/AndroidManifest.xml" --min-sdk-version 26 \
    --target-sdk-version 29 -0 onnx -0 data -0 pte -0 f32 -0 i32 -A "$(assets "$work")" --java "$work/java" \
    -o "$work/app.apk" "$work/compiled.zip"
  mkdir "$work/classes"
  javac -nowarn -Xlint:none --release 8 -d "$work/classes" "$work/java/ai/satchel/sample/R.java" 2> /dev/null
  report+=("COMPILED      resources and manifest, by aapt2 against the resources of API 29")
}

# assets WORK -> a folder of assets with the tiny bundle in it, as `satchel embed` places one.
assets() {
  mkdir -p "$1/assets/bundles"
  cp -r "$vectors"/bundle/*.satchel "$1/assets/bundles/"
  echo "$1/assets"
}

app() {
  local path="$tools/android/android.jar:$out/resources/classes:$tools/apis/onnxruntime.jar:$tools/apis/executorch.jar"
  kotlin app "$out/core:$out/onnx:$path" -no-jdk -- "$project/app/src/main"
  kotlin parity-test "$out/core:$out/onnx:$out/app:$path" -no-jdk -- "$project/app/src/androidTest"
  report+=("COMPILED      the app and its parity test, against the real classes of API 23, ONNX Runtime 1.29 and ExecuTorch")
}

# Lambdas as classes, since dx knows no other; the Gradle build has them otherwise.
package() {
  local work="$out/package" flags=(-Xlambdas=class -Xsam-conversions=class)
  local path="$tools/android/android.jar:$out/resources/classes:$tools/apis/onnxruntime.jar:$tools/apis/executorch.jar"
  kotlin dex-jvm "$tools/apis/onnxruntime.jar" "${flags[@]}" -- "$project/core/src/main" "$project/onnx/src/main"
  kotlin dex-app "$out/dex-jvm:$path" -no-jdk "${flags[@]}" -- "$project/app/src/main"
  rm -rf "$work" && mkdir -p "$work"
  # ONNX Runtime's classes for Android are of a newer Java than dx reads; those for the JVM have the same API.
  "${java[@]}" -Xmx1g -cp "$tools/dex/dx.jar" com.android.dx.command.Main --dex --min-sdk-version=26 --multi-dex "--output=$work" \
    "$out/dex-jvm" "$out/dex-app" "$out/resources/classes" "$stdlib" "$tools/ort-jvm/onnxruntime.jar" "$tools/apis/executorch.jar"
  cp "$out/resources/app.apk" "$work/app.apk"
  cp -r "$project/core/src/main/resources/." "$work/java-resources"
  (cd "$work" && zip -q -j app.apk ./*.dex && cd java-resources && zip -q -r ../app.apk .)
  report+=("COMPILED      to Android's bytecode by dx, and put into an APK with the tiny bundle uncompressed in it (unsigned, never run)")
}

# Native libraries have to be linked for pages of 16 KB.
alignment() {
  local library align count=0
  while IFS= read -r library; do
    for align in $(readelf -lW "$library" | awk '$1 == "LOAD" { print $NF }'); do
      [ $((align)) -ge 16384 ] || { echo "linked for pages of $((align)) bytes: $library" >&2; exit 1; }
    done
    count=$((count + 1))
  done < <(find "$tools/apis/jni" -name '*.so')
  [ "$count" -ge 4 ] || { echo "native libraries are missing in $tools/apis" >&2; exit 1; }
  report+=("CHECKED       $count native libraries of the two runtimes are linked for pages of 16 KB")
}

main "$@"
