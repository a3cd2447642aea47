import Foundation

/// JSON with sorted keys, two spaces of indentation and a newline at the end, as runtime/strict_json.py writes it.
public func canonicalJson(_ value: Json) -> Data {
    var text = ""
    write(value, indentation: "\n", to: &text)
    return Data((text + "\n").utf8)
}

/// JSON on one line, as Python's json.dumps writes it; with `indent`, on several. Keys keep their order.
func plainJson(_ value: Json, indent: Int? = nil, indentation: String = "\n") -> String {
    let inner = indentation + String(repeating: " ", count: indent ?? 0)
    let (open, comma, close) = indent == nil ? ("", ", ", "") : (inner, "," + inner, indentation)
    switch value {
    case .array(let values) where !values.isEmpty:
        let items = values.map { plainJson($0, indent: indent, indentation: inner) }
        return "[" + open + items.joined(separator: comma) + close + "]"
    case .object(let object) where !object.entries.isEmpty:
        let items = object.entries.map {
            quoted($0.key) + ": " + plainJson($0.value, indent: indent, indentation: inner)
        }
        return "{" + open + items.joined(separator: comma) + close + "}"
    default:
        return leaf(value)
    }
}

private func write(_ value: Json, indentation: String, to text: inout String) {
    let inner = indentation + "  "
    switch value {
    case .array(let values) where !values.isEmpty:
        for (i, item) in values.enumerated() {
            text += (i == 0 ? "[" : ",") + inner
            write(item, indentation: inner, to: &text)
        }
        text += indentation + "]"
    case .object(let object) where !object.entries.isEmpty:
        let sorted = object.entries.sorted { $0.key.unicodeScalars.lexicographicallyPrecedes($1.key.unicodeScalars) }
        for (i, entry) in sorted.enumerated() {
            text += (i == 0 ? "{" : ",") + inner + quoted(entry.key) + ": "
            write(entry.value, indentation: inner, to: &text)
        }
        text += indentation + "}"
    default:
        text += leaf(value)
    }
}

private func leaf(_ value: Json) -> String {
    switch value {
    case .null: "null"
    case .bool(let flag): flag ? "true" : "false"
    case .integer(let number): String(number)
    case .number(let number): number.isFinite ? number.description : "null"
    case .string(let text): quoted(text)
    case .array: "[]"
    case .object: "{}"
    }
}

func quoted(_ text: String) -> String {
    var found = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": found += "\\\""
        case "\\": found += "\\\\"
        case "\n": found += "\\n"
        case "\r": found += "\\r"
        case "\t": found += "\\t"
        case "\u{8}": found += "\\b"
        case "\u{c}": found += "\\f"
        case ..<" ": found += "\\u" + padded(String(scalar.value, radix: 16), to: 4)
        default: found.unicodeScalars.append(scalar)
        }
    }
    return found + "\""
}

func padded(_ text: String, to length: Int) -> String {
    String(repeating: "0", count: max(0, length - text.count)) + text
}
