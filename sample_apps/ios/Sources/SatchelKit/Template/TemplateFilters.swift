import Foundation

/// Jinja's filters, as far as chat templates have them.
func applyFilter(_ name: String, _ value: Value, _ arguments: Arguments) throws -> Value {
    if let found = try textFilter(name, value, arguments) ?? listFilter(name, value, arguments) { return found }
    switch name {
    case "default", "d":
        let standard = arguments.value(0, "default_value") ?? .string("")
        let alsoFalse = arguments.value(1, "boolean")?.isTrue ?? false
        return value.isUndefined || (alsoFalse && !value.isTrue) ? standard : value
    case "length", "count": return .integer(try value.count())
    case "tojson":
        let json = try value.json()
        let sorts = arguments.named.first { $0.name == "sort_keys" }?.value.isTrue ?? false
        return .string(
            plainJson(sorts ? sorted(json) : json, indent: arguments.named.first { $0.name == "indent" }?.value.integer)
        )
    case "string": return .string(value.text)
    case "safe", "mark_safe": return value
    case "int": return .integer(wholeNumber(value) ?? arguments.value(0, "default")?.integer ?? 0)
    case "float":
        return .number(value.number ?? value.string.flatMap(Double.init) ?? arguments.value(0, "default")?.number ?? 0)
    case "abs":
        guard let number = value.number else { throw TemplateError("abs of what is no number") }
        return value.integer.map { .integer(abs($0)) } ?? .number(abs(number))
    case "round":
        guard let number = value.number else { throw TemplateError("round of what is no number") }
        let scale = pow(10, Double(arguments.value(0, "precision")?.integer ?? 0))
        return .number((number * scale).rounded(.toNearestOrEven) / scale)
    case "attr": return method(value, try arguments.needed(0).text) ?? .undefined("that attribute")
    case "wordcount": return .integer(value.text.unicodeScalars.split { !isOfWord($0) }.count)
    case "items": return value.isUndefined ? .list([]) : try pairs(value)
    case "dictsort":
        return .list(
            try pairs(value).items().sorted {
                try item($0, .integer(0)).text.lowercased() < item($1, .integer(0)).text.lowercased()
            })
    default: throw TemplateError("the filter \(name) is not known")
    }
}

private func textFilter(_ name: String, _ value: Value, _ arguments: Arguments) throws -> Value? {
    switch name {
    case "trim": return try called(.string(value.text), "strip", arguments)
    case "upper", "lower", "title", "capitalize": return try called(.string(value.text), name, Arguments())
    case "replace": return try called(.string(value.text), name, arguments)
    case "escape", "e":
        let marks = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ("\"", "&#34;")]
        return .string(marks.reduce(value.text) { replaced($0, $1.0, by: $1.1) })
    case "indent":
        let width = arguments.value(0, "width")
        let blanks = width?.string ?? String(repeating: " ", count: min(max(width?.integer ?? 4, 0), 1000))
        let (first, blank) = (
            arguments.value(1, "first")?.isTrue ?? false, arguments.value(2, "blank")?.isTrue ?? false
        )
        let indented = split(value.text, at: "\n").enumerated().map { i, line in
            (i == 0 ? first : blank || !line.isEmpty) ? blanks + line : line
        }
        return .string(indented.joined(separator: "\n"))
    default: return nil
    }
}

private func listFilter(_ name: String, _ value: Value, _ arguments: Arguments) throws -> Value? {
    switch name {
    case "first": return try value.items().first ?? .undefined("the first item")
    case "last": return try value.items().last ?? .undefined("the last item")
    case "list": return .list(try value.items())
    case "reverse":
        return value.string == nil
            ? .list(try value.items().reversed()) : .string(try value.items().reversed().map(\.text).joined())
    case "join":
        let items = try mapped(value.items(), arguments.value(1, "attribute"))
        return .string(items.map(\.text).joined(separator: arguments.value(0, "d")?.text ?? ""))
    case "sort":
        let key = arguments.value(2, "attribute")
        let ordered = try value.items().sorted { try precedes(mapped([$0], key)[0], mapped([$1], key)[0]) }
        return .list(arguments.value(0, "reverse")?.isTrue == true ? ordered.reversed() : ordered)
    case "unique":
        return .list(
            try value.items().reduce(into: []) { found, item in
                if !found.contains(where: { equal($0, item) }) { found.append(item) }
            })
    case "sum":
        return try mapped(value.items(), arguments.value(0, "attribute")).reduce(.integer(0)) {
            try binary("+", $0, $1)
        }
    case "min": return try value.items().min(by: precedes) ?? .undefined("the smallest item")
    case "max": return try value.items().max(by: precedes) ?? .undefined("the largest item")
    case "map":
        if let key = arguments.named.first(where: { $0.name == "attribute" })?.value {
            let standard = arguments.named.first { $0.name == "default" }?.value
            return .list(try mapped(value.items(), key).map { $0.isUndefined ? standard ?? $0 : $0 })
        }
        let rest = Arguments(positional: Array(arguments.positional.dropFirst()), named: arguments.named)
        return .list(try value.items().map { try applyFilter(try arguments.needed(0).text, $0, rest) })
    case "select", "reject": return .list(try chosen(value.items(), by: nil, arguments, keeps: name == "select"))
    case "selectattr", "rejectattr":
        let rest = Arguments(positional: Array(arguments.positional.dropFirst()), named: arguments.named)
        return .list(try chosen(value.items(), by: try arguments.needed(0), rest, keeps: name == "selectattr"))
    default: return nil
    }
}

