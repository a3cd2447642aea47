/// SentencePiece's unigram model: the cut of a text whose pieces' scores sum to the most.
struct UnigramModel: PieceModel {
    let vocabulary: [(piece: String, id: Int)]
    private let idOf: [Bytes: Int]
    private let scores: [Double]
    private let longest: Int  // bytes of a piece
    private let unknown: Int?
    private let unknownScore: Double
    private let fallsBackToBytes: Bool

    private static let unknownPenalty = 10.0

    init(_ value: Json) throws {
        let pieces = try (value["vocab"]?.array ?? []).map { item in
            guard let pair = item.array, pair.count == 2, let piece = pair[0].string, let score = pair[1].number else {
                throw tokenizerError("tokenizer.json has a piece without a score", got: item.summary)
            }
            return (piece, score)
        }
        guard !pieces.isEmpty else { throw tokenizerError("tokenizer.json has no vocabulary of pieces and scores") }
        vocabulary = pieces.enumerated().map { ($1.0, $0) }
        scores = pieces.map(\.1)
        idOf = Dictionary(vocabulary.map { (Bytes($0.piece), $0.id) }) { _, last in last }
        longest = pieces.map { $0.0.utf8.count }.max()!
        unknown = value["unk_id"]?.integer
        unknownScore = scores.min()! - Self.unknownPenalty
        fallsBackToBytes = value["byte_fallback"]?.bool ?? false
    }

    func ids(of word: String) throws -> [Int] {
        try bestPieces(Array(word.utf8)).flatMap { piece in
            if let id = idOf[Bytes(piece)] { return [id] }
            if fallsBackToBytes, let ids = byteIds(of: String(decoding: piece, as: UTF8.self), idOf) { return ids }
            guard let unknown else {
                throw tokenizerError("the tokenizer has no id for a part of this text", got: word.prefix(80))
            }
            return [unknown]
        }
    }

    private struct Node {
        var score = 0.0
        var start: Int?
        var isUnknown = false
    }

    /// Viterbi over byte positions; neighbours that are unknown become one piece.
    private func bestPieces(_ text: [UInt8]) -> [ArraySlice<UInt8>] {
        var ends = [Node](repeating: Node(), count: text.count + 1)
        var start = 0
        while start < text.count {
            let character = characterLength(text[start])
            let before = ends[start].score
            func offer(_ end: Int, _ score: Double, isUnknown: Bool) {
                if ends[end].start == nil || before + score > ends[end].score {
                    ends[end] = Node(score: before + score, start: start, isUnknown: isUnknown)
                }
            }
            var hasSingle = false
            for end in start + 1...min(start + longest, text.count) {
                guard let id = idOf[Bytes(text[start..<end])] else { continue }
                offer(end, scores[id], isUnknown: id == unknown)
                if end - start == character { hasSingle = true }
            }
            if !hasSingle { offer(start + character, unknownScore, isUnknown: true) }
            start += character
        }
        return pieces(text, ends)
    }

    private func pieces(_ text: [UInt8], _ ends: [Node]) -> [ArraySlice<UInt8>] {
        var found: [ArraySlice<UInt8>] = []
        var end = text.count
        var lastWasUnknown = false
        while end > 0, let start = ends[end].start {
            if ends[end].isUnknown && lastWasUnknown {
                found[found.count - 1] = text[start..<found.last!.endIndex]
            } else {
                found.append(text[start..<end])
            }
            lastWasUnknown = ends[end].isUnknown
            end = start
        }
        return found.reversed()
    }
}

/// Bytes of a UTF-8 character that begins so.
private func characterLength(_ first: UInt8) -> Int {
    first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
}
