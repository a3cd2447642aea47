import Foundation

/// What Python's texts, dictionaries and lists can do, as far as it changes nothing.
func method(_ of: Value, _ name: String) -> Value? {
    switch of {
    case .string(let text): textMethod(text, name)
    case .dictionary(let entries): dictionaryMethod(entries, of, name)
    case .list(let items), .tuple(let items): listMethod(items, name)
    default: nil
    }
}

private func textMethod(_ text: String, _ name: String) -> Value? {
    switch name {
    case "strip", "lstrip", "rstrip":
        return .function { stripped(text, $0.value(0, "chars"), left: name != "rstrip", right: name != "lstrip") }
    case "upper": return .function { _ in .string(text.uppercased()) }
    case "lower": return .function { _ in .string(text.lowercased()) }
    case "title": return .function { _ in .string(titled(text)) }
    case "capitalize": return .function { _ in .string(capitalized(text)) }
    case "split", "rsplit":
        return .function {
            .list(
                try splitWords(
                    text, $0.value(0, "sep"), $0.value(1, "maxsplit")?.integer ?? -1, fromEnd: name == "rsplit"
                ).map(Value.string))
        }
    case "splitlines": return .function { _ in .list(lines(text).map(Value.string)) }
    case "startswith", "endswith":
        return .function { arguments in
            let given = try arguments.needed(0)
            let parts = try given.string.map { [$0] } ?? given.items().map(\.text)
            return .bool(
                parts.contains {
                    name == "startswith"
                        ? text.utf8.starts(with: $0.utf8) : text.utf8.reversed().starts(with: $0.utf8.reversed())
                })
        }
    case "replace":
        return .function { arguments in
            let (old, new) = (try arguments.needed(0).text, try arguments.needed(1).text)
            let most = arguments.value(2, "count")?.integer ?? -1
            return .string(replaced(text, old, by: new, most: most < 0 ? .max : most))
        }
    case "join": return .function { .string(try $0.needed(0).items().map(\.text).joined(separator: text)) }
    case "find": return .function { .integer(find(try $0.needed(0).text, in: text) ?? -1) }
    case "count": return .function { .integer(split(text, at: try $0.needed(0).text).count - 1) }
    case "isdigit", "isnumeric":
        return .function { _ in
            .bool(!text.isEmpty && text.unicodeScalars.allSatisfy { $0.properties.numericType != nil })
        }
    case "isalpha":
        return .function { _ in .bool(!text.isEmpty && text.unicodeScalars.allSatisfy(\.properties.isAlphabetic)) }
    case "isspace":
        return .function { _ in .bool(!text.isEmpty && text.unicodeScalars.allSatisfy(\.properties.isWhitespace)) }
    case "isupper": return .function { _ in .bool(text != text.lowercased() && text == text.uppercased()) }
    case "islower": return .function { _ in .bool(text != text.uppercased() && text == text.lowercased()) }
    case "removeprefix":
        return .function {
            let part = try $0.needed(0).text
            return .string(
                text.utf8.starts(with: part.utf8)
                    ? String(text.unicodeScalars.dropFirst(part.unicodeScalars.count)) : text)
        }
    case "removesuffix":
        return .function {
            let part = try $0.needed(0).text
            return .string(
                text.utf8.reversed().starts(with: part.utf8.reversed())
                    ? String(text.unicodeScalars.dropLast(part.unicodeScalars.count)) : text)
        }
    default: return nil
    }
}

private func dictionaryMethod(_ entries: [(key: String, value: Value)], _ whole: Value, _ name: String) -> Value? {
    switch name {
    case "items": .function { _ in .list(entries.map { .tuple([.string($0.key), $0.value]) }) }
    case "keys": .function { _ in .list(entries.map { .string($0.key) }) }
    case "values": .function { _ in .list(entries.map(\.value)) }
    case "get":
        .function { arguments in
            let key = try arguments.needed(0).string
            return key.flatMap { whole.entry($0) } ?? arguments.value(1, "default") ?? Value.none
        }
    case "pop", "update", "clear", "setdefault", "popitem": refusedChange(name)
    default: nil
    }
}

private func listMethod(_ items: [Value], _ name: String) -> Value? {
    switch name {
    case "index":
        .function { arguments in
            let value = try arguments.needed(0)
            guard let index = items.firstIndex(where: { equal($0, value) }) else {
                throw TemplateError("the list has no such item")
            }
            return .integer(index)
        }
    case "count":
        .function { arguments in
            let value = try arguments.needed(0)
            return .integer(items.filter { equal($0, value) }.count)
        }
    case "append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse": refusedChange(name)
    default: nil
    }
}

private func refusedChange(_ name: String) -> Value {
    .function { _ in throw TemplateError("\(name) would change a value, which templates may not") }
}

extension Arguments {
    func needed(_ index: Int) throws -> Value {
        guard index < positional.count else { throw TemplateError("an argument is missing") }
        return positional[index]
    }
}

private func stripped(_ text: String, _ given: Value?, left: Bool, right: Bool) -> Value {
    let characters = given?.string.map { Set($0.unicodeScalars) }
    func goes(_ scalar: Unicode.Scalar) -> Bool { characters?.contains(scalar) ?? scalar.properties.isWhitespace }
    var scalars = text.unicodeScalars[...]
    while left, let first = scalars.first, goes(first) { scalars.removeFirst() }
    while right, let last = scalars.last, goes(last) { scalars.removeLast() }
    return .string(String(scalars))
}

private func splitWords(_ text: String, _ separator: Value?, _ most: Int, fromEnd: Bool) throws -> [String] {
    let most = most < 0 ? Int.max : most
    guard let mark = separator?.string else {
        let words = text.unicodeScalars.split(maxSplits: most) { $0.properties.isWhitespace }
        return words.map { trimmed(String($0), left: true, right: false) }
    }
    guard !mark.utf8.isEmpty else { throw TemplateError("an empty separator") }
    let pieces = split(text, at: mark, most: fromEnd ? .max : most)
    guard fromEnd, pieces.count - 1 > most else { return pieces }
    return [pieces.dropLast(most).joined(separator: mark)] + pieces.suffix(most)
}

func lines(_ text: String) -> [String] {
    var found = split(replaced(replaced(text, "\r\n", by: "\n"), "\r", by: "\n"), at: "\n")
    if found.last == "" { found.removeLast() }
    return found
}

func capitalized(_ text: String) -> String {
    guard let first = text.unicodeScalars.first else { return text }
    return first.properties.titlecaseMapping + String(text.unicodeScalars.dropFirst()).lowercased()
}

func titled(_ text: String) -> String {
    var found = ""
    var isInside = false
    for scalar in text.unicodeScalars {
        found += isInside ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
        isInside = scalar.properties.isCased
    }
    return found
}
