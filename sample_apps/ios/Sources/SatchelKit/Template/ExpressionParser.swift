/// Reads the tokens of a statement or output.
struct TokenReader {
    private var tokens: ArraySlice<Token>
    private(set) var last = ""  // the name that was read last

    init(_ tokens: [Token]) { self.tokens = tokens[...] }

    mutating func takes(_ token: Token) -> Bool {
        guard tokens.first == token else { return false }
        tokens.removeFirst()
        return true
    }

    mutating func expect(_ token: Token) throws {
        guard takes(token) else { throw unexpected(wanted: "\(token)") }
    }

    mutating func end() throws {
        guard tokens.isEmpty else { throw unexpected(wanted: "the end of the block") }
    }

    mutating func name() throws -> String {
        guard case .name(let name)? = tokens.first else { throw unexpected(wanted: "a name") }
        tokens.removeFirst()
        last = name
        return name
    }

    /// a, or a, b, or (a, b), or a.b
    mutating func target() throws -> Target {
        let isBracketed = takes(.symbol("("))
        let first = try name()
        if takes(.symbol(".")) { return .attribute(first, try name()) }
        var names = [first]
        while takes(.symbol(",")) { names.append(try name()) }
        if isBracketed { try expect(.symbol(")")) }
        return names.count == 1 ? .name(first) : .several(names)
    }

    mutating func expression() throws -> Expression {
        let value = try disjunction()
        guard takes(.name("if")) else { return value }
        let condition = try disjunction()
        return .choice(condition: condition, then: value, otherwise: takes(.name("else")) ? try expression() : nil)
    }

    /// Of `for`, whose "if" is a filter.
    mutating func expressionWithoutChoice() throws -> Expression { try disjunction() }

    mutating func filters(first name: String) throws -> [Filter] {
        var found = [Filter(name: name, arguments: takes(.symbol("(")) ? try arguments() : [])]
        while takes(.symbol("|")) {
            let name = try self.name()
            found.append(Filter(name: name, arguments: takes(.symbol("(")) ? try arguments() : []))
        }
        return found
    }

    private mutating func disjunction() throws -> Expression {
        var left = try conjunction()
        while takes(.name("or")) { left = .or(left, try conjunction()) }
        return left
    }

    private mutating func conjunction() throws -> Expression {
        var left = try negation()
        while takes(.name("and")) { left = .and(left, try negation()) }
        return left
    }

    private mutating func negation() throws -> Expression {
        takes(.name("not")) ? .not(try negation()) : try comparison()
    }

    private mutating func comparison() throws -> Expression {
        let first = try sum()
        var rest: [(operation: String, value: Expression)] = []
        while let operation = comparisonSign() { rest.append((operation, try sum())) }
        return rest.isEmpty ? first : .compare(first, rest)
    }

    private mutating func comparisonSign() -> String? {
        for sign in ["==", "!=", "<=", ">=", "<", ">"] where takes(.symbol(sign)) { return sign }
        if takes(.name("in")) { return "in" }
        if tokens.first == .name("not"), tokens.dropFirst().first == .name("in") {
            tokens.removeFirst(2)
            return "not in"
        }
        return nil
    }

    private mutating func sum() throws -> Expression {
        try binary(["+", "-"]) { try $0.binary(["~"]) { try $0.binary(["*", "//", "/", "%"]) { try $0.power() } } }
    }

    private mutating func binary(_ signs: [String], _ operand: (inout TokenReader) throws -> Expression) throws
        -> Expression
    {
        var left = try operand(&self)
        while let sign = signs.first(where: { tokens.first == .symbol($0) }) {
            tokens.removeFirst()
            left = .binary(sign, left, try operand(&self))
        }
        return left
    }

    private mutating func power() throws -> Expression {
        var left = try unary(withFilters: true)
        while takes(.symbol("**")) { left = .binary("**", left, try unary(withFilters: true)) }
        return left
    }

    /// A sign binds closer than a filter.
    private mutating func unary(withFilters: Bool) throws -> Expression {
        let value: Expression
        if takes(.symbol("-")) {
            value = .negative(try unary(withFilters: false))
        } else if takes(.symbol("+")) {
            value = try unary(withFilters: false)
        } else {
            value = try primary()
        }
        return try postfix(value, withFilters: withFilters)
    }

