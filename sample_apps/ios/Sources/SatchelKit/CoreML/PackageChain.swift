import Foundation

/// What calls the functions of one package and keeps its states.
public protocol PackageRunner: AnyObject {
    /// Runs a function once. Throws a FormatError.
    func run(_ function: String, _ inputs: [String: HostTensor]) throws -> [String: HostTensor]
    /// Empties the states.
    func reset()
}

/// Which functions of a package are called, and which of them has states: what a runner loads.
public struct PackageFunctions: Sendable {
    public let path: String
    /// "decode" or "prefill" of its calls -> the function's name, and whether it has states.
    public let functions: [(name: String, isStateful: Bool)]
}

private let present = ["keyCache": "presentKeys", "valueCache": "presentValues"]

/// A Core ML package with its cache, or a chain of several, called as the head of export/formats/coreml.py says;
/// runtime/backends/coreml.py is its twin. What really runs a package is behind PackageRunner.
public final class PackageChain: Backend {
    public let runtime: String
    public private(set) var position = 0
    private let entry: ModelEntry
    private let vocabSize: Int
    private let calls: [Call]
    private let prefills: Bool

    /// A prompt's last tokens go through the padded prefill function if they fill this part of it, else one at a time.
    private static let worthPadding = 1.0 / 8

    /// makeRunner: loads a package. Throws a FormatError where the entry is not what this app can call.
    public init(_ manifest: Manifest, runtime: String, makeRunner: (PackageFunctions) throws -> any PackageRunner)
        throws
    {
        let entry = manifest.entry
        try checkCallable(entry)
        self.runtime = runtime
        self.entry = entry
        vocabSize = manifest.tokens.vocabSize
        let chunks = chainOf(entry)
        try checkFunctions(chunks, entry)
        let runners = try Dictionary(
            uniqueKeysWithValues: entry.paths.map { path in
                (path, try makeRunner(packageFunctions(path, chunks, entry)))
            })
        calls = try chunks.map { try Call(runners[$0.path]!, $0) }
        prefills = chunks[0].functions["prefill"] != nil
    }

    public func reset() {
        position = 0
        calls.forEach { $0.reset() }
    }

    public func prefill(_ ids: [Int]) throws -> [Float] {
        try checkIds(ids, position: position, entry: entry, vocabSize: vocabSize)
        var logits: [Float] = []
        var rest = ids[...]
        while !rest.isEmpty {
            let size = size(ofNext: rest.count)
            logits = try call(Array(rest.prefix(size)), byPrefill: size > 1)
            rest = rest.dropFirst(size)
        }
        return logits
    }

    public func step(_ id: Int) throws -> [Float] {
        try checkIds([id], position: position, entry: entry, vocabSize: vocabSize)
        return try call([id], byPrefill: false)
    }

    /// How many tokens the next call takes: a (padded) prefill chunk, or one.
    private func size(ofNext left: Int) -> Int {
        let length = entry.prefillLength
        let fits = position + length <= entry.contextLength
        return prefills && fits && Double(left) > Double(length) * Self.worthPadding ? min(left, length) : 1
    }

    /// Runs the chain on tokens, padded to the length of its functions, and moves on.
    private func call(_ ids: [Int], byPrefill: Bool) throws -> [Float] {
        let length = byPrefill ? entry.prefillLength : 1
        let padded = ids.map(Int32.init) + [Int32](repeating: 0, count: length - ids.count)
        var given = ["inputIds": HostTensor([1, length], padded), "position": HostTensor([1], [Int32(position)])]
        var found: [String: HostTensor] = [:]
        for call in calls {
            found = try call.run(byPrefill ? "prefill" : "decode", given, count: ids.count, at: position)
            given[hiddenIn] = found[hiddenOut]
        }
        let logits = try needed("logits", found)
        guard logits.shape == [1, length, vocabSize] else {
            throw formatError(
                "the model does not give what its signature says", got: logits.shape, wanted: [1, length, vocabSize])
        }
        position += ids.count
        return logits.row(ids.count - 1)
    }
}

/// One call of the chain, and the part of the cache that is kept for it here.
private final class Call {
    private let runner: any PackageRunner
    private let chunk: ChunkEntry
    private var cache: [String: HostTensor] = [:]  // empty where the package has states

