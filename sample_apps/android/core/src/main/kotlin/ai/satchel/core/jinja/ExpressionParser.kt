package ai.satchel.core.jinja

/** Tokens -> expressions, by Jinja's grammar. */
internal open class ExpressionParser(private val tokens: List<Token>) {
    private var at = 0
    private var depth = 0
    protected val token: Token get() = tokens[at]

    protected fun next(): Token = tokens[at].also { if (it.kind != Kind.End) at++ }

    protected fun isOperator(text: String) = token.kind == Kind.Operator && token.text == text

    protected fun isName(text: String) = token.kind == Kind.Name && token.text == text

    protected fun acceptOperator(text: String): Boolean = isOperator(text).also { if (it) at++ }

    protected fun acceptName(text: String): Boolean = isName(text).also { if (it) at++ }

    protected fun expectOperator(text: String) {
        if (!acceptOperator(text)) fail("'$text'")
    }

    protected fun expectName(text: String) {
        if (!acceptName(text)) fail("'$text'")
    }

    protected fun name(): String = if (token.kind == Kind.Name) next().text else fail("a name")

    protected fun fail(wanted: String): Nothing =
        throw TemplateError("$token where $wanted is wanted, in line ${token.line}")

    fun expression(): Expression {
        if (++depth > DEEPEST) throw TemplateError("an expression that is nested too deeply")
        return condition().also { depth-- }
    }

    private fun condition(): Expression {
        var value = or()
        while (acceptName("if")) {
            val (yes, test) = value to or()
            val no = if (acceptName("else")) condition() else Constant(Undefined("the value of an 'if' without 'else'"))
            value = Expression { if (isTrue(test.value(it))) yes.value(it) else no.value(it) }
        }
        return value
    }

    protected fun or(): Expression {
        var left = and()
        while (acceptName("or")) {
            val (a, b) = left to and()
            left = Expression { scope -> a.value(scope).let { if (isTrue(it)) it else b.value(scope) } }
        }
        return left
    }

    private fun and(): Expression {
        var left = not()
        while (acceptName("and")) {
            val (a, b) = left to not()
            left = Expression { scope -> a.value(scope).let { if (isTrue(it)) b.value(scope) else it } }
        }
        return left
    }

    private fun not(): Expression {
        if (!acceptName("not")) return comparison()
        val of = not()
        return Expression { !isTrue(of.value(it)) }
    }

    private fun comparison(): Expression {
        val first = sum()
        val rest = ArrayList<Pair<String, Expression>>()
        while (true) {
            val operator = comparator() ?: break
            rest.add(operator to sum())
        }
        return if (rest.isEmpty()) first else Comparison(first, rest)
    }

    private fun comparator(): String? {
        if (token.kind == Kind.Operator && token.text in COMPARATORS) return next().text
        if (acceptName("in")) return "in"
        val notIn = isName("not") && tokens[at + 1].let { it.kind == Kind.Name && it.text == "in" }
        if (notIn) at += 2
        return if (notIn) "not in" else null
    }

    private fun sum() = leftToRight(listOf("+", "-"), ::joined)

    private fun joined(): Expression {
        val parts = arrayListOf(product())
        while (acceptOperator("~")) parts.add(product())
        if (parts.size == 1) return parts[0]
        return Expression { scope -> parts.joinToString("") { textOf(it.value(scope)) } }
    }

    private fun product() = leftToRight(listOf("*", "/", "//", "%"), ::power)

    private fun power() = leftToRight(listOf("**")) { unary() }

    private fun leftToRight(operators: List<String>, operand: () -> Expression): Expression {
        var left = operand()
        while (token.kind == Kind.Operator && token.text in operators) left = Binary(next().text, left, operand())
        return left
    }

    protected fun unary(withFilters: Boolean = true): Expression {
        if (acceptOperator("-")) {
            return unary(false).let { of ->
                withFilters(Binary("-", Constant(0L), of), withFilters)
            }
        }
        if (acceptOperator("+")) return withFilters(unary(false), withFilters)
        return withFilters(postfix(primary()), withFilters)
    }

    private fun withFilters(of: Expression, wanted: Boolean) = if (wanted) filtersAndTests(of) else of

    private fun primary(): Expression {
        val token = next()
        return when (token.kind) {
            Kind.Name -> named(token.text)
            Kind.Text -> Constant(
                generateSequence(token.text) {
                    if (this.token.kind == Kind.Text) next().text else null
                }.joinToString(""),
            )
            Kind.Integer -> Constant(integer(token.text))
            Kind.Float -> Constant(token.text.replace("_", "").toDouble())
            else -> when (token.text) {
                "(" -> parenthesized()
                "[" -> listed("]").let { items -> Expression { scope -> items.map { it.value(scope) } } }
                "{" -> dictionary()
                else -> throw TemplateError("an unexpected $token in line ${token.line}")
            }
        }
    }

    private fun named(name: String): Expression = when (name) {
        "true", "True" -> Constant(true)
        "false", "False" -> Constant(false)
        "none", "None" -> Constant(null)
        else -> Name(name)
    }

