/// Finds the pieces of a word: ids of the vocabulary.
protocol PieceModel: Sendable {
    var vocabulary: [(piece: String, id: Int)] { get }
    func ids(of word: String) throws -> [Int]
}

/// Byte-pair encoding: characters, of which neighbours are merged by rank.
struct BytePairModel: PieceModel {
    let vocabulary: [(piece: String, id: Int)]
    private let idOf: [Bytes: Int]
    private let merges: [Pair: (rank: Int, id: Int)]
    private let unknown: Int?
    private let prefix: String  // of characters within a word
    private let suffix: String  // of a word's last character
    private let fusesUnknown: Bool
    private let fallsBackToBytes: Bool
    private let takesWholeWords: Bool

    init(_ value: Json) throws {
        let entries = value["vocab"]?.object?.entries ?? []
        vocabulary = entries.compactMap { entry in entry.value.integer.map { (entry.key, $0) } }
        idOf = Dictionary(vocabulary.map { (Bytes($0.piece), $0.id) }) { first, _ in first }
        guard !vocabulary.isEmpty, vocabulary.count == entries.count,
            vocabulary.allSatisfy({ $0.id >= 0 && $0.id <= Int(Int32.max) })
        else { throw tokenizerError("tokenizer.json has no vocabulary of pieces and ids") }
        unknown = value["unk_token"]?.string.flatMap { [idOf] in idOf[Bytes($0)] }
        prefix = value["continuing_subword_prefix"]?.string ?? ""
        suffix = value["end_of_word_suffix"]?.string ?? ""
        fusesUnknown = value["fuse_unk"]?.bool ?? false
        fallsBackToBytes = value["byte_fallback"]?.bool ?? false
        takesWholeWords = value["ignore_merges"]?.bool ?? false
        merges = try Self.readMerges(value["merges"]?.array ?? [], idOf, prefix.utf8.count)
    }

    func ids(of word: String) throws -> [Int] {
        if takesWholeWords, let id = idOf[Bytes(word)] { return [id] }
        return merged(try symbols(of: word))
    }

    /// merges are "a b", or ["a", "b"] in later files.
    private static func readMerges(_ list: [Json], _ idOf: [Bytes: Int], _ prefix: Int) throws -> [Pair: (
        rank: Int, id: Int
    )] {
        var found: [Pair: (rank: Int, id: Int)] = [:]
        found.reserveCapacity(list.count)
        for (rank, item) in list.enumerated() {
            let sides =
                item.array?.compactMap { $0.string.map { Array($0.utf8) } }
                ?? item.string.map {
                    $0.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map(Array.init)
                }
            guard let sides, sides.count == 2, let left = idOf[Bytes(sides[0])], let right = idOf[Bytes(sides[1])],
                let id = idOf[Bytes(sides[0] + sides[1].dropFirst(prefix))]
            else { throw tokenizerError("tokenizer.json merges what its vocabulary lacks", got: item.summary) }
            if found[Pair(left, right)] == nil { found[Pair(left, right)] = (rank, id) }
        }
        return found
    }

    private func symbols(of word: String) throws -> [Int] {
        var found: [Int] = []
        var pending: Int?  // the unknown, until what follows it is known
        let scalars = Array(word.unicodeScalars)
        for (i, scalar) in scalars.enumerated() {
            let text = (i > 0 ? prefix : "") + String(scalar) + (i == scalars.count - 1 ? suffix : "")
            if let id = idOf[Bytes(text)] {
                if let unknown = pending { found.append(unknown) }
                pending = nil
                found.append(id)
            } else if fallsBackToBytes, let bytes = byteIds(of: text, idOf) {
                found += bytes
            } else if let unknown {
                if pending != nil && !fusesUnknown { found.append(unknown) }
                pending = unknown
            } else {
                throw tokenizerError("the tokenizer has no id for a part of this text", got: word.prefix(80))
            }
        }
        if let unknown = pending { found.append(unknown) }
        return found
    }

    /// The lowest rank first, of equal ones the leftmost, until no neighbours can be merged.
    private func merged(_ symbols: [Int]) -> [Int] {
        if symbols.count < 2 { return symbols }
        var word = LinkedWord(symbols)
        var queue = Heap<Candidate>()
        func look(at left: Int) {
            let right = word.next[left]
            guard right < symbols.count, let merge = merges[Pair(word.ids[left], word.ids[right])] else { return }
            queue.push(Candidate(rank: merge.rank, left: left, right: right, id: merge.id))
        }
        for i in 0..<symbols.count - 1 { look(at: i) }
        while let candidate = queue.pop() {
            let (left, right) = (candidate.left, candidate.right)
            guard word.isAlive[left], word.isAlive[right], word.next[left] == right,
                merges[Pair(word.ids[left], word.ids[right])]?.id == candidate.id
            else { continue }  // one of the two has been merged otherwise
            word.merge(left, right, into: candidate.id)
            look(at: left)
            if word.previous[left] >= 0 { look(at: word.previous[left]) }
        }
        return word.alive
    }
}

/// The ids of a text's bytes, spelled "<0x41>", if the vocabulary has them all.
func byteIds(of text: String, _ idOf: [Bytes: Int]) -> [Int]? {
    let ids = text.utf8.compactMap { byte in
        idOf[Bytes("<0x" + padded(String(byte, radix: 16, uppercase: true), to: 2) + ">")]
    }
    return ids.count == text.utf8.count ? ids : nil
}

private struct Pair: Hashable {
    let left: Int32
    let right: Int32
    init(_ left: Int, _ right: Int) { (self.left, self.right) = (Int32(left), Int32(right)) }
}

private struct Candidate: Comparable {
    let rank: Int
    let left: Int
    let right: Int
    let id: Int
    static func < (a: Self, b: Self) -> Bool { (a.rank, a.left) < (b.rank, b.left) }
}

private struct LinkedWord {
    var ids: [Int]
    var previous: [Int]
    var next: [Int]
    var isAlive: [Bool]

    init(_ ids: [Int]) {
        self.ids = ids
        previous = ids.indices.map { $0 - 1 }
        next = ids.indices.map { $0 + 1 }
        isAlive = ids.map { _ in true }
    }

    mutating func merge(_ left: Int, _ right: Int, into id: Int) {
        ids[left] = id
        isAlive[right] = false
        next[left] = next[right]
        if next[right] < ids.count { previous[next[right]] = left }
    }

    var alive: [Int] { ids.indices.filter { isAlive[$0] }.map { ids[$0] } }
}

/// A binary heap, the smallest first.
struct Heap<Element: Comparable> {
    private var items: [Element] = []

    mutating func push(_ item: Element) {
        items.append(item)
        var i = items.count - 1
        while i > 0, items[i] < items[(i - 1) / 2] {
            items.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    mutating func pop() -> Element? {
        guard let first = items.first else { return nil }
        let last = items.removeLast()
        if items.isEmpty { return first }
        items[0] = last
        var i = 0
        while true {
            let children = [2 * i + 1, 2 * i + 2].filter { $0 < items.count }
            guard let child = children.min(by: { items[$0] < items[$1] }), items[child] < items[i] else { return first }
            items.swapAt(i, child)
            i = child
        }
    }
}
