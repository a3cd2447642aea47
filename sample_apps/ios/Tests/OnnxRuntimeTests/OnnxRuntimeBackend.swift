import COnnxRuntime
import Foundation
import SatchelKit

/// Runs model.onnx by ONNX Runtime's C library on Linux: to test the generation loop and Parity by a real model.
/// runtime/backends/onnx.py is its twin; here the cache is only as long as it is filled, and what comes out, longer by
/// the new ids, is what goes in next.
final class OnnxRuntimeBackend: Backend {
    let runtime: String
    private(set) var position = 0
    private let library: Library
    private let entry: ModelEntry
    private let past: [TensorSpec]
    private let vocabSize: Int
    private var session: OpaquePointer?
    private var cache: [Value] = []

    /// library: path of libonnxruntime.so.
    init(_ bundle: ModelBundle, library path: String) throws {
        library = try Library(path)
        runtime = "onnxruntime \(library.version)"
        entry = bundle.manifest.entry
        vocabSize = bundle.manifest.tokens.vocabSize
        past = entry.inputs.filter { $0.name.hasPrefix("past_key_values.") }
        var options: OpaquePointer?
        try library.check(library.api.CreateSessionOptions(&options))
        defer { library.api.ReleaseSessionOptions(options) }
        try library.check(library.api.SetIntraOpNumThreads(options, 1))
        try library.check(
            library.api.CreateSession(library.environment, bundle.url(entry.path).path, options, &session))
        reset()
    }

    deinit { library.api.ReleaseSession(session) }

    func reset() {
        position = 0
        cache = past.map { spec in
            guard case .fixed(let heads) = spec.shape[1], case .fixed(let width) = spec.shape[3] else {
                fatalError(spec.name)
            }
            return try! Value(
                library, [Float](), [1, Int64(heads), 0, Int64(width)], ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
        }
    }

    func step(_ id: Int) throws -> [Float] { try prefill([id]) }

    func prefill(_ ids: [Int]) throws -> [Float] {
        let total = position + ids.count
        guard total <= entry.contextLength else { throw usageError("more tokens than the cache holds", got: total) }
        let int64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
        let given =
            [
                try Value(library, ids.map(Int64.init), [1, Int64(ids.count)], int64),
                try Value(library, [Int64](repeating: 1, count: total), [1, Int64(total)], int64),
            ] + cache
        let found = try run(
            given, ["input_ids", "attention_mask"] + past.map(\.name),
            ["logits"] + past.map { $0.name.replacingOccurrences(of: "past_key_values", with: "present") })
        cache = Array(found.dropFirst())
        position = total
        return try found[0].floats(vocabSize)
    }

    private func run(_ given: [Value], _ inputs: [String], _ outputs: [String]) throws -> [Value] {
        var found = [OpaquePointer?](repeating: nil, count: outputs.count)
        let names = (inputs + outputs).map { UnsafePointer<CChar>(strdup($0)!) }
        defer { names.forEach { free(UnsafeMutableRawPointer(mutating: $0)) } }
        let (into, out) = (
            names.prefix(inputs.count).map(Optional.init), names.suffix(outputs.count).map(Optional.init)
        )
        try library.check(
            library.api.Run(session, nil, into, given.map { $0.pointer }, given.count, out, out.count, &found))
        return found.map { Value(library, $0) }
    }
}

/// The C library.
final class Library {
    let api: OrtApi
    let version: String
    private(set) var environment: OpaquePointer?

    init(_ path: String) throws {
        typealias Base = @convention(c) () -> UnsafePointer<OrtApiBase>
        guard let handle = dlopen(path, RTLD_NOW), let symbol = dlsym(handle, "OrtGetApiBase") else {
            throw formatError("ONNX Runtime's library cannot be opened", got: String(cString: dlerror()))
        }
        let base = unsafeBitCast(symbol, to: Base.self)().pointee
        version = String(cString: base.GetVersionString()!)
        guard let found = base.GetApi(UInt32(ORT_API_VERSION)) else {
            throw formatError("ONNX Runtime's library is too old", got: version, wanted: "API \(ORT_API_VERSION)")
        }
        api = found.pointee
        try check(api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "satchel", &environment))
    }

    func check(_ status: OpaquePointer?) throws {
        guard let status else { return }
        defer { api.ReleaseStatus(status) }
        throw formatError("ONNX Runtime failed", got: String(cString: api.GetErrorMessage(status)!))
    }
}

/// A tensor, with the memory that it lies in.
final class Value {
    let pointer: OpaquePointer?
    private let library: Library
    private let memory: UnsafeMutableRawPointer?

    init(_ library: Library, _ pointer: OpaquePointer?) {
        (self.library, self.pointer, memory) = (library, pointer, nil)
    }

    init<T>(_ library: Library, _ values: [T], _ shape: [Int64], _ type: ONNXTensorElementDataType) throws {
        let bytes = values.count * MemoryLayout<T>.stride
        let memory = UnsafeMutableRawPointer.allocate(byteCount: max(bytes, 1), alignment: 16)
        values.withUnsafeBytes { memory.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(memory), byteCount: bytes) }
        (self.library, self.memory) = (library, memory)
        var (info, made): (OpaquePointer?, OpaquePointer?)
        try library.check(library.api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info))
        defer { library.api.ReleaseMemoryInfo(info) }
        try library.check(
            library.api.CreateTensorWithDataAsOrtValue(info, memory, bytes, shape, shape.count, type, &made))
        pointer = made
    }

    deinit {
        library.api.ReleaseValue(pointer)
        memory?.deallocate()
    }

    func floats(_ count: Int) throws -> [Float] {
        var data: UnsafeMutableRawPointer?
        try library.check(library.api.GetTensorMutableData(pointer, &data))
        return Array(UnsafeBufferPointer(start: data!.assumingMemoryBound(to: Float.self), count: count))
    }
}
