/// Tokens -> what is to be joined to a text.
protocol TokenDecoder: Sendable {
    func decode(_ tokens: [String]) -> [String]
}

/// A "decoder" of tokenizer.json. Throws a TokenizerError for a kind that is not known.
func readDecoder(_ value: Json) throws -> any TokenDecoder {
    let type = value["type"]?.string ?? "none"
    switch type {
    case "Sequence":
        let parts = try (value["decoders"]?.array ?? []).map(readDecoder)
        return Whole { tokens in parts.reduce(tokens) { $1.decode($0) } }
    case "ByteLevel":
        return Whole { [String(decoding: $0.flatMap(ByteAlphabet.bytes(of:)), as: UTF8.self)] }
    case "ByteFallback": return Whole(joiningBytes)
    case "Fuse": return Whole { [$0.joined()] }
    case "Metaspace": return metaspace(value)
    case "Replace":
        let (pattern, content) = (try Pattern(value["pattern"]), value["content"]?.string ?? "")
        return Whole { $0.map { pattern.replaced($0, by: content) } }
    case "Strip":
        let content = value["content"]?.string?.unicodeScalars.first ?? " "
        let (start, stop) = (value["start"]?.integer ?? 0, value["stop"]?.integer ?? 0)
        return Whole { $0.map { stripped($0, content, start, stop) } }
    default:
        throw unknownPart("decoder", type)
    }
}

private struct Whole: TokenDecoder {
    let change: @Sendable ([String]) -> [String]
    init(_ change: @escaping @Sendable ([String]) -> [String]) { self.change = change }
    func decode(_ tokens: [String]) -> [String] { change(tokens) }
}

private func metaspace(_ value: Json) -> Whole {
    let replacement = value["replacement"]?.string?.unicodeScalars.first ?? "▁"
    let dropsFirst = PrependScheme(value) != .never
    return Whole { tokens in
        tokens.enumerated().map { index, token in
            let scalars = token.unicodeScalars.compactMap { scalar -> Unicode.Scalar? in
                scalar != replacement ? scalar : index == 0 && dropsFirst ? nil : " "
            }
            return String(String.UnicodeScalarView(scalars))
        }
    }
}

/// Neighbouring tokens such as "<0xE2>" become characters; broken ones a replacement character for each byte.
@Sendable private func joiningBytes(_ tokens: [String]) -> [String] {
    var found: [String] = []
    var bytes: [UInt8] = []
    func finish() {
        if bytes.isEmpty { return }
        if isUtf8(bytes) {
            found.append(String(decoding: bytes, as: UTF8.self))
        } else {
            found += bytes.map { _ in "\u{FFFD}" }
        }
        bytes = []
    }
    for token in tokens {
        if let byte = byte(of: token) {
            bytes.append(byte)
        } else {
            finish()
            found.append(token)
        }
    }
    finish()
    return found
}

private func byte(of token: String) -> UInt8? {
    let spelling = Array(token.utf8)
    guard spelling.count == 6, spelling.starts(with: "<0x".utf8), spelling[5] == UInt8(ascii: ">") else { return nil }
    return UInt8(String(decoding: spelling[3..<5], as: UTF8.self), radix: 16)
}

private func stripped(_ token: String, _ content: Unicode.Scalar, _ start: Int, _ stop: Int) -> String {
    let scalars = Array(token.unicodeScalars)
    let left = scalars.prefix(start).prefix { $0 == content }.count
    let right = scalars.suffix(stop).reversed().prefix { $0 == content }.count
    return String(String.UnicodeScalarView(scalars[left..<max(left, scalars.count - right)]))
}
