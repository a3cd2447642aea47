// swift-tools-version: 5.9
import PackageDescription

var targets: [Target] = [
    .target(name: "SatchelKit", resources: [.copy("Resources/limits.json")]),
    .testTarget(name: "SatchelKitTests", dependencies: ["SatchelKit"], exclude: ["Resources"]),
]

// On Linux, ONNX Runtime's C library stands in for Core ML in tests; see tools/test_ios.sh. No app needs it.
if Context.environment["SATCHEL_ONNXRUNTIME"] != nil {
    targets += [
        .systemLibrary(name: "COnnxRuntime", path: "Tests/COnnxRuntime"),
        .testTarget(name: "OnnxRuntimeTests", dependencies: ["SatchelKit", "COnnxRuntime"]),
    ]
}

let package = Package(
    name: "SatchelKit",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "SatchelKit", targets: ["SatchelKit"])],
    targets: targets
)
