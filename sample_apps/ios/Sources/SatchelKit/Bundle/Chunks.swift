/// A model of several packages: can the chain that a manifest lists be called? runtime/chunks.py is its twin.

let hiddenIn = "hiddenStates"
let hiddenOut = "outputHiddenStates"
private let caches = ["keyCache", "valueCache"]

/// Throws a BundleError: a chunk is missing, comes twice or in another's place, or does not fit its neighbours.
func checkChunks(_ chunks: [ChunkEntry], of manifest: Manifest) throws {
    guard manifest.entry.format == .coreml, chunks.count >= 2, manifest.entry.path == chunks[0].path else {
        throw bad("only Core ML's model has chunks, two or more, and its path is the first one's", manifest.entry.path)
    }
    try checkPlaces(chunks)
    try checkPackages(chunks, of: manifest)
    try checkLayers(chunks, of: manifest)
    for (before, after) in zip(chunks, chunks.dropFirst()) {
        let (given, taken) = (before.outputs.named(hiddenOut), after.inputs.named(hiddenIn))
        guard let given, let taken, given.shape == taken.shape, given.dtype == taken.dtype else {
            throw bad("a chunk does not take what the one before it gives", after.path)
        }
    }
    let takers = chunks.indices.filter { chunks[$0].inputs.named("inputIds") != nil }
    guard takers == [0] else { throw bad("the first chunk, and no other, takes the ids", takers) }
    let givers = chunks.indices.filter { chunks[$0].outputs.named("logits") != nil }
    guard givers == [chunks.count - 1] else { throw bad("the last chunk, and no other, gives the logits", givers) }
}

/// Each function of each package is called once, and all chunks have functions for the same lengths.
private func checkPlaces(_ chunks: [ChunkEntry]) throws {
    let called = chunks.flatMap { chunk in chunk.functions.values.map { "\(chunk.path) \($0)" } }
    guard Set(called).count == called.count else { throw bad("a chunk is listed twice", called.sorted()) }
    let roles = chunks.map { $0.functions.keys.sorted() }
    guard roles.allSatisfy({ $0 == roles[0] }), [["decode"], ["decode", "prefill"]].contains(roles[0]) else {
        throw bad("chunks differ in the functions that they have", roles)
    }
}

private func checkPackages(_ chunks: [ChunkEntry], of manifest: Manifest) throws {
    let encoder = manifest.entry.vision?["encoder"]?["path"]?.string
    let folders = manifest.files.compactMap { $0.path.split(separator: "/").first.map(String.init) }
    let packages = Set(folders.filter { $0.hasSuffix(".mlpackage") && $0 != encoder })
    guard Set(chunks.map(\.path)) == packages else {
        throw bad("the chunks are not the packages among the files", chunks.map(\.path))
    }
}

/// All layers in order, each once, and each chunk with the cache of its own.
private func checkLayers(_ chunks: [ChunkEntry], of manifest: Manifest) throws {
    var next = 0
    for chunk in chunks {
        guard chunk.layers >= 0, chunk.firstLayer == next else {
            throw bad("layers are missing, come twice or are out of order", chunk.path)
        }
        next += chunk.layers
        let held = (chunk.inputs + chunk.states).filter { caches.contains($0.name) }
        let fits = held.allSatisfy { $0.shape.first == .fixed(chunk.layers) }
        let placed = chunk.inputs.named("position") != nil
        guard fits, held.map(\.name).sorted() == (chunk.layers > 0 ? caches : []), placed == (chunk.layers > 0) else {
            throw bad("a chunk's cache and position are not those of its layers", chunk.path)
        }
    }
    let names = manifest.matrices.filter { $0.hasPrefix("layers.") }
    let layers = Set(names.map { $0.split(separator: ".")[1] }).count
    guard layers == 0 || next == layers else {
        throw bad("the chunks hold another number of layers than the model", next)
    }
}

extension [TensorSpec] {
    func named(_ name: String) -> TensorSpec? { first { $0.name == name } }
}

private func bad(_ what: String, _ got: Any) -> SatchelError {
    bundleError(what, got: got, hint: "export the bundle again")
}
