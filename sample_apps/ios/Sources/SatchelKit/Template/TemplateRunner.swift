import Foundation

/// Variables by name; inner scopes see outer ones.
final class Scope {
    private var values: [String: Value]
    private let outer: Scope?

    init(_ values: [String: Value] = [:], in outer: Scope? = nil) {
        self.values = values
        self.outer = outer
    }

    subscript(name: String) -> Value? {
        get { values[name] ?? outer?[name] }
        set { values[name] = newValue }
    }
}

/// Why the rest of a loop's body is passed over.
private enum Jump { case next, leave }

/// Runs a template's nodes.
final class TemplateRunner {
    private(set) var output = ""
    private var depth = 0

    static let largestProduct = 1 << 20  // of a sequence times a number
    private static let deepest = 100
    private static let largestOutput = 16 << 20  // bytes

    func run(_ nodes: [Node], _ scope: Scope) throws {
        _ = try body(nodes, scope)
    }

    private func body(_ nodes: [Node], _ scope: Scope) throws -> Jump? {
        for node in nodes {
            if let jump = try one(node, scope) { return jump }
            guard output.utf8.count <= Self.largestOutput else { throw TemplateError("a text that is too large") }
        }
        return nil
    }

    private func one(_ node: Node, _ scope: Scope) throws -> Jump? {
        switch node {
        case .text(let text): output += text
        case .output(let expression): output += try evaluate(expression, scope).text
        case .branch(let branches):
            for (condition, nodes) in branches where try condition.map({ try evaluate($0, scope).isTrue }) ?? true {
                return try body(nodes, scope)
            }
        case .loop(let target, let over, let filter, let nodes, let otherwise):
            return try loop(target, over, filter, nodes, otherwise, scope)
        case .set(let target, let value): try assign(target, try evaluate(value, scope), scope)
        case .capture(let name, let filters, let nodes):
            scope[name] = try filtered(.string(try captured(nodes, Scope(in: scope))), filters, scope)
        case .macro(let macro): scope[macro.name] = function(macro, scope)
        case .callBlock(let call, let nodes): output += try callBlock(call, nodes, scope).text
        case .filtered(let filters, let nodes):
            output += try filtered(.string(try captured(nodes, Scope(in: scope))), filters, scope).text
        case .scope(let nodes): return try body(nodes, scope)
        case .next: return .next
        case .leave: return .leave
        }
        return nil
    }

    private func loop(
        _ target: Target, _ over: Expression, _ filter: Expression?, _ nodes: [Node], _ otherwise: [Node],
        _ scope: Scope
    ) throws -> Jump? {
        var items = try evaluate(over, scope).items()
        if let filter {
            items = try items.filter { item in
                let inner = Scope(in: scope)
                try assign(target, item, inner)
                return try evaluate(filter, inner).isTrue
            }
        }
        if items.isEmpty { return try body(otherwise, scope) }
        for (i, item) in items.enumerated() {
            let inner = Scope(["loop": loopVariable(i, items)], in: scope)
            try assign(target, item, inner)
            if try body(nodes, inner) == .leave { break }
        }
        return nil
    }

    private func loopVariable(_ i: Int, _ items: [Value]) -> Value {
        let count = items.count
        let cycle = Value.function { arguments in
            guard !arguments.positional.isEmpty else { throw TemplateError("cycle of nothing") }
            return arguments.positional[i % arguments.positional.count]
        }
        return .dictionary([
            ("index", .integer(i + 1)), ("index0", .integer(i)), ("revindex", .integer(count - i)),
            ("revindex0", .integer(count - i - 1)), ("first", .bool(i == 0)), ("last", .bool(i == count - 1)),
            ("length", .integer(count)), ("previtem", i > 0 ? items[i - 1] : .undefined("previtem")),
            ("nextitem", i < count - 1 ? items[i + 1] : .undefined("nextitem")), ("cycle", cycle),
        ])
    }

    private func assign(_ target: Target, _ value: Value, _ scope: Scope) throws {
        switch target {
        case .name(let name): scope[name] = value
        case .several(let names):
            let items = try value.items()
            guard items.count == names.count else {
                throw TemplateError("\(items.count) values for \(names.count) names")
            }
            for (name, item) in zip(names, items) { scope[name] = item }
        case .attribute(let name, let key):
            guard case .namespace(let space)? = scope[name] else { throw TemplateError("\(name) is no namespace") }
            space.values[key] = value
        }
    }

    private func captured(_ nodes: [Node], _ scope: Scope) throws -> String {
        let before = output
        output = ""
        defer { output = before }
        _ = try body(nodes, scope)
        return output
    }

    private func function(_ macro: Macro, _ scope: Scope, caller: Value? = nil) -> Value {
        .function { [unowned self] arguments in
            let inner = Scope(in: scope)
            for (i, parameter) in macro.parameters.enumerated() {
                let standard = try parameter.standard.map { try self.evaluate($0, inner) }
                inner[parameter.name] = arguments.value(i, parameter.name) ?? standard ?? .undefined(parameter.name)
            }
            if let caller = arguments.named.first(where: { $0.name == "caller" })?.value { inner["caller"] = caller }
            return .string(try self.deeper { try self.captured(macro.body, inner) })
        }
    }

