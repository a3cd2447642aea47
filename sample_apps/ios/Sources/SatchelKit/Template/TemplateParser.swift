/// The source's parts -> nodes. Jinja's statements, as far as chat templates have them.
struct TemplateParser {
    private var parts: ArraySlice<SourcePart>
    private var statement = TokenReader([])  // of the statement that is read

    /// Throws a TemplateError: the source is no template.
    static func nodes(_ source: String) throws -> [Node] {
        var parser = TemplateParser(parts: try TemplateLexer.parts(source)[...])
        let nodes = try parser.body(until: [])
        return nodes
    }

    private init(parts: ArraySlice<SourcePart>) { self.parts = parts }

    /// Nodes up to a statement that begins with one of these names, which `statement` then stands behind.
    private mutating func body(until ends: [String]) throws -> [Node] {
        var nodes: [Node] = []
        while let part = parts.popFirst() {
            switch part {
            case .text(let text): nodes.append(.text(text))
            case .output(let tokens):
                var reader = TokenReader(tokens)
                nodes.append(.output(try reader.expression()))
                try reader.end()
            case .statement(let tokens):
                statement = TokenReader(tokens)
                let name = try statement.name()
                if ends.contains(name) { return nodes }
                nodes.append(try node(name))
            }
        }
        guard ends.isEmpty else { throw TemplateError("\(ends.last!) is missing") }
        return nodes
    }

    private mutating func node(_ name: String) throws -> Node {
        switch name {
        case "if": return try branch()
        case "for": return try loop()
        case "set": return try set()
        case "macro": return try macro()
        case "call":
            let call = try lastExpression()
            return .callBlock(call, try block("endcall"))
        case "filter":
            let filters = try statement.filters(first: try statement.name())
            try statement.end()
            return .filtered(filters, try block("endfilter"))
        case "generation":  // marks the assistant's words for training; here it only passes them on
            try statement.end()
            return .scope(try block("endgeneration"))
        case "continue", "break":
            try statement.end()
            return name == "break" ? .leave : .next
        default:
            throw TemplateError("the statement \(name) is not known")
        }
    }

    private mutating func block(_ end: String) throws -> [Node] {
        let nodes = try body(until: [end])
        try statement.end()
        return nodes
    }

    private mutating func lastExpression() throws -> Expression {
        let found = try statement.expression()
        try statement.end()
        return found
    }

    private mutating func branch() throws -> Node {
        var branches: [(condition: Expression?, body: [Node])] = []
        var condition: Expression? = try lastExpression()
        while true {
            let nodes = try body(until: condition == nil ? ["endif"] : ["elif", "else", "endif"])
            branches.append((condition, nodes))
            let end = statement.last
            if end == "elif" {
                condition = try lastExpression()
                continue
            }
            try statement.end()
            if end == "endif" { return .branch(branches) }
            condition = nil
        }
    }

    private mutating func loop() throws -> Node {
        let target = try statement.target()
        try statement.expect(.name("in"))
        let over = try statement.expressionWithoutChoice()
        let filter = statement.takes(.name("if")) ? try statement.expression() : nil
        try statement.end()
        let nodes = try body(until: ["else", "endfor"])
        let hasElse = statement.last == "else"
        try statement.end()
        return .loop(
            target: target, over: over, filter: filter, body: nodes, otherwise: hasElse ? try block("endfor") : [])
    }

    private mutating func set() throws -> Node {
        let target = try statement.target()
        if statement.takes(.symbol("=")) {
            var value = try statement.expression()
            if statement.takes(.symbol(",")) {
                var values = [value]
                repeat { values.append(try statement.expression()) } while statement.takes(.symbol(","))
                value = .tuple(values)
            }
            try statement.end()
            return .set(target, value)
        }
        guard case .name(let name) = target else { throw TemplateError("set without a value") }
        let filters = statement.takes(.symbol("|")) ? try statement.filters(first: try statement.name()) : []
        try statement.end()
        return .capture(name, filters, try block("endset"))
    }

    private mutating func macro() throws -> Node {
        let name = try statement.name()
        try statement.expect(.symbol("("))
        var parameters: [(name: String, standard: Expression?)] = []
        while !statement.takes(.symbol(")")) {
            let parameter = try statement.name()
            parameters.append((parameter, statement.takes(.symbol("=")) ? try statement.expression() : nil))
            if !statement.takes(.symbol(",")) {
                try statement.expect(.symbol(")"))
                break
            }
        }
        try statement.end()
        return .macro(Macro(name: name, parameters: parameters, body: try block("endmacro")))
    }
}
