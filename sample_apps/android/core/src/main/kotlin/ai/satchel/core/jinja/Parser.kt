package ai.satchel.core.jinja

/** Tokens -> statements. */
internal class Parser(tokens: List<Token>) : ExpressionParser(tokens) {
    private var loops = 0

    fun template(): Body = body().also { if (token.kind != Kind.End) fail("no more") }

    /** Statements up to one of these tags, whose name is the current token then; or up to the template's end. */
    private fun body(vararg ends: String): Body {
        val statements = ArrayList<Statement>()
        while (token.kind != Kind.End) {
            val begin = next()
            when (begin.kind) {
                Kind.Data -> statements.add(Statement { _, out -> out.append(begin.text) })
                Kind.VariableBegin -> statements.add(output())
                else -> {
                    if (token.kind == Kind.Name && token.text in ends) return Body(statements)
                    statements.add(statement())
                }
            }
        }
        if (ends.isNotEmpty()) fail(ends.joinToString(" or ") { "'$it'" })
        return Body(statements)
    }

    private fun output(): Statement {
        val value = tuple { token.kind == Kind.VariableEnd }
        expect(Kind.VariableEnd)
        return Output(value)
    }

    private fun statement(): Statement = when (val tag = name()) {
        "for" -> forLoop()
        "if" -> condition()
        "set" -> assignment()
        "macro" -> macro()
        "call" -> callBlock()
        "with" -> with()
        "filter" -> filterBlock()
        "generation" -> endOfTag().let { body("endgeneration") }.also { endOf("endgeneration") }
        "break", "continue" -> {
            if (loops == 0) throw TemplateError("'$tag' outside of a loop")
            endOfTag()
            Statement { _, _ -> throw LoopEnd(tag == "continue") }
        }
        else -> throw TemplateError("the tag '$tag' is not known here")
    }

    private fun forLoop(): Statement {
        val target = target()
        expectName("in")
        val over = iterable()
        val filter = if (acceptName("if")) expression() else null
        if (isName("recursive")) throw TemplateError("recursive loops are not known here")
        endOfTag()
        loops++
        val body = body("endfor", "else")
        loops--
        val otherwise = if (acceptName("else")) endOfTag().let { body("endfor") } else Body(emptyList())
        endOf("endfor")
        return For(target, over, filter, body, otherwise)
    }

    /** Without a condition at its end, which would be the loop's. */
    private fun iterable(): Expression {
        val first = or()
        if (!isOperator(",")) return first
        val items = arrayListOf(first)
        while (acceptOperator(",")) items.add(or())
        return Expression { scope -> Tuple(items.map { it.value(scope) }) }
    }

    private fun condition(): Statement {
        val branches = ArrayList<Pair<Expression, Body>>()
        do {
            val test = tuple { token.kind == Kind.BlockEnd }
            endOfTag()
            branches.add(test to body("elif", "else", "endif"))
        } while (acceptName("elif"))
        val otherwise = if (acceptName("else")) endOfTag().let { body("endif") } else Body(emptyList())
        endOf("endif")
        return If(branches, otherwise)
    }

    private fun assignment(): Statement {
        val target = target(withAttribute = true)
        if (acceptOperator("=")) {
            val value = tuple { token.kind == Kind.BlockEnd }
            endOfTag()
            return SetValue(target, value)
        }
        val through = blockFilters()
        endOfTag()
        val body = body("endset")
        endOf("endset")
        return SetBody(target, through, body)
    }

    private fun target(withAttribute: Boolean = false): Target {
        val parenthesized = acceptOperator("(")
        val targets = arrayListOf(oneTarget(withAttribute))
        while (acceptOperator(",")) if (token.kind == Kind.Name && !isName("in")) targets.add(oneTarget(withAttribute))
        if (parenthesized) expectOperator(")")
        return if (targets.size == 1) targets[0] else TupleTarget(targets)
    }

    private fun oneTarget(withAttribute: Boolean): Target {
        if (isOperator("(")) return target(withAttribute)
        val name = name()
        return if (withAttribute && acceptOperator(".")) AttributeTarget(name, name()) else NameTarget(name)
    }

    private fun macro(): Statement {
        val name = name()
        val parameters = parameters()
        endOfTag()
        return Macro(name, parameters, body("endmacro")).also { endOf("endmacro") }
    }

    private fun parameters(): List<Parameter> {
        expectOperator("(")
        val found = ArrayList<Parameter>()
        while (!acceptOperator(")")) {
            if (found.isNotEmpty()) expectOperator(",")
            found.add(Parameter(name(), if (acceptOperator("=")) expression() else null))
        }
        return found
    }

    private fun callBlock(): Statement {
        val parameters = if (isOperator("(")) parameters() else emptyList()
        val call = unary() as? Call ?: throw TemplateError("'call' without a call")
        endOfTag()
        return CallBody(call, parameters, body("endcall")).also { endOf("endcall") }
    }

    private fun with(): Statement {
        val values = ArrayList<Pair<Target, Expression>>()
        while (token.kind != Kind.BlockEnd) {
            if (values.isNotEmpty()) expectOperator(",")
            values.add(target().also { expectOperator("=") } to expression())
        }
        endOfTag()
        return With(values, body("endwith")).also { endOf("endwith") }
    }

    private fun filterBlock(): Statement {
        val subject = Subject()
        val through = filters(filter(subject))
        endOfTag()
        return FilterBody({ given ->
            Expression { subject.within(given, through, it) }
        }, body("endfilter")).also { endOf("endfilter") }
    }

    private fun blockFilters(): (Expression) -> Expression {
        val subject = Subject()
        val through = filters(subject)
        return { given -> Expression { subject.within(given, through, it) } }
    }

    /** Stands for the text of a block in the filters that it goes through. */
    private class Subject : Expression {
        private var now: Any? = null

        override fun value(scope: Scope) = now

        fun within(given: Expression, through: Expression, scope: Scope): Any? {
            now = given.value(scope)
            return through.value(scope)
        }
    }

    private fun endOfTag() = expect(Kind.BlockEnd)

    private fun endOf(tag: String) {
        expectName(tag)
        if (tag == "endmacro" || tag == "endset") if (token.kind == Kind.Name) next()
        endOfTag()
    }

    private fun expect(kind: Kind) {
        if (next().kind != kind) throw TemplateError("a tag that does not end in line ${token.line}")
    }
}
