import Foundation

/// JSON that means the same in every language: UTF-8 without repeated keys, lone surrogates, infinities, or integers
/// beyond 2^53 - 1. runtime/strict_json.py is its twin. Foundation's parser takes the last of repeated keys in silence.
///
/// exactIntegers is off for tokenizers' files, which hold larger ones. Throws a BundleError that names the file.
public func parseJson(_ data: Data, _ what: String, exactIntegers: Bool = true) throws -> Json {
    do {
        let bytes = [UInt8](data)
        guard isUtf8(bytes) else { throw Malformed("bytes that are not UTF-8") }
        return try bytes.withUnsafeBufferPointer { buffer in
            var parser = Parser(bytes: buffer, exactIntegers: exactIntegers)
            return try parser.document()
        }
    } catch let error as Malformed {
        throw bundleError("\(what) is not valid JSON", got: error.reason, hint: "export the bundle again")
    }
}

/// Whether bytes are UTF-8: decoding them repairs nothing.
func isUtf8(_ bytes: [UInt8]) -> Bool {
    String(decoding: bytes, as: UTF8.self).utf8.elementsEqual(bytes)
}

private struct Malformed: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

private let largestInteger = 1 << 53 - 1
private let deepest = 500

private struct Parser {
    let bytes: UnsafeBufferPointer<UInt8>
    let exactIntegers: Bool
    var at = 0
    var depth = 0

    mutating func document() throws -> Json {
        let value = try value()
        skipSpace()
        guard at == bytes.count else { throw unexpected() }
        return value
    }

    private mutating func value() throws -> Json {
        skipSpace()
        guard at < bytes.count else { throw Malformed("the text ends too early") }
        switch bytes[at] {
        case UInt8(ascii: "{"): return try nested { try $0.object() }
        case UInt8(ascii: "["): return try nested { try $0.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func nested(_ parse: (inout Parser) throws -> Json) throws -> Json {
        depth += 1
        defer { depth -= 1 }
        guard depth <= deepest else { throw Malformed("nested too deeply") }
        at += 1
        return try parse(&self)
    }

    private mutating func object() throws -> Json {
        var object = JsonObject()
        var seen = Set<Bytes>()
        if taken("}") { return .object(object) }
        repeat {
            skipSpace()
            guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else { throw unexpected() }
            let key = try string()
            guard seen.insert(Bytes(key)).inserted else { throw Malformed("the key \(key) occurs twice") }
            guard taken(":") else { throw unexpected() }
            object.entries.append(.init(key: key, value: try value()))
        } while taken(",")
        guard taken("}") else { throw unexpected() }
        return .object(object)
    }

    private mutating func array() throws -> Json {
        var values: [Json] = []
        if taken("]") { return .array(values) }
        repeat { values.append(try value()) } while taken(",")
        guard taken("]") else { throw unexpected() }
        return .array(values)
    }

    private mutating func word(_ word: StaticString, _ value: Json) throws -> Json {
        let end = at + word.utf8CodeUnitCount
        guard end <= bytes.count, memcmp(bytes.baseAddress! + at, word.utf8Start, end - at) == 0 else {
            throw unexpected()
        }
        at = end
        return value
    }

    private mutating func number() throws -> Json {
        let start = at
        skip("-")
        guard let first = digit() else { throw unexpected() }
        at += 1
        if first != 0 { skipDigits() } else if digit() != nil { throw unexpected() }
        var isInteger = true
        if skip(".") {
            isInteger = false
            guard digit() != nil else { throw unexpected() }
            skipDigits()
        }
        if skip("e") || skip("E") {
            isInteger = false
            if !skip("+") { skip("-") }
            guard digit() != nil else { throw unexpected() }
            skipDigits()
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if isInteger, let value = Int(text), !exactIntegers || abs(value) <= largestInteger { return .integer(value) }
        if isInteger && exactIntegers { throw Malformed("an integer beyond 2^53 - 1") }
        guard let value = Double(text), value.isFinite else { throw Malformed("a number too large") }
        return .number(value)
    }

    /// After the opening quote up to and with the closing one.
    private mutating func string() throws -> String {
        at += 1
        let start = at
        while at < bytes.count, bytes[at] != UInt8(ascii: "\""), bytes[at] != UInt8(ascii: "\\"), bytes[at] >= 0x20 {
            at += 1
        }
        if at < bytes.count, bytes[at] == UInt8(ascii: "\"") {
            defer { at += 1 }
            return String(decoding: bytes[start..<at], as: UTF8.self)
        }
        return try escapedString(from: start)
    }

    private mutating func escapedString(from start: Int) throws -> String {
        var found = Array(bytes[start..<at])
        while true {
            guard at < bytes.count else { throw Malformed("a string without an end") }
            let byte = bytes[at]
            at += 1
            if byte == UInt8(ascii: "\"") { return String(decoding: found, as: UTF8.self) }
            guard byte >= 0x20 else { throw Malformed("a control character in a string") }
            if byte == UInt8(ascii: "\\") { try found += Array(String(escape()).utf8) } else { found.append(byte) }
        }
    }

    private mutating func escape() throws -> Unicode.Scalar {
        guard at < bytes.count else { throw Malformed("a string without an end") }
        defer { at += 1 }
        switch bytes[at] {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try scalar()
        default: throw unexpected()
        }
    }

    /// \uXXXX, or two of them for a character beyond the first plane. Stands on the u, and ends on the last digit.
    private mutating func scalar() throws -> Unicode.Scalar {
        let first = try fourDigits()
        if let single = Unicode.Scalar(first) { return single }
        guard first < 0xDC00, at + 2 < bytes.count, bytes[at + 1] == UInt8(ascii: "\\"),
            bytes[at + 2] == UInt8(ascii: "u")
        else { throw Malformed("half of a surrogate pair") }
        at += 2
        let second = try fourDigits()
        guard (0xDC00..<0xE000).contains(second) else { throw Malformed("half of a surrogate pair") }
        return Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))!
    }

    private mutating func fourDigits() throws -> UInt32 {
        let digits = bytes[min(at + 1, bytes.count)..<min(at + 5, bytes.count)]
        let hexadecimal = digits.allSatisfy { Character(Unicode.Scalar($0)).isHexDigit }
        guard digits.count == 4, hexadecimal, let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw unexpected() }
        at += 4
        return value
    }

    private func digit() -> UInt8? {
        guard at < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) else { return nil }
        return bytes[at] - UInt8(ascii: "0")
    }

    private mutating func skipDigits() { while digit() != nil { at += 1 } }

    private mutating func skipSpace() {
        while at < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[at]) { at += 1 }
    }

    /// Whether this character comes next; goes past it.
    @discardableResult
    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private mutating func taken(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        return skip(character)
    }

    private func unexpected() -> Malformed {
        at < bytes.count ? Malformed("an unexpected character at byte \(at)") : Malformed("the text ends too early")
    }
}
