/// A piece of a template's source.
enum SourcePart {
    case text(String)
    /// Inside {% %}.
    case statement([Token])
    /// Inside {{ }}.
    case output([Token])
}

enum Token: Equatable {
    case name(String)
    case string(String)
    case integer(Int)
    case number(Double)
    case symbol(String)
}

/// Cuts a template's source into text, statements and outputs, with transformers' trim_blocks and lstrip_blocks.
struct TemplateLexer {
    private let source: [Unicode.Scalar]
    private var at = 0
    private var parts: [SourcePart] = []
    private var text: [Unicode.Scalar] = []
    private var trimsNext = false  // after "-%}"
    private var dropsNewline = false  // after "%}"

    static func parts(_ source: String) throws -> [SourcePart] {
        var lexer = TemplateLexer(source: Array(source.unicodeScalars))
        return try lexer.run()
    }

    private init(source: [Unicode.Scalar]) {
        // Jinja's newline is \n, and it drops one at the end.
        var scalars: [Unicode.Scalar] = []
        for (i, scalar) in source.enumerated() {
            if scalar == "\r" {
                scalars.append("\n")
            } else if !(scalar == "\n" && i > 0 && source[i - 1] == "\r") {
                scalars.append(scalar)
            }
        }
        if scalars.last == "\n" { scalars.removeLast() }
        self.source = scalars
    }

    private mutating func run() throws -> [SourcePart] {
        while at < source.count {
            if starts("{%") {
                try statement()
            } else if starts("{{") {
                try output()
            } else if starts("{#") {
                try comment()
            } else {
                take(source[at])
                at += 1
            }
        }
        finishText()
        return parts
    }

    private mutating func take(_ scalar: Unicode.Scalar) {
        if dropsNewline {
            dropsNewline = false
            if scalar == "\n" { return }
        }
        if trimsNext && scalar.properties.isWhitespace { return }
        trimsNext = false
        text.append(scalar)
    }

    private mutating func statement() throws {
        open(isBlock: true)
        let tokens = try tokens(until: "%}")
        if tokens == [.name("raw")] { return try raw() }
        parts.append(.statement(tokens))
        dropsNewline = !trimsNext
    }

    private mutating func output() throws {
        open(isBlock: false)
        parts.append(.output(try tokens(until: "}}")))
        dropsNewline = false
    }

    private mutating func comment() throws {
        open(isBlock: true)
        while !starts("#}") {
            guard at < source.count else { throw TemplateError("a comment without an end") }
            at += 1
        }
        trimsNext = source[at - 1] == "-"
        at += 2
        dropsNewline = !trimsNext
    }

    /// Text up to {% endraw %}, as it stands.
    private mutating func raw() throws {
        dropsNewline = !trimsNext
        while at < source.count {
            let start = at
            if starts("{%") {
                let before = (parts.count, text)
                open(isBlock: true)
                if let tokens = try? tokens(until: "%}"), tokens == [.name("endraw")] {
                    dropsNewline = !trimsNext
                    return
                }
                parts.removeLast(parts.count - before.0)
                (text, at) = (before.1, start)
            }
            take(source[at])
            at += 1
        }
        throw TemplateError("raw without endraw")
    }

    /// Past the opening, with what it does to the text in front.
    private mutating func open(isBlock: Bool) {
        at += 2
        let sign = at < source.count ? source[at] : " "
        if sign == "-" {
            while text.last?.properties.isWhitespace == true { text.removeLast() }
            at += 1
        } else if sign == "+" && isBlock {
            at += 1
        } else if isBlock {
            stripLine()
        }
        finishText()
        (trimsNext, dropsNewline) = (false, false)
    }

    /// Removes blanks between the line's beginning and a block.
    private mutating func stripLine() {
        let blanks = text.reversed().prefix { $0 != "\n" && $0.properties.isWhitespace }.count
        let rest = text.dropLast(blanks)
        let beginsLine = rest.isEmpty ? lineBeganBefore : rest.last == "\n"
        if beginsLine { text = Array(rest) }
    }

    /// Whether what precedes the pending text ended a line: nothing did, or a block's newline was dropped.
    private var lineBeganBefore: Bool {
        let begin = at - 2
        let blanks = source[..<begin].reversed().prefix { $0 != "\n" && $0.properties.isWhitespace }.count
        return begin == blanks || source[begin - blanks - 1] == "\n"
    }

