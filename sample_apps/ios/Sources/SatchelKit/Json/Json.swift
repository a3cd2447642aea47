/// A JSON value. Objects keep the order of their keys.
///
/// Keys and strings are compared byte by byte: Swift's `==` takes "é" in one and in two code points for equal, and a
/// tokenizer's vocabulary may hold both.
public enum Json: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([Json])
    case object(JsonObject)
}

public struct JsonObject: Sendable {
    public struct Entry: Sendable {
        public let key: String
        public let value: Json
    }

    public var entries: [Entry]

    public init(_ entries: [(String, Json)] = []) {
        self.entries = entries.map { Entry(key: $0.0, value: $0.1) }
    }

    public subscript(key: String) -> Json? {
        entries.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
    }

    public var keys: [String] { entries.map(\.key) }
}

extension Json {
    public var isNull: Bool { if case .null = self { true } else { false } }
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var integer: Int? { if case .integer(let value) = self { value } else { nil } }
    public var array: [Json]? { if case .array(let value) = self { value } else { nil } }
    public var object: JsonObject? { if case .object(let value) = self { value } else { nil } }

    public var number: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    public subscript(key: String) -> Json? { object?[key] }

    /// For messages.
    var summary: String {
        switch self {
        case .null: "null"
        case .bool(let value): String(value)
        case .integer(let value): String(value)
        case .number(let value): String(value)
        case .string(let value): value
        case .array(let values): "a list of \(values.count)"
        case .object(let value): "an object of \(value.entries.count) keys"
        }
    }
}

/// Bytes as a key of a dictionary: what is equal is what is written alike.
struct Bytes: Hashable, Sendable {
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }
    init(_ bytes: ArraySlice<UInt8>) { self.bytes = Array(bytes) }
    init(_ text: String) { bytes = Array(text.utf8) }

    func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }
}