private func called(_ value: Value, _ name: String, _ arguments: Arguments) throws -> Value {
    guard case .function(let function)? = method(value, name) else { throw TemplateError("\(name) is not known") }
    return try function(arguments)
}

/// The attributes of items, such as "function.name"; the items themselves without a key.
private func mapped(_ items: [Value], _ key: Value?) throws -> [Value] {
    guard let key else { return items }
    guard let path = key.string else { return try items.map { try item($0, key) } }
    return try items.map {
        try split(path, at: ".").reduce($0) { try item($0, Int($1).map(Value.integer) ?? .string($1)) }
    }
}

/// Items that pass, or do not pass, a test, which is by default whether they are true.
private func chosen(_ items: [Value], by key: Value?, _ arguments: Arguments, keeps: Bool) throws -> [Value] {
    try items.filter { candidate in
        let value = try mapped([candidate], key)[0]
        guard let name = arguments.positional.first else { return value.isTrue == keeps }
        let rest = Arguments(positional: Array(arguments.positional.dropFirst()), named: [])
        return try test(value, name.text, rest) == keeps
    }
}

private func pairs(_ value: Value) throws -> Value {
    guard case .dictionary(let entries) = value else { throw TemplateError("only a dictionary has items") }
    return .list(entries.map { .tuple([.string($0.key), $0.value]) })
}

private func sorted(_ json: Json) -> Json {
    switch json {
    case .array(let items): return .array(items.map(sorted))
    case .object(let object):
        let entries = object.entries.sorted { $0.key.unicodeScalars.lexicographicallyPrecedes($1.key.unicodeScalars) }
        return .object(JsonObject(entries.map { ($0.key, sorted($0.value)) }))
    default: return json
    }
}

private func wholeNumber(_ value: Value) -> Int? {
    if let text = value.string {
        return Int(trimmed(text)) ?? Double(trimmed(text)).flatMap { Int(exactly: $0.rounded(.towardZero)) }
    }
    return value.integer ?? value.number.flatMap { Int(exactly: $0.rounded(.towardZero)) }
}

/// Jinja's tests: `value is name`.
func test(_ value: Value, _ name: String, _ arguments: Arguments) throws -> Bool {
    switch name {
    case "defined": return !value.isUndefined
    case "undefined": return value.isUndefined
    case "none": if case .none = value { return true } else { return false }
    case "string": return value.string != nil
    case "boolean": if case .bool = value { return true } else { return false }
    case "true": if case .bool(true) = value { return true } else { return false }
    case "false": if case .bool(false) = value { return true } else { return false }
    case "integer": if case .integer = value { return true } else { return false }
    case "float": if case .number = value { return true } else { return false }
    case "number": return value.number != nil
    case "mapping": if case .dictionary = value { return true } else { return false }
    case "sequence", "iterable":
        switch value {
        case .string, .list, .tuple, .dictionary: return true
        case .undefined: return name == "iterable"
        default: return false
        }
    case "callable": if case .function = value { return true } else { return false }
    case "odd", "even", "divisibleby":
        let divisor = name == "divisibleby" ? try arguments.needed(0) : .integer(2)
        return try binary("%", value, divisor).isTrue == (name == "odd")
    case "eq", "equalto": return equal(value, try arguments.needed(0))
    case "sameas": return equal(value, try arguments.needed(0))
    case "ne": return !equal(value, try arguments.needed(0))
    case "lt", "lessthan": return try precedes(value, arguments.needed(0))
    case "gt", "greaterthan": return try precedes(arguments.needed(0), value)
    case "le": return try !precedes(arguments.needed(0), value)
    case "ge": return try !precedes(value, arguments.needed(0))
    case "in": return try contains(arguments.needed(0), value)
    case "lower": return value.text == value.text.lowercased()
    case "upper": return value.text == value.text.uppercased()
    default: throw TemplateError("the test \(name) is not known")
    }
}