    init(_ runner: any PackageRunner, _ chunk: ChunkEntry) throws {
        (self.runner, self.chunk) = (runner, chunk)
        for spec in chunk.inputs where present[spec.name] != nil { cache[spec.name] = try tensor(spec) }
    }

    /// Empties the cache: what lies beyond the position is never seen, but must be finite.
    func reset() {
        runner.reset()
        cache.values.forEach { $0.clear() }
    }

    func run(_ role: String, _ given: [String: HostTensor], count: Int, at position: Int) throws -> [String: HostTensor]
    {
        var inputs: [String: HostTensor] = [:]
        for spec in chunk.inputs { inputs[spec.name] = try given[spec.name] ?? needed(spec.name, cache) }
        let found = try runner.run(chunk.functions[role]!, inputs)
        for (name, held) in cache { try held.write(count, of: needed(present[name]!, found), at: position) }
        return found
    }

    private func tensor(_ spec: TensorSpec) throws -> HostTensor {
        let shape = spec.shape.compactMap(\.fixed)
        let isUsable = shape.count == 4 && spec.shape.count == 4 && shape.allSatisfy { (1...1 << 20).contains($0) }
        guard let type = ElementType(rawValue: spec.dtype), isUsable, shape[0] * shape[1] * shape[3] < 1 << 30 else {
            throw formatError(
                "a cache of an unknown kind", got: "\(spec.dtype) \(spec.shape)",
                wanted: "float16 or float32 [L, H, C, D]")
        }
        return HostTensor(shape, type)
    }
}

/// What is called for each step, in order: the chunks, or the one package as a chunk of all layers.
private func chainOf(_ entry: ModelEntry) -> [ChunkEntry] {
    if let chunks = entry.chunks { return chunks }
    let named =
        entry.options["functions"]?.object?.entries.compactMap { entry in entry.value.string.map { (entry.key, $0) } }
        ?? []
    return [
        ChunkEntry(
            path: entry.path, functions: named.isEmpty ? ["decode": "main"] : Dictionary(uniqueKeysWithValues: named),
            firstLayer: 0, layers: 0, inputs: entry.inputs, outputs: entry.outputs, states: entry.states)
    ]
}

/// One without a position looks up ids and has no state.
private func packageFunctions(_ path: String, _ chunks: [ChunkEntry], _ entry: ModelEntry) -> PackageFunctions {
    let keepsStates = entry.option("cache") == "state"
    let functions = chunks.filter { $0.path == path }.flatMap { chunk in
        ["decode", "prefill"].compactMap { role in
            chunk.functions[role].map { (name: $0, isStateful: keepsStates && chunk.inputs.named("position") != nil) }
        }
    }
    return PackageFunctions(path: path, functions: functions)
}

private func needed(_ name: String, _ found: [String: HostTensor]) throws -> HostTensor {
    guard let tensor = found[name] else {
        throw formatError(
            "the model does not give what its signature says", got: found.keys.sorted(), wanted: name,
            hint: "export the bundle again")
    }
    return tensor
}

/// Every call has a function for one id, and all or none one for more.
private func checkFunctions(_ chunks: [ChunkEntry], _ entry: ModelEntry) throws {
    let prefills = chunks.map { $0.functions["prefill"] != nil }
    let isWhole = chunks.allSatisfy { $0.functions["decode"] != nil } && Set(prefills).count == 1
    guard isWhole, !prefills[0] || entry.prefillLength >= 1 else {
        throw formatError(
            "the model's functions are not what a step needs", got: chunks.map { $0.functions.keys.sorted() },
            wanted: "decode, and prefill in all or none", hint: "export the bundle again")
    }
}

private func checkCallable(_ entry: ModelEntry) throws {
    guard entry.format == .coreml else {
        let hint = "make one for Apple's devices: satchel export MODEL --device iphone-15-pro"
        throw formatError("this app cannot run the bundle", got: entry.format.rawValue, wanted: "coreml", hint: hint)
    }
    guard entry.vision == nil else {
        throw formatError("this app shows no pictures to a model", hint: "use a bundle of a model of text only")
    }
    guard ["state", "io"].contains(entry.option("cache")), entry.option("mask") == "position" else {
        let got = "cache \(entry.option("cache") ?? "none"), mask \(entry.option("mask") ?? "none")"
        throw formatError("this app does not know how to call the bundle's model", got: got, hint: "use a newer app")
    }
}
