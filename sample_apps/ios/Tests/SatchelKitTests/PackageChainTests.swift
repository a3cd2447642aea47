import XCTest

@testable import SatchelKit

/// The chain calls packages as Python's backend does: function by function, input by input, byte by byte. What the
/// packages give is what the interpreter of Core ML programs gave there; see tests/sample_apps/coreml_calls.py.
final class PackageChainTests: XCTestCase {
    private static let forms = ["state", "io", "chunks", "chunks-io"]

    func testCallsAreThoseOfPython() throws {
        guard let path = ProcessInfo.processInfo.environment["SATCHEL_COREML_CALLS"] else {
            throw XCTSkip("NOT RUN: no recorded calls; tools/test_ios.sh makes them, with Satchel's Python")
        }
        for form in Self.forms {
            let folder = URL(fileURLWithPath: path)
            let bundle = try ModelBundle(folder: folder.appendingPathComponent("\(form).satchel"))
            let record = try Record(folder, form)
            let chain = try PackageChain(bundle.manifest, runtime: "recorded") { RecordedPackage($0, record) }
            var logits = record.logits[...]
            for step in record.steps {
                if step.isNull {
                    chain.reset()
                } else {
                    let found = try step.integer.map { try chain.step($0) } ?? chain.prefill(step.integers)
                    XCTAssertEqual(found, try record.tensor(logits.removeFirst()).row(0), form)
                }
            }
            XCTAssertEqual(logits.count, 0)
            XCTAssertEqual(record.done, record.calls.count, "\(form): calls that were not made")
            XCTAssertGreaterThan(record.done, 30)
            XCTAssertRefused("more tokens than the cache holds") {
                _ = try chain.prefill([Int](repeating: 1, count: 128))
            }
            XCTAssertRefused("does not have") { _ = try chain.step(bundle.manifest.tokens.vocabSize) }
        }
    }

    func testWhatCannotBeCalledIsRefused() throws {
        let manifest = try ModelBundle(folder: tinyBundle()).manifest
        XCTAssertRefused("this app cannot run the bundle") {
            _ = try PackageChain(manifest, runtime: "x") { _ in throw CancellationError() }
        }
    }

