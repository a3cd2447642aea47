/// What a loaded model does, whatever runs it. Not for several threads at once.
public protocol Backend: AnyObject {
    /// For reports, such as "Core ML".
    var runtime: String { get }
    /// Ids in the cache.
    var position: Int { get }
    /// Empties the cache.
    func reset()
    /// Appends ids in one call; the logits after the last, [vocab]. Throws a UsageError beyond the context.
    func prefill(_ ids: [Int]) throws -> [Float]
    /// Appends one id; the logits after it, [vocab].
    func step(_ id: Int) throws -> [Float]
}

/// Refuses ids that the cache or the model's embedding has no place for.
func checkIds(_ ids: [Int], position: Int, entry: ModelEntry, vocabSize: Int) throws {
    guard !ids.isEmpty else { throw usageError("no tokens to prefill", wanted: "at least one") }
    guard position + ids.count <= entry.contextLength else {
        throw usageError(
            "more tokens than the cache holds", got: position + ids.count, wanted: "at most \(entry.contextLength)",
            hint: "begin a new chat, shorten the prompt, or export with a larger --context")
    }
    if let bad = ids.first(where: { !(0..<vocabSize).contains($0) }) {
        throw usageError("a token that the model does not have", got: bad, wanted: "0 to \(vocabSize - 1)")
    }
}
