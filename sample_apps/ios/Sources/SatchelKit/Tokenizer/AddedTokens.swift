/// Tokens that are found in a text before the model sees it, such as "<|im_end|>".
struct AddedToken: Sendable {
    let id: Int
    let content: String
    let isSpecial: Bool
    let isNormalized: Bool
    let takesSpaceLeft: Bool
    let takesSpaceRight: Bool
    let isWordAlone: Bool

    init(_ value: Json) throws {
        guard let id = value["id"]?.integer, let content = value["content"]?.string, !content.isEmpty else {
            throw tokenizerError("tokenizer.json has an added token without id or content", got: value.summary)
        }
        self.id = id
        self.content = content
        isSpecial = value["special"]?.bool ?? false
        isNormalized = value["normalized"]?.bool ?? !isSpecial
        takesSpaceLeft = value["lstrip"]?.bool ?? false
        takesSpaceRight = value["rstrip"]?.bool ?? false
        isWordAlone = value["single_word"]?.bool ?? false
    }
}

/// A text cut at added tokens.
enum Segment {
    case text(String)
    case token(Int)
}

/// Finds added tokens: the leftmost first, of those the longest.
struct AddedTokenFinder: Sendable {
    private let byFirstByte: [UInt8: [(spelling: [UInt8], token: AddedToken)]]

    /// spelled: how a token is written in the text that is searched.
    init(_ tokens: [AddedToken], spelled: (String) -> String = { $0 }) {
        let all = tokens.map { (spelling: Array(spelled($0.content).utf8), token: $0) }.filter { !$0.spelling.isEmpty }
        byFirstByte = Dictionary(grouping: all) { $0.spelling[0] }
            .mapValues { $0.sorted { $0.spelling.count > $1.spelling.count } }
    }

    /// literally: special tokens are passed over.
    func cut(_ text: String, literally: Bool) -> [Segment] {
        if byFirstByte.isEmpty { return text.isEmpty ? [] : [.text(text)] }
        let bytes = Array(text.utf8)
        var segments: [Segment] = []
        var (done, at) = (0, 0)
        while at < bytes.count {
            guard let (spelling, token) = match(bytes, at) else {
                at += 1
                continue
            }
            var (start, end) = (at, at + spelling.count)
            at = end
            if literally && token.isSpecial { continue }
            if token.isWordAlone, !standsAlone(bytes, start, end) { continue }
            if token.takesSpaceLeft { start = max(spaceBefore(bytes, start), done) }
            if token.takesSpaceRight { end = spaceAfter(bytes, end) }
            if done < start { segments.append(.text(String(decoding: bytes[done..<start], as: UTF8.self))) }
            segments.append(.token(token.id))
            done = end
            at = max(at, end)
        }
        if done < bytes.count { segments.append(.text(String(decoding: bytes[done...], as: UTF8.self))) }
        return segments
    }

    private func match(_ bytes: [UInt8], _ at: Int) -> (spelling: [UInt8], token: AddedToken)? {
        byFirstByte[bytes[at]]?.first { bytes[at...].starts(with: $0.spelling) }
    }

    private func standsAlone(_ bytes: [UInt8], _ start: Int, _ end: Int) -> Bool {
        let before = String(decoding: bytes[..<start], as: UTF8.self).unicodeScalars.last
        let after = String(decoding: bytes[end...], as: UTF8.self).unicodeScalars.first
        return ![before, after].contains { $0.map(isOfWord) ?? false }
    }

    private func spaceBefore(_ bytes: [UInt8], _ start: Int) -> Int {
        let scalars = String(decoding: bytes[..<start], as: UTF8.self).unicodeScalars
        return start - scalars.reversed().prefix { $0.properties.isWhitespace }.reduce(0) { $0 + UTF8.width($1) }
    }

    private func spaceAfter(_ bytes: [UInt8], _ end: Int) -> Int {
        let scalars = String(decoding: bytes[end...], as: UTF8.self).unicodeScalars
        return end + scalars.prefix { $0.properties.isWhitespace }.reduce(0) { $0 + UTF8.width($1) }
    }
}

/// What a regular expression's \w means.
func isOfWord(_ scalar: Unicode.Scalar) -> Bool {
    scalar == "_" || scalar.properties.isAlphabetic || scalar.properties.numericType == .decimal
}
