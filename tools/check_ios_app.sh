#!/bin/sh
# Where there is no Apple SDK: reads the iOS app's property lists, and type-checks the app and the Core ML code of
# SatchelKit against the stub modules in sample_apps/ios/Stubs. The first argument is a folder for what that compiles.
set -eu
made=$1
cd "$(dirname "$0")/../sample_apps/ios"
"$(dirname "$(readlink -f "$(command -v swiftc)")")/plutil" -lint -- App/Info.plist App/Satchel.xcodeproj/project.pbxproj

rm -rf "$made"
mkdir -p "$made"

# Stubs that the code imports as if they were Apple's.
module() {
    name=$1
    shift
    swiftc -emit-module -parse-as-library -module-name "$name" -I "$made" -emit-module-path "$made/$name.swiftmodule" "$@"
}
module UniformTypeIdentifiers Stubs/UniformTypeIdentifiers/*.swift
module CoreML Stubs/CoreML/*.swift
module SwiftUI Stubs/SwiftUI/*.swift

# SwiftPM makes Bundle.module; here a line does.
echo 'import Foundation; extension Bundle { static var module: Bundle { .main } }' >"$made/module.swift"
# Found before the real XCTest, which lacks attachments on Linux.
mkdir "$made/testing"

# shellcheck disable=SC2046
module SatchelKit -enable-testing "$made/module.swift" $(find Sources/SatchelKit -name '*.swift')
swiftc -typecheck -parse-as-library -module-name SatchelApp -I "$made" App/Sources/*.swift
swiftc -emit-module -parse-as-library -module-name XCTest -emit-module-path "$made/testing/XCTest.swiftmodule" Stubs/XCTest/*.swift
swiftc -typecheck -module-name SatchelParityTests -I "$made/testing" -I "$made" App/Tests/*.swift
