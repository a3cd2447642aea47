import Foundation

/// A part of a text on its way to the model: what it says now, and whether it begins the text.
struct Piece {
    var text: String
    var isFirst: Bool
}

/// Cuts text into words, in which the model then finds its pieces.
protocol PreTokenizer: Sendable {
    func split(_ piece: Piece) -> [Piece]
}

/// A "pre_tokenizer" of tokenizer.json. Throws a TokenizerError for a kind that is not known.
func readPreTokenizer(_ value: Json) throws -> any PreTokenizer {
    let type = value["type"]?.string ?? "none"
    switch type {
    case "Sequence": return PreTokenizerSequence(parts: try (value["pretokenizers"]?.array ?? []).map(readPreTokenizer))
    case "ByteLevel": return try ByteLevel(value)
    case "Metaspace": return Metaspace(value)
    case "Split": return try Split(value)
    case "Digits":
        // Every number, such as a half or a Roman four, not \d alone.
        let behavior: SplitBehavior = value["individual_digits"]?.bool == true ? .isolated : .contiguous
        return Split(pattern: try Pattern(regex: #"\p{N}"#), behavior: behavior)
    case "Punctuation":
        let behavior = value["behavior"]?.string.flatMap(SplitBehavior.init) ?? .isolated
        return Split(pattern: try Pattern(regex: #"[\p{P}!-/:-@\[-`{-~]"#), behavior: behavior)
    case "WhitespaceSplit": return Split(pattern: try Pattern(regex: #"\s"#), behavior: .removed)
    case "Whitespace": return Split(pattern: try Pattern(regex: #"\w+|[^\w\s]+"#), behavior: .removed, invert: true)
    default: throw unknownPart("pre-tokenizer", type)
    }
}

private struct PreTokenizerSequence: PreTokenizer {
    let parts: [any PreTokenizer]
    func split(_ piece: Piece) -> [Piece] { parts.reduce([piece]) { pieces, part in pieces.flatMap(part.split) } }
}

private struct Split: PreTokenizer {
    let pattern: Pattern
    let behavior: SplitBehavior
    var invert = false

    init(pattern: Pattern, behavior: SplitBehavior, invert: Bool = false) {
        (self.pattern, self.behavior, self.invert) = (pattern, behavior, invert)
    }

    init(_ value: Json) throws {
        guard let behavior = value["behavior"]?.string.flatMap(SplitBehavior.init) else {
            throw unknownPart("way to split", value["behavior"]?.summary ?? "none")
        }
        self.init(pattern: try Pattern(value["pattern"]), behavior: behavior, invert: value["invert"]?.bool ?? false)
    }

    func split(_ piece: Piece) -> [Piece] {
        let parts = pattern.cut(piece.text).map { (text: $0.text, isMatch: $0.isMatch != invert) }
        return pieces(behavior.apply(parts), of: piece)
    }
}

private func pieces(_ texts: [String], of piece: Piece) -> [Piece] {
    texts.enumerated().map { Piece(text: $1, isFirst: piece.isFirst && $0 == 0) }
}

/// Words by GPT-2's pattern, each byte spelled as one printable character.
private struct ByteLevel: PreTokenizer {
    static let words = #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    let spaceInFront: Bool
    let pattern: Pattern?

    init(_ value: Json) throws {
        spaceInFront = value["add_prefix_space"]?.bool ?? true
        pattern = value["use_regex"]?.bool ?? true ? try Pattern(regex: Self.words) : nil
    }

    func split(_ piece: Piece) -> [Piece] {
        let text = spaceInFront && piece.text.utf8.first != UInt8(ascii: " ") ? " " + piece.text : piece.text
        let words = pattern.map { $0.cut(text).map(\.text) } ?? [text]
        return pieces(words.map(ByteAlphabet.spelled), of: piece)
    }
}

/// Spaces as a character of their own, with one in front.
private struct Metaspace: PreTokenizer {
    let replacement: String
    let scheme: PrependScheme
    let splits: Bool

    init(_ value: Json) {
        replacement = value["replacement"]?.string ?? "▁"
        scheme = PrependScheme(value)
        splits = value["split"]?.bool ?? true
    }

    func split(_ piece: Piece) -> [Piece] {
        var text = Pattern(literal: " ").replaced(piece.text, by: replacement)
        let inFront = scheme == .always || (scheme == .first && piece.isFirst)
        if inFront && !text.utf8.starts(with: replacement.utf8) { text = replacement + text }
        guard splits else { return pieces([text], of: piece) }
        return pieces(SplitBehavior.mergedWithNext.apply(Pattern(literal: replacement).cut(text)), of: piece)
    }
}

/// Where Metaspace puts a space in front.
enum PrependScheme: String {
    case first, never, always

    init(_ value: Json) {
        let old = value["add_prefix_space"]?.bool ?? true  // of files from before there was a scheme
        self = value["prepend_scheme"]?.string.flatMap(Self.init) ?? (old ? .always : .never)
    }
}

/// One printable character for each byte, as GPT-2 has them.
enum ByteAlphabet {
    private static let scalars: [Unicode.Scalar] = {
        let printable = Set(Array(0x21...0x7E) + Array(0xA1...0xAC) + Array(0xAE...0xFF))
        var next: UInt32 = 0x100
        return (0..<256).map { byte in
            if printable.contains(byte) { return Unicode.Scalar(UInt8(byte)) }
            defer { next += 1 }
            return Unicode.Scalar(next)!
        }
    }()
    private static let bytes = Dictionary(uniqueKeysWithValues: scalars.enumerated().map { ($1, UInt8($0)) })

    static func spelled(_ text: String) -> String {
        String(String.UnicodeScalarView(text.utf8.map { scalars[Int($0)] }))
    }

    /// The bytes that a token spells, or its own where it is not spelled so.
    static func bytes(of token: String) -> [UInt8] {
        let found = token.unicodeScalars.compactMap { bytes[$0] }
        return found.count == token.unicodeScalars.count ? found : Array(token.utf8)
    }
}