    private mutating func finishText() {
        if !text.isEmpty { parts.append(.text(String(String.UnicodeScalarView(text)))) }
        text = []
    }

    private mutating func tokens(until end: String) throws -> [Token] {
        var found: [Token] = []
        var depth = 0  // "}}" may end two dictionaries
        while at < source.count {
            if source[at].properties.isWhitespace {
                at += 1
                continue
            }
            if depth == 0 {
                if starts("-" + end) {
                    at += 3
                    trimsNext = true
                    return found
                }
                if starts("+" + end) && end == "%}" {
                    at += 3
                    return found
                }
                if starts(end) {
                    at += 2
                    return found
                }
            }
            let token = try token()
            if case .symbol(let symbol) = token {
                if "([{".contains(symbol) { depth += 1 } else if ")]}".contains(symbol) { depth -= 1 }
            }
            found.append(token)
        }
        throw TemplateError("a block without \(end)")
    }

    private mutating func token() throws -> Token {
        let first = source[at]
        if first == "'" || first == "\"" { return .string(try string(first)) }
        if isDigit(first) { return number() }
        if isOfName(first) {
            let name = source[at...].prefix(while: isOfName)
            at += name.count
            return .name(String(String.UnicodeScalarView(name)))
        }
        for symbol in [
            "==", "!=", "<=", ">=", "**", "//", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{",
            "}", ",", ":", ".", "|",
        ]
        where starts(symbol) {
            at += symbol.count
            return .symbol(symbol)
        }
        throw TemplateError("an unexpected character \(first)")
    }

    private mutating func string(_ quote: Unicode.Scalar) throws -> String {
        at += 1
        var found = String.UnicodeScalarView()
        while at < source.count, source[at] != quote {
            if source[at] == "\\", at + 1 < source.count {
                at += 1
                try escape(into: &found)
            } else {
                found.append(source[at])
            }
            at += 1
        }
        guard at < source.count else { throw TemplateError("a string without an end") }
        at += 1
        return String(found)
    }

    /// Stands on what follows the backslash, and ends on the last character of it.
    private mutating func escape(into found: inout String.UnicodeScalarView) throws {
        let simple: [Unicode.Scalar: Unicode.Scalar] = [
            "n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", "\"": "\"", "a": "\u{7}", "b": "\u{8}", "f": "\u{c}",
            "v": "\u{b}", "0": "\0",
        ]
        let digits: [Unicode.Scalar: Int] = ["x": 2, "u": 4, "U": 8]
        if let scalar = simple[source[at]] {
            found.append(scalar)
        } else if let count = digits[source[at]] {
            let code = String(String.UnicodeScalarView(source[(at + 1)...].prefix(count)))
            guard code.count == count, let value = UInt32(code, radix: 16), let scalar = Unicode.Scalar(value) else {
                throw TemplateError("an escape that is no character")
            }
            found.append(scalar)
            at += count
        } else if source[at] != "\n" {
            found.append("\\")
            found.append(source[at])
        }
    }

    private mutating func number() -> Token {
        var text = digits()
        var isInteger = true
        if at + 1 < source.count, source[at] == ".", isDigit(source[at + 1]) {
            at += 1
            text += "." + digits()
            isInteger = false
        }
        let sign = at + 1 < source.count && (source[at + 1] == "+" || source[at + 1] == "-") ? 1 : 0
        if at + 1 + sign < source.count, source[at] == "e" || source[at] == "E", isDigit(source[at + 1 + sign]) {
            text += "e" + (sign == 1 ? String(source[at + 1]) : "")
            at += 1 + sign
            text += digits()
            isInteger = false
        }
        return isInteger ? Int(text).map(Token.integer) ?? .number(.infinity) : .number(Double(text) ?? .infinity)
    }

    /// Those that follow, without the "_" between them.
    private mutating func digits() -> String {
        let found = source[at...].prefix { isDigit($0) || $0 == "_" }
        at += found.count
        return String(String.UnicodeScalarView(found.filter(isDigit)))
    }

    private func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }

    private func isOfName(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "_" || scalar.properties.isAlphabetic || isDigit(scalar)
    }

    private func starts(_ symbol: String) -> Bool {
        source[at...].starts(with: symbol.unicodeScalars)
    }
}
