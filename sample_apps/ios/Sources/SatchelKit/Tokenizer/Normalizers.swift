import Foundation

/// Text as the model's vocabulary spells it.
protocol Normalizer: Sendable {
    func normalize(_ text: String) -> String
}

/// A "normalizer" of tokenizer.json. Throws a TokenizerError for a kind that is not known.
func readNormalizer(_ value: Json) throws -> any Normalizer {
    let type = value["type"]?.string ?? "none"
    switch type {
    case "Sequence": return NormalizerSequence(parts: try (value["normalizers"]?.array ?? []).map(readNormalizer))
    case "NFC": return UnicodeForm { $0.precomposedStringWithCanonicalMapping }
    case "NFD": return UnicodeForm { $0.decomposedStringWithCanonicalMapping }
    case "NFKC": return UnicodeForm { $0.precomposedStringWithCompatibilityMapping }
    case "NFKD": return UnicodeForm { $0.decomposedStringWithCompatibilityMapping }
    case "Lowercase": return UnicodeForm { text in text.unicodeScalars.map(\.properties.lowercaseMapping).joined() }
    case "StripAccents": return UnicodeForm(withoutMarks)
    case "Strip":
        let (left, right) = (value["strip_left"]?.bool ?? false, value["strip_right"]?.bool ?? false)
        return UnicodeForm { trimmed($0, left: left, right: right) }
    case "Prepend":
        let prefix = value["prepend"]?.string ?? ""
        return UnicodeForm { $0.isEmpty ? $0 : prefix + $0 }
    case "Replace":
        let (pattern, content) = (try Pattern(value["pattern"]), value["content"]?.string ?? "")
        return UnicodeForm { pattern.replaced($0, by: content) }
    default:
        throw unknownPart("normalizer", type)
    }
}

func unknownPart(_ what: String, _ type: String) -> SatchelError {
    tokenizerError("this app does not know the tokenizer's \(what)", got: type, hint: "use another model")
}

private struct UnicodeForm: Normalizer {
    let change: @Sendable (String) -> String
    init(_ change: @escaping @Sendable (String) -> String) { self.change = change }
    func normalize(_ text: String) -> String { change(text) }
}

private struct NormalizerSequence: Normalizer {
    let parts: [any Normalizer]
    func normalize(_ text: String) -> String { parts.reduce(text) { $1.normalize($0) } }
}

@Sendable private func withoutMarks(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.filter { $0.properties.generalCategory != .nonspacingMark }))
}

func trimmed(_ text: String, left: Bool = true, right: Bool = true) -> String {
    var scalars = text.unicodeScalars[...]
    while left, let first = scalars.first, first.properties.isWhitespace { scalars.removeFirst() }
    while right, let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
    return String(scalars)
}