    private fun integer(text: String): Long {
        val digits = text.replace("_", "").lowercase()
        val radix = mapOf("0x" to 16, "0o" to 8, "0b" to 2)[digits.take(2)]
        val value = if (radix == null) digits.toLongOrNull() else digits.drop(2).toLongOrNull(radix)
        return value ?: throw TemplateError("a number that is too large: $text")
    }

    private fun parenthesized(): Expression {
        if (acceptOperator(")")) return Constant(Tuple(emptyList()))
        return tuple { isOperator(")") }.also { expectOperator(")") }
    }

    /** One expression, or several with commas between them. */
    protected fun tuple(atEnd: () -> Boolean): Expression {
        val items = arrayListOf(expression())
        if (!isOperator(",")) return items[0]
        while (acceptOperator(",") && !atEnd()) items.add(expression())
        return Expression { scope -> Tuple(items.map { it.value(scope) }) }
    }

    private fun listed(end: String): List<Expression> {
        val items = ArrayList<Expression>()
        while (!acceptOperator(end)) {
            if (items.isNotEmpty()) {
                expectOperator(",")
                if (acceptOperator(end)) break
            }
            items.add(expression())
        }
        return items
    }

    private fun dictionary(): Expression {
        val entries = ArrayList<Pair<Expression, Expression>>()
        while (!acceptOperator("}")) {
            if (entries.isNotEmpty()) {
                expectOperator(",")
                if (acceptOperator("}")) break
            }
            val key = expression()
            expectOperator(":")
            entries.add(key to expression())
        }
        return Expression { scope ->
            entries.associateTo(LinkedHashMap()) { (key, value) -> key.value(scope) to value.value(scope) }
        }
    }

    protected fun postfix(first: Expression): Expression {
        var value = first
        while (true) {
            value =
                when {
                    acceptOperator(".") -> attribute(value)
                    acceptOperator("[") -> subscript(value)
                    isOperator("(") -> Call(value, arguments())
                    else -> return value
                }
        }
    }

    private fun attribute(of: Expression): Expression =
        if (token.kind == Kind.Integer) Item(of, Constant(integer(next().text))) else Attribute(of, name())

    private fun subscript(of: Expression): Expression {
        val bounds = arrayListOf(bound())
        while (acceptOperator(":")) bounds.add(bound())
        expectOperator("]")
        if (bounds.size > 3) throw TemplateError("a slice with ${bounds.size} parts")
        if (bounds.size > 1) return Slice(of, bounds[0], bounds[1], bounds.getOrNull(2))
        return Item(of, bounds[0] ?: throw TemplateError("empty brackets in line ${token.line}"))
    }

    private fun bound(): Expression? = if (isOperator(":") || isOperator("]")) null else expression()

    protected fun arguments(): Given {
        expectOperator("(")
        val values = ArrayList<Expression>()
        val named = ArrayList<Pair<String, Expression>>()
        while (!acceptOperator(")")) {
            if (values.size + named.size > 0) {
                expectOperator(",")
                if (acceptOperator(")")) break
            }
            val isNamed = token.kind == Kind.Name && tokens[at + 1].let { it.kind == Kind.Operator && it.text == "=" }
            if (isNamed) {
                named.add(name().also { expectOperator("=") } to expression())
            } else {
                values.add(expression().also { if (named.isNotEmpty()) fail("a named argument") })
            }
        }
        return Given(values, named)
    }

    private fun filtersAndTests(first: Expression): Expression {
        var value = first
        while (true) {
            value =
                when {
                    isOperator("|") -> filters(value)
                    acceptName("is") -> test(value)
                    isOperator("(") -> Call(value, arguments())
                    else -> return value
                }
        }
    }

    /** `| name(...) | name(...)`. */
    protected fun filters(first: Expression): Expression {
        var value = first
        while (acceptOperator("|")) value = filter(value)
        return value
    }

    protected fun filter(of: Expression): Expression =
        Filtered(of, dottedName(), if (isOperator("(")) arguments() else NOTHING)

    private fun dottedName(): String {
        var name = name()
        while (acceptOperator(".")) name += "." + name()
        return name
    }

    private fun test(of: Expression): Expression {
        val negated = acceptName("not")
        val test = Tested(of, dottedName(), testArguments())
        return if (negated) Expression { !isTrue(test.value(it)) } else test
    }

    private fun testArguments(): Given {
        if (isOperator("(")) return arguments()
        val begins = token.kind in listOf(Kind.Text, Kind.Integer, Kind.Float) || isOperator("[") || isOperator("{") ||
            token.kind == Kind.Name && token.text !in listOf("else", "or", "and", "if", "is", "not", "in")
        return if (begins) Given(listOf(postfix(primary())), emptyList()) else NOTHING
    }

    private companion object {
        val COMPARATORS = listOf("==", "!=", "<", "<=", ">", ">=")
        val NOTHING = Given(emptyList(), emptyList())
        const val DEEPEST = 100
    }
}
