import Foundation

/// Text <-> ids by the bundle's tokenizer.json, as the Python library `tokenizers` does it.
public final class Tokenizer: @unchecked Sendable {  // all but the cache is immutable, and a lock guards that
    /// Every token that the tokenizer marks as special -> its id.
    public let controls: [(token: String, id: Int)]

    private let raw: AddedTokenFinder
    private let normalized: AddedTokenFinder
    private let normalizer: (any Normalizer)?
    private let preTokenizer: (any PreTokenizer)?
    private let model: any PieceModel
    private let decoder: (any TokenDecoder)?
    private let pieceOf: [Int: String]
    private let controlIds: Set<Int>
    private var known: [Bytes: [Int]] = [:]  // words -> ids
    private let lock = NSLock()

    private static let mostKnown = 10_000
    private static let longestKnown = 64  // bytes; a model without words has whole texts, which hardly recur

    /// Reads tokenizer.json for a model of `vocabSize` ids. Throws a TokenizerError or BundleError.
    public init(_ data: Data, vocabSize: Int) throws {
        let file = try parseJson(data, "tokenizer.json", exactIntegers: false)
        let added = try (file["added_tokens"]?.array ?? []).map(AddedToken.init)
        let normalizer = try file["normalizer"].present.map(readNormalizer)
        self.normalizer = normalizer
        preTokenizer = try file["pre_tokenizer"].present.map(readPreTokenizer)
        decoder = try file["decoder"].present.map(readDecoder)
        model = try readModel(file["model"] ?? .null)
        raw = AddedTokenFinder(added.filter { !$0.isNormalized })
        normalized = AddedTokenFinder(added.filter(\.isNormalized)) { normalizer?.normalize($0) ?? $0 }
        controls = added.filter(\.isSpecial).map { ($0.content, $0.id) }
        controlIds = Set(controls.map(\.id))
        let pieces = model.vocabulary.map { ($0.id, $0.piece) } + added.map { ($0.id, $0.content) }
        pieceOf = Dictionary(pieces) { _, last in last }
        // A model's embedding is often padded beyond the tokenizer, never the other way round.
        guard let largest = pieceOf.keys.max(), largest < vocabSize else {
            throw tokenizerError(
                "the tokenizer has more ids than the model", got: pieceOf.count, wanted: "at most \(vocabSize)")
        }
    }

    /// Ids of a text, without the post-processor; spellings of control tokens become control tokens.
    public func encode(_ text: String) throws -> [Int] {
        try encode(text, literally: false)
    }

    /// Ids of a text in which control tokens are only characters.
    public func encodeLiterally(_ text: String) throws -> [Int] {
        let ids = try encode(text, literally: true)
        guard controlIds.isDisjoint(with: ids) else {
            throw tokenizerError("the tokenizer turns this text into a control token", got: text.prefix(80))
        }
        return ids
    }

    /// The text of ids, control tokens left out.
    public func decode(_ ids: some Sequence<Int>) -> String {
        let tokens = ids.filter { !controlIds.contains($0) }.compactMap { pieceOf[$0] }
        return decoder.map { $0.decode(tokens).joined() } ?? tokens.joined(separator: " ")
    }

    private func encode(_ text: String, literally: Bool) throws -> [Int] {
        var ids: [Int] = []
        var isFirst = true
        for segment in raw.cut(text, literally: literally) {
            switch segment {
            case .token(let id): ids.append(id)
            case .text(let part):
                let spelled = normalizer?.normalize(part) ?? part
                ids += try encodeNormalized(spelled, literally: literally, isFirst: isFirst)
            }
            isFirst = false
        }
        return ids
    }

    private func encodeNormalized(_ text: String, literally: Bool, isFirst: Bool) throws -> [Int] {
        try normalized.cut(text, literally: literally).enumerated().flatMap { index, segment in
            switch segment {
            case .token(let id): return [id]
            case .text(let part):
                let piece = Piece(text: part, isFirst: isFirst && index == 0)
                return try (preTokenizer?.split(piece) ?? [piece]).flatMap { try self.ids(of: $0.text) }
            }
        }
    }

    private func ids(of word: String) throws -> [Int] {
        let key = Bytes(word)
        if key.bytes.isEmpty { return [] }
        if let ids = lock.withLock({ known[key] }) { return ids }
        let ids = try model.ids(of: word)
        if key.bytes.count <= Self.longestKnown {
            lock.withLock {
                if known.count >= Self.mostKnown { known.removeAll() }
                known[key] = ids
            }
        }
        return ids
    }
}

private func readModel(_ value: Json) throws -> any PieceModel {
    // Files from before there was a type: a unigram model has its vocabulary as a list.
    let type = value["type"]?.string ?? (value["vocab"]?.array != nil ? "Unigram" : "BPE")
    switch type {
    case "BPE": return try BytePairModel(value)
    case "Unigram": return try UnigramModel(value)
    default: throw unknownPart("model", type)
    }
}

extension Json? {
    /// The value, if there is one and it is not null.
    var present: Json? { self.flatMap { $0.isNull ? nil : $0 } }
}
