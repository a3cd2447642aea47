/// A value of a template, with Python's meanings.
indirect enum Value {
    case undefined(String)
    case none
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case list([Value])
    case tuple([Value])
    case dictionary([(key: String, value: Value)])
    case namespace(Namespace)
    case function((Arguments) throws -> Value)

    init(_ json: Json) {
        switch json {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(value)
        case .number(let value): self = .number(value)
        case .string(let value): self = .string(value)
        case .array(let values): self = .list(values.map(Value.init))
        case .object(let object): self = .dictionary(object.entries.map { ($0.key, Value($0.value)) })
        }
    }
}

/// What `namespace()` makes: a set of variables that inner scopes may change.
final class Namespace {
    var values: [String: Value] = [:]
}

struct Arguments {
    var positional: [Value] = []
    var named: [(name: String, value: Value)] = []

    /// By place or by name; nil where it was not given.
    func value(_ index: Int, _ name: String) -> Value? {
        index < positional.count ? positional[index] : named.first { $0.name == name }?.value
    }
}

/// What a template does that it may not, or by which it refuses a conversation.
struct TemplateError: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

extension Value {
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .integer(let value): value != 0
        case .number(let value): value != 0
        case .string(let value): !value.utf8.isEmpty
        case .list(let values), .tuple(let values): !values.isEmpty
        case .dictionary(let entries): !entries.isEmpty
        case .namespace, .function: true
        }
    }

    var isUndefined: Bool { if case .undefined = self { true } else { false } }
    var string: String? { if case .string(let value) = self { value } else { nil } }

    /// As an integer where Python takes one: booleans too.
    var integer: Int? {
        switch self {
        case .integer(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    var number: Double? {
        if case .number(let value) = self { value } else { integer.map(Double.init) }
    }

    /// What `{{ }}` writes.
    var text: String {
        switch self {
        case .undefined: ""
        case .string(let value): value
        default: representation
        }
    }

    /// As Python's repr says it.
    var representation: String {
        switch self {
        case .undefined, .none: "None"
        case .bool(let value): value ? "True" : "False"
        case .integer(let value): String(value)
        case .number(let value): value.description
        case .string(let value): pythonQuoted(value)
        case .list(let values): "[" + values.map(\.representation).joined(separator: ", ") + "]"
        case .tuple(let values):
            "(" + values.map(\.representation).joined(separator: ", ") + (values.count == 1 ? ",)" : ")")
        case .dictionary(let entries):
            "{" + entries.map { pythonQuoted($0.key) + ": " + $0.value.representation }.joined(separator: ", ") + "}"
        case .namespace: "<Namespace>"
        case .function: "<function>"
        }
    }

    /// As JSON, for `tojson`.
    func json() throws -> Json {
        switch self {
        case .undefined(let name): throw TemplateError("\(name) is undefined")
        case .none: return .null
        case .bool(let value): return .bool(value)
        case .integer(let value): return .integer(value)
        case .number(let value): return .number(value)
        case .string(let value): return .string(value)
        case .list(let values), .tuple(let values): return .array(try values.map { try $0.json() })
        case .dictionary(let entries): return .object(JsonObject(try entries.map { ($0.key, try $0.value.json()) }))
        case .namespace, .function: throw TemplateError("\(representation) is no JSON")
        }
    }

    /// What `for` goes through.
    func items() throws -> [Value] {
        switch self {
        case .undefined: return []
        case .list(let values), .tuple(let values): return values
        case .dictionary(let entries): return entries.map { .string($0.key) }
        case .string(let text): return text.unicodeScalars.map { .string(String($0)) }
        default: throw TemplateError("\(representation) cannot be gone through")
        }
    }

    func count() throws -> Int {
        switch self {
        case .list(let values), .tuple(let values): return values.count
        case .dictionary(let entries): return entries.count
        case .string(let text): return text.unicodeScalars.count
        case .undefined: return 0
        default: throw TemplateError("\(representation) has no length")
        }
    }
}

/// Python's equality.
func equal(_ a: Value, _ b: Value) -> Bool {
    switch (a, b) {
    case (.undefined, .undefined), (.none, .none): return true
    case (.string(let a), .string(let b)): return a.utf8.elementsEqual(b.utf8)
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
        return a.count == b.count && zip(a, b).allSatisfy(equal)
    case (.dictionary(let a), .dictionary(let b)):
        return a.count == b.count
            && a.allSatisfy { entry in
                b.contains { $0.key.utf8.elementsEqual(entry.key.utf8) && equal($0.value, entry.value) }
            }
    default:
        guard let a = a.number, let b = b.number else { return false }
        return a == b
    }
}

/// Python's order of numbers, texts and lists.
func precedes(_ a: Value, _ b: Value) throws -> Bool {
    if let a = a.number, let b = b.number { return a < b }
    if let a = a.string, let b = b.string { return a.unicodeScalars.lexicographicallyPrecedes(b.unicodeScalars) }
    throw TemplateError("\(a.representation) and \(b.representation) have no order")
}

private func pythonQuoted(_ text: String) -> String {
    let quote: Unicode.Scalar = text.unicodeScalars.contains("'") && !text.unicodeScalars.contains("\"") ? "\"" : "'"
    var found = String(quote)
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\\": found += "\\\\"
        case "\n": found += "\\n"
        case "\r": found += "\\r"
        case "\t": found += "\\t"
        case quote: found += "\\" + String(quote)
        case ..<" ", "\u{7F}": found += "\\x" + padded(String(scalar.value, radix: 16), to: 2)
        default: found.unicodeScalars.append(scalar)
        }
    }
    return found + String(quote)
}
