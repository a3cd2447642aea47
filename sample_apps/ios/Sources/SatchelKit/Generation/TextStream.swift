/// Ids -> text as they come: whole characters only. runtime/generate.py is its twin.
///
/// A token may end in the middle of a character, and its text may depend on the one before it (a leading space): text
/// is held back while it ends in a broken character, and always decoded with what precedes.
public struct TextStream {
    private let tokenizer: Tokenizer
    private var ids: [Int] = []
    private var context = 0  // ids[context..<done] were given out already, and are decoded again for what follows them
    private var done = 0

    private static let broken: Unicode.Scalar = "\u{FFFD}"

    public init(_ tokenizer: Tokenizer) { self.tokenizer = tokenizer }

    /// The text that this id completes; may be empty.
    public mutating func push(_ id: Int) -> String {
        ids.append(id)
        let text = newText()
        guard let last = text.unicodeScalars.last, last != Self.broken else { return "" }
        (context, done) = (done, ids.count)
        return text
    }

    /// What is held back at the end; bytes of a character that never was completed are dropped.
    public mutating func flush() -> String {
        var text = newText().unicodeScalars
        while text.last == Self.broken { text.removeLast() }
        (context, done) = (ids.count, ids.count)
        return String(text)
    }

    /// Counted in code points: a mark that follows a letter would be one Character with it.
    private func newText() -> String {
        let before = tokenizer.decode(ids[context..<done]).unicodeScalars.count
        return String(String.UnicodeScalarView(tokenizer.decode(ids[context...]).unicodeScalars.dropFirst(before)))
    }
}
