/// Why an answer ended.
public enum FinishReason: String, Sendable {
    case stop, length, context, cancelled
}

public struct GenerateOptions: Sendable {
    /// By default the manifest's, as is the sampling.
    public var maxNewTokens: Int?
    public var sampling: Sampling?
    public var seed: Seed?
    /// By default the manifest's.
    public var stopIds: [Int]?

    public init(maxNewTokens: Int? = nil, sampling: Sampling? = nil, seed: Seed? = nil, stopIds: [Int]? = nil) {
        self.maxNewTokens = maxNewTokens
        self.sampling = sampling
        self.seed = seed
        self.stopIds = stopIds
    }
}

/// What a generation tells while it runs, and how it is cancelled.
public struct Watch {
    /// Told the ids of the prompt that are done, and all.
    public var prefilled: (Int, Int) -> Void = { _, _ in }
    /// Asked between two calls of the model.
    public var isCancelled: () -> Bool = { false }

    public init() {}
}

/// A loaded bundle that answers; runtime/session.py is its twin. Not for several threads at once.
public final class Session {
    public let bundle: ModelBundle
    public let backend: any Backend
    public let tokenizer: Tokenizer?
    public let template: ChatTemplate?
    private var cached: [Int]?  // what the backend's cache holds; nil after a call that was interrupted

    private static let piece = 64  // ids of a prompt a call: between calls an answer can be cancelled

    /// Reads the tokenizer and the template. Throws a TokenizerError or BundleError.
    public init(_ bundle: ModelBundle, _ backend: any Backend) throws {
        self.bundle = bundle
        self.backend = backend
        let vocabSize = bundle.manifest.tokens.vocabSize
        tokenizer =
            bundle.has("tokenizer.json") ? try Tokenizer(bundle.read("tokenizer.json"), vocabSize: vocabSize) : nil
        let special =
            bundle.has("tokenizer_config.json")
            ? try ChatTemplate.specialTokens(bundle.read("tokenizer_config.json")) : [:]
        template = try bundle.text("chat_template.jinja").map { try ChatTemplate($0, special: special) }
    }

    /// A plain prompt -> ids, with bos in front where the model wants it.
    public func encode(_ text: String) throws -> [Int] {
        let rules = bundle.manifest.tokens
        let ids = try neededTokenizer().encode(text)
        guard rules.prependBos, let bos = rules.bosId, ids.first != bos else { return ids }
        return [bos] + ids
    }

    /// A conversation -> ids, ready for the answer; without a template, the last message as a plain prompt.
    public func encode(_ messages: [Message]) throws -> [Int] {
        guard let template else { return try encode(messages.last?.content ?? "") }
        return try encodeChat(neededTokenizer(), template, messages)
    }

    /// Says that something else has used the backend, whose cache is then of no use.
    public func forget() { cached = nil }

    /// The answer to a conversation, given out in pieces as it comes. What the cache holds of it is not computed again.
    public func chat(
        _ messages: [Message], _ options: GenerateOptions = .init(), watch: Watch = .init(),
        piece: (_ text: String, _ tokens: Int) -> Void
    ) throws -> FinishReason {
        var stream = TextStream(try neededTokenizer())
        let reason = try generate(encode(messages), options, reuse: true, watch: watch) { piece(stream.push($0), 1) }
        piece(stream.flush(), 0)
        return reason
    }

    /// The ids that follow `ids`, one by one as they are chosen.
    public func generate(
        _ ids: [Int], _ options: GenerateOptions = .init(), reuse: Bool = false, watch: Watch = .init(),
        chosen: (Int) -> Void
    ) throws -> FinishReason {
        let (count, end) = try room(ids, options.maxNewTokens)
        var sampler = try Sampler(options.sampling ?? bundle.manifest.generation.sampling, seed: options.seed)
        let stops = Set(options.stopIds ?? bundle.manifest.tokens.stopIds)
        guard var logits = try feed(ids, reuse: reuse, watch) else { return .cancelled }
        for number in 1...count {
            if watch.isCancelled() { return .cancelled }
            let id = sampler.next(logits)
            if stops.contains(id) { return .stop }
            chosen(id)
            if watch.isCancelled() { return .cancelled }
            if number < count { logits = try step(id) }
        }
        return end
    }

    /// How long the answer may be, and what ends it there. Its last id needs no place in the cache.
    private func room(_ ids: [Int], _ wanted: Int?) throws -> (Int, FinishReason) {
        let (context, vocabSize) = (bundle.manifest.entry.contextLength, bundle.manifest.tokens.vocabSize)
        guard !ids.isEmpty else { throw usageError("the prompt is empty", wanted: "at least one id") }
        let count = wanted ?? bundle.manifest.generation.maxNewTokens
        guard count >= 1 else {
            throw usageError("the length of an answer is out of range", got: count, wanted: ">= 1")
        }
        if let bad = ids.first(where: { !(0..<vocabSize).contains($0) }) {
            throw usageError("ids outside the vocabulary", got: bad, wanted: "0..\(vocabSize - 1)")
        }
        let free = context - ids.count + 1
        guard free >= 1 else {
            throw usageError(
                "the context cannot hold this conversation", got: "\(ids.count) ids", wanted: "at most \(context) ids",
                hint:
                    "begin a new chat or shorten the message; `satchel export --context` makes a bundle with more room")
        }
        return count <= free ? (count, .length) : (free, .context)
    }

    /// Brings the cache to hold exactly `ids`; the logits after the last, or nil if cancelled.
    private func feed(_ ids: [Int], reuse: Bool, _ watch: Watch) throws -> [Float]? {
        var held = reuse ? cached ?? [] : []
        cached = nil
        if held.count >= ids.count || !ids.starts(with: held) { held = [] }
        if held.isEmpty { backend.reset() }
        var logits: [Float] = []
        for start in stride(from: held.count, to: ids.count, by: Self.piece) {
            if watch.isCancelled() { return nil }
            let end = min(start + Self.piece, ids.count)
            logits = try backend.prefill(Array(ids[start..<end]))
            watch.prefilled(end, ids.count)
        }
        cached = ids
        return logits
    }

    private func step(_ id: Int) throws -> [Float] {
        let held = cached ?? []
        cached = nil  // until the backend has returned: an interrupted call leaves the cache in between
        let logits = try backend.step(id)
        cached = held + [id]
        return logits
    }

    private func neededTokenizer() throws -> Tokenizer {
        guard let tokenizer else {
            throw tokenizerError("the bundle has no tokenizer", hint: "export again without --no-tokenizer")
        }
        return tokenizer
    }
}