    func testAnEntryThatCannotBeCalledIsRefused() throws {
        func chain(_ functions: String, prefillLength: Int = 4, cache: String = "io", shape: String = "[2,2,8,4]")
            throws
        {
            let text = try String(contentsOf: tinyBundle().appendingPathComponent("manifest.json"), encoding: .utf8)
            let start = text.range(of: "\"entry\": {")!
            let end = text.range(of: "\"files\": [")!
            let entry = """
                "entry": {"format": "coreml", "path": "model.onnx", "context_length": 64, "prefill_length": \(prefillLength),
                "inputs": [{"name": "keyCache", "dtype": "float16", "shape": \(shape)}], "outputs": [], "states": [],
                "options": {"cache": "\(cache)", "mask": "position", "functions": \(functions)}},
                """
            let edited = String(text[..<start.lowerBound]) + entry + String(text[end.lowerBound...])
            let manifest = try Manifest(
                bytes: Data(
                    edited.replacingOccurrences(of: "\"format\": \"onnx\"", with: "\"format\": \"coreml\"").utf8))
            _ = try PackageChain(manifest, runtime: "x") { _ in Nothing() }
        }
        XCTAssertNoThrow(try chain(#"{"decode": "main"}"#))
        XCTAssertRefused("not what a step needs") { try chain(#"{"prefill": "main"}"#) }
        XCTAssertRefused("not what a step needs") { try chain(#"{"decode": "a", "prefill": "b"}"#, prefillLength: 0) }
        XCTAssertRefused("does not know how to call") { try chain(#"{"decode": "a"}"#, cache: "elsewhere") }
        for shape in ["[2,2,8]", "[2,2,-8,4]", "[2,2,\"x\",4]", "[1000000,1000000,8,4]"] {
            XCTAssertRefused("a cache of an unknown kind") { try chain(#"{"decode": "main"}"#, shape: shape) }
        }
    }

    func testRowsWithGapsAreCopiedWithout() {
        // [2, 3, 2] with rows of 2 that begin 4 apart, and blocks of 3 rows that begin 16 apart.
        let source = (0..<32).map { Float($0) }
        let tensor = source.withUnsafeBytes {
            HostTensor([2, 3, 2], .float32, from: $0.baseAddress!, strides: [16, 4, 1])
        }
        XCTAssertEqual((0..<6).flatMap { tensor.row($0) }, [0, 1, 4, 5, 8, 9, 16, 17, 20, 21, 24, 25])
        let dense = source.withUnsafeBytes { HostTensor([2, 4], .float32, from: $0.baseAddress!, strides: [4, 1]) }
        XCTAssertEqual(dense.row(1), [4, 5, 6, 7])
        let turned = source.withUnsafeBytes { HostTensor([2, 2], .float32, from: $0.baseAddress!, strides: [1, 8]) }
        XCTAssertEqual(turned.row(0) + turned.row(1), [0, 8, 1, 9])
        let cache = HostTensor([1, 1, 4, 2], .float32)
        XCTAssertRefused("do not fit the cache") { try cache.write(2, of: HostTensor([1, 1, 2, 2], .float32), at: 3) }
        XCTAssertRefused("do not fit the cache") { try cache.write(1, of: HostTensor([1, 1, 2, 2], .float16), at: 0) }
    }

    func testEveryHalf() {
        #if arch(arm64) || !os(macOS)
            for bits in UInt16.min...UInt16.max {
                let (found, wanted) = (float(ofHalf: bits), Float(Float16(bitPattern: bits)))
                XCTAssert(found.bitPattern == wanted.bitPattern || (found.isNaN && wanted.isNaN), "\(bits)")
            }
        #endif
    }
}

private final class Nothing: PackageRunner {
    func reset() {}
    func run(_ function: String, _ inputs: [String: HostTensor]) throws -> [String: HostTensor] { [:] }
}

/// What Python wrote down of one form.
private final class Record {
    let steps: [Json]
    let calls: [Json]
    let logits: [Json]
    var done = 0
    private let data: Data

    init(_ folder: URL, _ form: String) throws {
        let value = try parseJson(Data(contentsOf: folder.appendingPathComponent("\(form).json")), form)
        (steps, calls, logits) = (value["steps"]!.array!, value["calls"]!.array!, value["logits"]!.array!)
        data = try Data(contentsOf: folder.appendingPathComponent("\(form).bin"))
    }

    func tensor(_ place: Json) throws -> HostTensor {
        let shape = place["shape"]!.integers
        let type = try XCTUnwrap(ElementType(rawValue: place["dtype"]!.string!))
        let tensor = HostTensor(shape, type)
        let start = place["offset"]!.integer!
        data[start..<start + tensor.byteCount].withUnsafeBytes {
            tensor.memory.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
        }
        return tensor
    }
}

/// Gives what was recorded, to calls that are those recorded.
private final class RecordedPackage: PackageRunner {
    private let functions: PackageFunctions
    private let record: Record

    init(_ functions: PackageFunctions, _ record: Record) { (self.functions, self.record) = (functions, record) }

    func reset() {}

    func run(_ function: String, _ inputs: [String: HostTensor]) throws -> [String: HostTensor] {
        let call = try XCTUnwrap(record.done < record.calls.count ? record.calls[record.done] : nil, "a call too many")
        record.done += 1
        XCTAssertEqual(functions.path, call["path"]!.string)
        XCTAssertEqual(function, call["function"]!.string)
        XCTAssert(functions.functions.contains { $0.name == function })
        let wanted = call["inputs"]!.object!
        XCTAssertEqual(inputs.keys.sorted(), wanted.keys.sorted())
        for entry in wanted.entries {
            let (given, recorded) = (try XCTUnwrap(inputs[entry.key]), try record.tensor(entry.value))
            XCTAssertEqual(given.shape, recorded.shape, entry.key)
            XCTAssertEqual(given.type, recorded.type, entry.key)
            XCTAssertEqual(
                memcmp(given.memory, recorded.memory, given.byteCount), 0, "call \(record.done): \(entry.key)")
        }
        return Dictionary(
            uniqueKeysWithValues: try call["outputs"]!.object!.entries.map { ($0.key, try record.tensor($0.value)) })
    }
}