    private func callBlock(_ call: Expression, _ nodes: [Node], _ scope: Scope) throws -> Value {
        guard case .call(let callee, let given) = call else { throw TemplateError("call without a call") }
        let body = Value.function { [unowned self] _ in .string(try self.captured(nodes, Scope(in: scope))) }
        var arguments = try self.arguments(given, scope)
        arguments.named.append(("caller", body))
        return try self.call(callee, arguments, scope)
    }

    private func deeper<T>(_ work: () throws -> T) throws -> T {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.deepest else { throw TemplateError("nested too deeply") }
        return try work()
    }
}

extension TemplateRunner {
    func evaluate(_ expression: Expression, _ scope: Scope) throws -> Value {
        switch expression {
        case .literal(let value): return value
        case .name(let name): return scope[name] ?? .undefined(name)
        case .list(let items): return .list(try items.map { try evaluate($0, scope) })
        case .tuple(let items): return .tuple(try items.map { try evaluate($0, scope) })
        case .dictionary(let entries): return try dictionary(entries, scope)
        case .attribute(let of, let name): return try attribute(evaluate(of, scope), name)
        case .item(let of, let index): return try item(evaluate(of, scope), evaluate(index, scope))
        case .slice(let of, let start, let stop, let step):
            let bounds = try [start, stop, step].map { try $0.flatMap { try bound($0, scope) } }
            return try sliced(evaluate(of, scope), bounds[0], bounds[1], bounds[2] ?? 1)
        case .call(let callee, let given): return try call(callee, try arguments(given, scope), scope)
        case .filter(let of, let filter): return try filtered(evaluate(of, scope), [filter], scope)
        case .test(let of, let name, let given, let isNegated):
            return .bool(try test(evaluate(of, scope), name, arguments(given, scope)) != isNegated)
        case .not(let value): return .bool(!(try evaluate(value, scope).isTrue))
        case .negative(let value): return try binary("-", .integer(0), evaluate(value, scope))
        case .and(let left, let right):
            let value = try evaluate(left, scope)
            return value.isTrue ? try evaluate(right, scope) : value
        case .or(let left, let right):
            let value = try evaluate(left, scope)
            return value.isTrue ? value : try evaluate(right, scope)
        case .binary(let sign, let left, let right):
            return try binary(sign, evaluate(left, scope), evaluate(right, scope))
        case .compare(let first, let rest): return .bool(try compared(evaluate(first, scope), rest, scope))
        case .choice(let condition, let then, let otherwise):
            if try evaluate(condition, scope).isTrue { return try evaluate(then, scope) }
            return try otherwise.map { try evaluate($0, scope) } ?? .undefined("the other choice")
        }
    }

    fileprivate func arguments(_ given: [Argument], _ scope: Scope) throws -> Arguments {
        var found = Arguments()
        for argument in given {
            let value = try evaluate(argument.value, scope)
            if let name = argument.name { found.named.append((name, value)) } else { found.positional.append(value) }
        }
        return found
    }

    fileprivate func call(_ callee: Expression, _ arguments: Arguments, _ scope: Scope) throws -> Value {
        let value = try evaluate(callee, scope)
        guard case .function(let function) = value else {
            throw TemplateError(
                value.isUndefined ? "what is called is undefined" : "\(value.representation) cannot be called")
        }
        return try function(arguments)
    }

    fileprivate func filtered(_ value: Value, _ filters: [Filter], _ scope: Scope) throws -> Value {
        try filters.reduce(value) { try applyFilter($1.name, $0, try arguments($1.arguments, scope)) }
    }

    private func dictionary(_ entries: [(key: Expression, value: Expression)], _ scope: Scope) throws -> Value {
        var found: [(key: String, value: Value)] = []
        for (key, value) in entries {
            guard let name = try evaluate(key, scope).string else { throw TemplateError("a key that is no text") }
            found.removeAll { $0.key.utf8.elementsEqual(name.utf8) }
            found.append((name, try evaluate(value, scope)))
        }
        return .dictionary(found)
    }

    private func bound(_ expression: Expression, _ scope: Scope) throws -> Int? {
        let value = try evaluate(expression, scope)
        if case .none = value { return nil }
        guard let index = value.integer else { throw TemplateError("an index that is no integer") }
        return index
    }

    private func compared(_ first: Value, _ rest: [(operation: String, value: Expression)], _ scope: Scope) throws
        -> Bool
    {
        var left = first
        for (operation, expression) in rest {
            let right = try evaluate(expression, scope)
            guard try holds(operation, left, right) else { return false }
            left = right
        }
        return true
    }

    private func holds(_ operation: String, _ left: Value, _ right: Value) throws -> Bool {
        switch operation {
        case "==": return equal(left, right)
        case "!=": return !equal(left, right)
        case "<": return try precedes(left, right)
        case ">": return try precedes(right, left)
        case "<=": return try !precedes(right, left)
        case ">=": return try !precedes(left, right)
        default: return try contains(right, left) == (operation == "in")
        }
    }
}
