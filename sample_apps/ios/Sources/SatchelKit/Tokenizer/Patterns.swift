import Foundation

/// A pattern of tokenizer.json: a literal string, or a regular expression as Oniguruma reads it.
struct Pattern: @unchecked Sendable {  // NSRegularExpression is immutable and may be used from any thread
    private enum Kind {
        case literal([UInt8])
        case regex(NSRegularExpression)
    }

    private let kind: Kind

    /// value: {"String": ...} or {"Regex": ...}. Throws a TokenizerError.
    init(_ value: Json?) throws {
        if let literal = value?["String"]?.string {
            kind = .literal(Array(literal.utf8))
        } else if let regex = value?["Regex"]?.string {
            self = try Pattern(regex: regex)
        } else {
            throw tokenizerError("tokenizer.json has an unknown pattern", got: value?.summary ?? "none")
        }
    }

    init(literal: String) { kind = .literal(Array(literal.utf8)) }

    init(regex: String) throws {
        do {
            kind = .regex(try NSRegularExpression(pattern: withUnicodeSpaces(regex)))
        } catch {
            throw tokenizerError("tokenizer.json has a regular expression that this system cannot read", got: regex)
        }
    }

    /// The text cut at every match: pieces in order, and whether each is a match. None is empty.
    func cut(_ text: String) -> [(text: String, isMatch: Bool)] {
        switch kind {
        case .literal(let literal): cutAtLiteral(text, literal)
        case .regex(let regex): cutAtRegex(text, regex)
        }
    }

    func replaced(_ text: String, by content: String) -> String {
        cut(text).map { $0.isMatch ? content : $0.text }.joined()
    }
}

private func cutAtRegex(_ text: String, _ regex: NSRegularExpression) -> [(text: String, isMatch: Bool)] {
    let whole = NSString(string: text)
    var pieces: [(text: String, isMatch: Bool)] = []
    var done = 0
    func add(_ end: Int, _ isMatch: Bool) {
        if end > done { pieces.append((whole.substring(with: NSRange(location: done, length: end - done)), isMatch)) }
        done = max(done, end)
    }
    for match in regex.matches(in: text, range: NSRange(location: 0, length: whole.length)) where match.range.length > 0
    {
        add(match.range.location, false)
        add(match.range.location + match.range.length, true)
    }
    add(whole.length, false)
    return pieces
}

private func cutAtLiteral(_ text: String, _ literal: [UInt8]) -> [(text: String, isMatch: Bool)] {
    let bytes = Array(text.utf8)
    var pieces: [(text: String, isMatch: Bool)] = []
    var (start, at) = (0, 0)
    func add(_ range: Range<Int>, _ isMatch: Bool) {
        if !range.isEmpty { pieces.append((String(decoding: bytes[range], as: UTF8.self), isMatch)) }
    }
    while at < bytes.count {
        if !literal.isEmpty, bytes[at...].starts(with: literal) {
            add(start..<at, false)
            add(at..<at + literal.count, true)
            at += literal.count
            start = at
        } else {
            at += 1
        }
    }
    add(start..<at, false)
    return pieces
}

/// The pattern with \s and \S spelled out: ICU's \s lacks U+000B and U+0085, which Oniguruma's has.
private func withUnicodeSpaces(_ pattern: String) -> String {
    let space = #"\t\n\x{0B}\f\r\x{85}\p{Z}"#
    var found = ""
    var insideClass = false
    var characters = Array(pattern.unicodeScalars)[...]
    while let character = characters.popFirst() {
        if character == "\\", let escaped = characters.popFirst() {
            switch escaped {
            case "s": found += insideClass ? space : "[\(space)]"
            case "S": found += "[^\(space)]"
            default: found += "\\" + String(escaped)
            }
            continue
        }
        if character == "[" { insideClass = true }
        if character == "]" { insideClass = false }
        found.unicodeScalars.append(character)
    }
    return found
}

/// What becomes of the places where a pattern matches.
enum SplitBehavior: String {
    case removed = "Removed"
    case isolated = "Isolated"
    case contiguous = "Contiguous"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"

    func apply(_ pieces: [(text: String, isMatch: Bool)]) -> [String] {
        switch self {
        case .removed: return pieces.filter { !$0.isMatch }.map(\.text)
        case .isolated: return pieces.map(\.text)
        case .contiguous: return joined(pieces) { $0.isMatch == $1.isMatch }
        case .mergedWithPrevious: return joined(pieces) { !$0.isMatch && $1.isMatch }
        case .mergedWithNext: return joined(pieces) { $0.isMatch && !$1.isMatch }
        }
    }

    /// Neighbours joined where the rule says so of the last and the next.
    private func joined(
        _ pieces: [(text: String, isMatch: Bool)],
        _ belong: ((text: String, isMatch: Bool), (text: String, isMatch: Bool)) -> Bool
    ) -> [String] {
        var found: [String] = []
        for (i, piece) in pieces.enumerated() {
            if i > 0, belong(pieces[i - 1], piece) {
                found[found.count - 1] += piece.text
            } else {
                found.append(piece.text)
            }
        }
        return found
    }
}
