package ai.satchel.core.jinja

/** Variables, of a template, a loop or a macro, over those around it. */
internal class Scope(private val outer: Scope? = null, private val run: Run = outer!!.run) {
    private val values = HashMap<String, Any?>()

    operator fun set(name: String, value: Any?) {
        values[name] = value
    }

    operator fun get(name: String): Any? = when {
        name in values -> values[name]
        outer != null -> outer[name]
        else -> Undefined(name)
    }

    /** Ends a template that runs on and on. */
    fun count() = run.count()

    class Run {
        private var steps = 0

        fun count() {
            if (++steps > MOST_STEPS) throw TemplateError("a template that takes too long")
        }
    }

    private companion object {
        const val MOST_STEPS = 2_000_000
    }
}

internal fun interface Expression {
    fun value(scope: Scope): Any?
}

internal class Constant(val value: Any?) : Expression {
    override fun value(scope: Scope) = value
}

internal class Name(val name: String) : Expression {
    override fun value(scope: Scope) = scope[name]
}

internal class Attribute(val of: Expression, val name: String) : Expression {
    override fun value(scope: Scope) = attributeOf(of.value(scope), name)
}

internal class Item(val of: Expression, val key: Expression) : Expression {
    override fun value(scope: Scope): Any? {
        val value = defined(of.value(scope))
        val key = key.value(scope)
        val found = itemOf(value, key)
        return if (found !=
            null
        ) {
            found.value
        } else if (key is String) {
            attributeOf(value, key)
        } else {
            Undefined(textOf(key))
        }
    }
}

internal class Slice(
    val of: Expression,
    val start: Expression?,
    val stop: Expression?,
    val step: Expression?,
) : Expression {
    override fun value(scope: Scope): Any =
        sliced(defined(of.value(scope)), start?.value(scope), stop?.value(scope), step?.value(scope))
}

internal class Given(val values: List<Expression>, val named: List<Pair<String, Expression>>) {
    fun arguments(scope: Scope, vararg first: Any?) = Arguments(
        first.toList() + values.map {
            it.value(scope)
        },
        named.associate { (name, value) -> name to value.value(scope) },
    )
}

internal class Call(val of: Expression, val given: Given) : Expression {
    override fun value(scope: Scope): Any? {
        scope.count()
        val function = of.value(scope)
        if (function !is Callable) {
            throw TemplateError(
                "${if (function is Undefined) "'${function.what}'" else typeName(function)} cannot be called",
            )
        }
        return function.call(given.arguments(scope))
    }
}

/** `value | name(...)`. */
internal class Filtered(val of: Expression, name: String, val given: Given) : Expression {
    private val filter = filterNamed(name)

    override fun value(scope: Scope): Any? {
        scope.count()
        return filter.call(given.arguments(scope, of.value(scope)))
    }
}

/** `value is name(...)`. */
internal class Tested(val of: Expression, name: String, val given: Given) : Expression {
    private val test = testNamed(name)

    override fun value(scope: Scope): Any = isTrue(test.call(given.arguments(scope, of.value(scope))))
}

internal class Binary(val operator: String, val left: Expression, val right: Expression) : Expression {
    override fun value(scope: Scope) = operated(operator, left.value(scope), right.value(scope))
}

/** `a < b < c`, as Python has it. */
internal class Comparison(val first: Expression, val rest: List<Pair<String, Expression>>) : Expression {
    override fun value(scope: Scope): Any {
        var left = first.value(scope)
        for ((operator, expression) in rest) {
            val right = expression.value(scope)
            if (!holds(operator, left, right)) return false
            left = right
        }
        return true
    }

    private fun holds(operator: String, a: Any?, b: Any?): Boolean = when (operator) {
        "==" -> same(a, b)
        "!=" -> !same(a, b)
        "in" -> contains(b, a)
        "not in" -> !contains(b, a)
        "<" -> compared(defined(a), defined(b)) < 0
        "<=" -> compared(defined(a), defined(b)) <= 0
        ">" -> compared(defined(a), defined(b)) > 0
        else -> compared(defined(a), defined(b)) >= 0
    }
}

/** An attribute as a template sees it: a method first, then a key. */
internal fun attributeOf(value: Any?, name: String): Any? = when (value) {
    is Undefined -> throw TemplateError("'${value.what}' is undefined")
    is Namespace -> if (name in value.values) value.values[name] else Undefined(name)
    is Loop -> value.attribute(name)
    else -> methodOf(value, name) ?: itemOf(value, name).let { if (it == null) Undefined(name) else it.value }
}

private fun itemOf(value: Any?, key: Any?): Arguments.Given? = when (value) {
    is Map<*, *> -> if (value.containsKey(key)) Arguments.Given(value[key]) else null
    is String, is List<*> -> numeric(key)?.let { if (it is Long) indexed(value, it) else null }
    is Namespace -> if (key in value.values) Arguments.Given(value.values[key]) else null
    else -> null
}
