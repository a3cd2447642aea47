import Foundation

/// The kinds of error that a person may see, of the set in runtime/errors.py.
public enum ErrorKind: String, Sendable {
    case bundle = "BundleError"
    case tokenizer = "TokenizerError"
    case format = "FormatError"
    case usage = "UsageError"
    case output = "OutputError"
}

/// Says what, the value got and the value wanted, and a next step.
public struct SatchelError: Error, LocalizedError, CustomStringConvertible, Sendable {
    public let kind: ErrorKind
    public let what: String
    public let got: String?
    public let wanted: String?
    public let hint: String?

    public var description: String {
        let parts = [what, got.map { "got \($0)" }, wanted.map { "wanted \($0)" }].compactMap { $0 }
        let advice = hint.map { ". " + $0.prefix(1).uppercased() + $0.dropFirst() + "." } ?? ""
        return parts.joined(separator: "; ") + advice
    }

    public var errorDescription: String? { description }

    init(_ kind: ErrorKind, _ what: String, _ got: Any?, _ wanted: Any?, _ hint: String?) {
        self.kind = kind
        self.what = what
        self.got = got.map(short)
        self.wanted = wanted.map(short)
        self.hint = hint
    }
}

public func bundleError(_ what: String, got: Any? = nil, wanted: Any? = nil, hint: String? = nil) -> SatchelError {
    SatchelError(.bundle, what, got, wanted, hint)
}

public func tokenizerError(_ what: String, got: Any? = nil, wanted: Any? = nil, hint: String? = nil) -> SatchelError {
    SatchelError(.tokenizer, what, got, wanted, hint)
}

public func formatError(_ what: String, got: Any? = nil, wanted: Any? = nil, hint: String? = nil) -> SatchelError {
    SatchelError(.format, what, got, wanted, hint)
}

public func usageError(_ what: String, got: Any? = nil, wanted: Any? = nil, hint: String? = nil) -> SatchelError {
    SatchelError(.usage, what, got, wanted, hint)
}

public func outputError(_ what: String, got: Any? = nil, wanted: Any? = nil, hint: String? = nil) -> SatchelError {
    SatchelError(.output, what, got, wanted, hint)
}

/// What any error says, on one line, for a message.
public func reason(of error: Error) -> String {
    let text = (error as? SatchelError)?.description ?? error.localizedDescription
    return text.split(whereSeparator: \.isNewline).first.map(String.init) ?? String(describing: error)
}

private func short(_ value: Any) -> String {
    let text = String(describing: value)
    return text.count <= 200 ? text : text.prefix(197) + "..."
}