    private mutating func postfix(_ start: Expression, withFilters: Bool) throws -> Expression {
        var value = start
        while true {
            if takes(.symbol(".")) {
                if case .integer(let index)? = tokens.first {
                    tokens.removeFirst()
                    value = .item(value, .literal(.integer(index)))
                } else {
                    value = .attribute(value, try name())
                }
            } else if takes(.symbol("[")) {
                value = try subscripted(value)
            } else if takes(.symbol("(")) {
                value = .call(value, try arguments())
            } else if withFilters, takes(.symbol("|")) {
                let name = try name()
                value = .filter(value, Filter(name: name, arguments: takes(.symbol("(")) ? try arguments() : []))
            } else if withFilters, takes(.name("is")) {
                value = try test(value)
            } else {
                return value
            }
        }
    }

    private mutating func test(_ value: Expression) throws -> Expression {
        let isNegated = takes(.name("not"))
        let name = try name()
        var given: [Argument] = []
        if takes(.symbol("(")) {
            given = try arguments()
        } else if isOperand(tokens.first) {
            given = [Argument(name: nil, value: try postfix(try primary(), withFilters: false))]
        }
        return .test(value, name, given, isNegated: isNegated)
    }

    /// Whether an argument of a test follows, as in "is divisibleby 3".
    private func isOperand(_ token: Token?) -> Bool {
        switch token {
        case .string?, .integer?, .number?, .symbol("[")?, .symbol("{")?: true
        case .name(let name)?: !["and", "or", "not", "if", "else", "in", "is"].contains(name)
        default: false
        }
    }

    /// Behind the opening bracket: an index, or a slice.
    private mutating func subscripted(_ value: Expression) throws -> Expression {
        var bounds: [Expression?] = [nil]
        while !takes(.symbol("]")) {
            if takes(.symbol(":")) { bounds.append(nil) } else { bounds[bounds.count - 1] = try expression() }
        }
        if bounds.count == 1 {
            guard let index = bounds[0] else { throw TemplateError("an empty index") }
            return .item(value, index)
        }
        return .slice(value, bounds[0], bounds[1], bounds.count > 2 ? bounds[2] : nil)
    }

    /// Behind the opening parenthesis, up to and with the closing one.
    private mutating func arguments() throws -> [Argument] {
        var found: [Argument] = []
        while !takes(.symbol(")")) {
            if case .name(let name)? = tokens.first, tokens.dropFirst().first == .symbol("=") {
                tokens.removeFirst(2)
                found.append(Argument(name: name, value: try expression()))
            } else {
                found.append(Argument(name: nil, value: try expression()))
            }
            if !takes(.symbol(",")) {
                try expect(.symbol(")"))
                break
            }
        }
        return found
    }

    private mutating func primary() throws -> Expression {
        guard let token = tokens.popFirst() else { throw TemplateError("an expression ends too early") }
        switch token {
        case .string(var text):
            while case .string(let more)? = tokens.first {
                tokens.removeFirst()
                text += more
            }
            return .literal(.string(text))
        case .integer(let value): return .literal(.integer(value))
        case .number(let value): return .literal(.number(value))
        case .name(let name): return constant(name).map(Expression.literal) ?? .name(name)
        case .symbol("("): return try bracketed()
        case .symbol("["): return .list(try items(until: "]"))
        case .symbol("{"): return .dictionary(try entries())
        case .symbol(let symbol): throw TemplateError("an unexpected \(symbol)")
        }
    }

    private func constant(_ name: String) -> Value? {
        switch name {
        case "true", "True": .bool(true)
        case "false", "False": .bool(false)
        case "none", "None": Value.none
        default: nil
        }
    }

    /// A bracketed expression, or a tuple.
    private mutating func bracketed() throws -> Expression {
        if takes(.symbol(")")) { return .tuple([]) }
        let first = try expression()
        if takes(.symbol(")")) { return first }
        try expect(.symbol(","))
        return .tuple([first] + (try items(until: ")")))
    }

    private mutating func items(until end: String) throws -> [Expression] {
        var found: [Expression] = []
        while !takes(.symbol(end)) {
            found.append(try expression())
            if !takes(.symbol(",")) {
                try expect(.symbol(end))
                break
            }
        }
        return found
    }

    private mutating func entries() throws -> [(key: Expression, value: Expression)] {
        var found: [(key: Expression, value: Expression)] = []
        while !takes(.symbol("}")) {
            let key = try expression()
            try expect(.symbol(":"))
            found.append((key, try expression()))
            if !takes(.symbol(",")) {
                try expect(.symbol("}"))
                break
            }
        }
        return found
    }

    private func unexpected(wanted: String) -> TemplateError {
        TemplateError("got \(tokens.first.map { "\($0)" } ?? "the end"), wanted \(wanted)")
    }
}
