/// What a template is made of.
indirect enum Node {
    case text(String)
    case output(Expression)
    case branch([(condition: Expression?, body: [Node])])
    case loop(target: Target, over: Expression, filter: Expression?, body: [Node], otherwise: [Node])
    case set(Target, Expression)
    case capture(String, [Filter], [Node])
    case macro(Macro)
    case callBlock(Expression, [Node])
    case filtered([Filter], [Node])
    case scope([Node])
    case next
    case leave
}

/// What is assigned to.
enum Target {
    case name(String)
    case several([String])
    case attribute(String, String)
}

struct Macro {
    let name: String
    let parameters: [(name: String, standard: Expression?)]
    let body: [Node]
}

struct Filter {
    let name: String
    let arguments: [Argument]
}

struct Argument {
    let name: String?
    let value: Expression
}

indirect enum Expression {
    case literal(Value)
    case name(String)
    case list([Expression])
    case tuple([Expression])
    case dictionary([(key: Expression, value: Expression)])
    case attribute(Expression, String)
    case item(Expression, Expression)
    case slice(Expression, Expression?, Expression?, Expression?)
    case call(Expression, [Argument])
    case filter(Expression, Filter)
    case test(Expression, String, [Argument], isNegated: Bool)
    case not(Expression)
    case negative(Expression)
    case and(Expression, Expression)
    case or(Expression, Expression)
    case binary(String, Expression, Expression)
    case compare(Expression, [(operation: String, value: Expression)])
    case choice(condition: Expression, then: Expression, otherwise: Expression?)
}
