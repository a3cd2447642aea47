import Foundation

/// a.name: a method of a text, list or dictionary, else the value of that key.
func attribute(_ of: Value, _ name: String) throws -> Value {
    if case .undefined(let what) = of { throw TemplateError("\(what) is undefined") }
    if case .namespace(let space) = of { return space.values[name] ?? .undefined(name) }
    return method(of, name) ?? (of.entry(name) ?? .undefined(name))
}

/// a[index]: the value of that key or place, else what a.index is.
func item(_ of: Value, _ index: Value) throws -> Value {
    if case .undefined(let what) = of { throw TemplateError("\(what) is undefined") }
    if let name = index.string {
        if let found = of.entry(name) { return found }
        return try attribute(of, name)
    }
    guard let place = index.integer else { return .undefined("that item") }
    switch of {
    case .list, .tuple, .string:
        let items = try of.items()
        let at = place < 0 ? place + items.count : place
        return items.indices.contains(at) ? items[at] : .undefined("item \(place)")
    default:
        return .undefined("item \(place)")
    }
}

extension Value {
    func entry(_ name: String) -> Value? {
        guard case .dictionary(let entries) = self else { return nil }
        return entries.first { $0.key.utf8.elementsEqual(name.utf8) }?.value
    }
}

/// Python's a[start:stop:step].
func sliced(_ of: Value, _ start: Int?, _ stop: Int?, _ step: Int) throws -> Value {
    guard step != 0 else { throw TemplateError("a slice without a step") }
    let items = try of.items()
    let (lowest, highest) = step > 0 ? (0, items.count) : (-1, items.count - 1)
    func place(_ bound: Int?, _ standard: Int) -> Int {
        bound.map { min(max($0 < 0 ? $0 + items.count : $0, lowest), highest) } ?? standard
    }
    let (from, to) =
        step > 0 ? (place(start, 0), place(stop, items.count)) : (place(start, items.count - 1), place(stop, -1))
    let found = stride(from: from, to: to, by: step).map { items[$0] }
    if of.string != nil { return .string(found.map(\.text).joined()) }
    if case .tuple = of { return .tuple(found) }
    return .list(found)
}

func contains(_ container: Value, _ value: Value) throws -> Bool {
    switch container {
    case .list(let items), .tuple(let items): return items.contains { equal($0, value) }
    case .dictionary: return value.string.flatMap { container.entry($0) } != nil
    case .string(let text):
        guard let part = value.string else { throw TemplateError("only a text is in a text") }
        return find(part, in: text) != nil
    case .undefined: return false
    default: throw TemplateError("nothing is in \(container.representation)")
    }
}

func binary(_ sign: String, _ a: Value, _ b: Value) throws -> Value {
    for case .undefined(let name) in [a, b] where sign != "~" { throw TemplateError("\(name) is undefined") }
    switch (sign, a, b) {
    case ("~", _, _): return .string(a.text + b.text)
    case ("+", .string(let a), .string(let b)): return .string(a + b)
    case ("+", .list(let a), .list(let b)): return .list(a + b)
    case ("+", .tuple(let a), .tuple(let b)): return .tuple(a + b)
    case ("*", .string, _), ("*", .list, _): return try repeated(a, b)
    case ("*", _, .string), ("*", _, .list): return try repeated(b, a)
    default: break
    }
    if let a = a.integer, let b = b.integer, let found = try integers(sign, a, b) { return found }
    guard let a = a.number, let b = b.number else {
        throw TemplateError("\(a.representation) \(sign) \(b.representation) has no meaning")
    }
    return .number(try numbers(sign, a, b))
}

private func repeated(_ value: Value, _ times: Value) throws -> Value {
    guard let times = times.integer else { throw TemplateError("a sequence times what is no integer") }
    let items = try value.items()
    guard times <= 0 || items.count * min(times, TemplateRunner.largestProduct + 1) <= TemplateRunner.largestProduct
    else {
        throw TemplateError("a product that is too large")
    }
    let found = (0..<max(times, 0)).flatMap { _ in items }
    return value.string == nil ? .list(found) : .string(found.map(\.text).joined())
}

/// nil where the result is no integer.
private func integers(_ sign: String, _ a: Int, _ b: Int) throws -> Value? {
    let (value, overflow): (Int, Bool)
    switch sign {
    case "+": (value, overflow) = a.addingReportingOverflow(b)
    case "-": (value, overflow) = a.subtractingReportingOverflow(b)
    case "*": (value, overflow) = a.multipliedReportingOverflow(by: b)
    case "//", "%":
        guard b != 0 else { throw TemplateError("a division by zero") }
        guard b != -1 else { return .integer(sign == "%" ? 0 : 0 &- a) }
        let floored = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0)
        return .integer(sign == "//" ? floored : a - floored * b)
    case "**" where (0...64).contains(b) && abs(a) <= 64:
        let power = pow(Double(a), Double(b))
        return power.magnitude < 0x1p53 ? .integer(Int(power)) : .number(power)
    case "**" where b >= 0: throw TemplateError("a product that is too large")
    default: return nil
    }
    guard !overflow else { throw TemplateError("a number too large") }
    return .integer(value)
}

private func numbers(_ sign: String, _ a: Double, _ b: Double) throws -> Double {
    switch sign {
    case "+": return a + b
    case "-": return a - b
    case "*": return a * b
    case "**": return pow(a, b)
    default:
        guard b != 0 else { throw TemplateError("a division by zero") }
        return sign == "/" ? a / b : sign == "//" ? (a / b).rounded(.down) : a - (a / b).rounded(.down) * b
    }
}

/// Where a text begins in another, in code points.
func find(_ part: String, in text: String, from start: Int = 0) -> Int? {
    let (text, part) = (Array(text.unicodeScalars), Array(part.unicodeScalars))
    guard text.count >= part.count + start else { return nil }
    return (start...text.count - part.count).first { text[$0..<$0 + part.count].elementsEqual(part) }
}

func replaced(_ text: String, _ old: String, by new: String, most: Int = .max) -> String {
    var pieces = split(text, at: old)
    guard !old.utf8.isEmpty else { return text }
    while pieces.count - 1 > most {
        let last = pieces.removeLast()
        pieces[pieces.count - 1] += old + last
    }
    return pieces.joined(separator: new)
}

/// The text between the places where a separator stands.
func split(_ text: String, at separator: String, most: Int = .max) -> [String] {
    guard !separator.utf8.isEmpty else { return [text] }
    let (bytes, mark) = (Array(text.utf8), Array(separator.utf8))
    var pieces: [String] = []
    var (start, at) = (0, 0)
    while at + mark.count <= bytes.count, pieces.count < most {
        if bytes[at..<at + mark.count].elementsEqual(mark) {
            pieces.append(String(decoding: bytes[start..<at], as: UTF8.self))
            at += mark.count
            start = at
        } else {
            at += 1
        }
    }
    return pieces + [String(decoding: bytes[start...], as: UTF8.self)]
}
