/// Stand-ins for control tokens that a conversation spells out, so that user text cannot pass for them.
///
/// They are replaced by one rare character each before rendering, and put back when the pieces of the rendered text are
/// encoded, as the characters that they are made of. runtime/chat.py is its twin.
public struct Guard {
    private let standIns: [(token: String, standIn: String)]

    private static let rare: ClosedRange<UInt32> = 0x12000...0x12399  // cuneiform: printable, without case, as it is

    /// Throws a UsageError: too many are spelled out.
    public init(_ messages: [Message], controls: [String]) throws {
        let text = messages.map { $0.role + "\0" + $0.content }.joined(separator: "\0")
        let used = controls.filter { !$0.isEmpty && find($0, in: text) != nil }.sorted(by: longestFirst)
        let present = Set(text.unicodeScalars)
        let free = Self.rare.lazy.compactMap(Unicode.Scalar.init).filter { !present.contains($0) }.map { String($0) }
        let chosen = Array(free.prefix(used.count))
        guard chosen.count == used.count else {
            throw usageError("a conversation spells out too many control tokens", got: used.count, wanted: chosen.count)
        }
        standIns = Array(zip(used, chosen))
    }

    public var isIdle: Bool { standIns.isEmpty }

    public func hide(_ messages: [Message]) -> [Message] {
        messages.map { Message(role: hidden($0.role), content: hidden($0.content)) }
    }

    private func hidden(_ text: String) -> String {
        standIns.reduce(text) { replaced($0, $1.token, by: $1.standIn) }
    }

    /// Text with the spellings put back.
    func shown(_ text: String) -> String {
        standIns.reduce(text) { replaced($0, $1.standIn, by: $1.token) }
    }
}

private func longestFirst(_ a: String, _ b: String) -> Bool {
    let (a, b) = (a.unicodeScalars, b.unicodeScalars)
    return a.count != b.count ? a.count > b.count : a.lexicographicallyPrecedes(b)
}

/// A conversation -> ids, ready for the answer.
public func encodeChat(_ tokenizer: Tokenizer, _ template: ChatTemplate, _ messages: [Message]) throws -> [Int] {
    let shield = try Guard(messages, controls: tokenizer.controls.map(\.token))
    return try encodeGuarded(tokenizer, try template.render(shield.hide(messages)), shield)
}

/// Ids of rendered text; only control tokens that the template itself wrote become control ids.
public func encodeGuarded(_ tokenizer: Tokenizer, _ text: String, _ shield: Guard) throws -> [Int] {
    if shield.isIdle { return try tokenizer.encode(text) }
    return try splitAtControls(text, tokenizer.controls).flatMap { piece, control in
        try control.map { [$0] } ?? tokenizer.encodeLiterally(shield.shown(piece))
    }
}

/// Text cut at control tokens, leftmost and longest first: the piece, and its id, or nil for text between them.
func splitAtControls(_ text: String, _ controls: [(token: String, id: Int)]) -> [(piece: String, id: Int?)] {
    let bytes = Array(text.utf8)
    let spellings = controls.map { (bytes: Array($0.token.utf8), id: $0.id) }.filter { !$0.bytes.isEmpty }
        .sorted { $0.bytes.count > $1.bytes.count }
    var pieces: [(piece: String, id: Int?)] = []
    var (done, at) = (0, 0)
    func addText(_ end: Int) {
        if done < end { pieces.append((String(decoding: bytes[done..<end], as: UTF8.self), nil)) }
    }
    while at < bytes.count {
        if let control = spellings.first(where: { bytes[at...].starts(with: $0.bytes) }) {
            addText(at)
            at += control.bytes.count
            pieces.append((String(decoding: control.bytes, as: UTF8.self), control.id))
            done = at
        } else {
            at += 1
        }
    }
    addText(bytes.count)
    return pieces
}
