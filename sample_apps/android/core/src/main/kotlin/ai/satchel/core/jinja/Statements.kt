package ai.satchel.core.jinja

/** A part of a template that writes text. */
internal fun interface Statement {
    fun run(scope: Scope, out: StringBuilder)
}

/** What `break` and `continue` throw, to the loop around them. */
internal class LoopEnd(val goesOn: Boolean) : RuntimeException(null, null, false, false)

internal class Body(private val statements: List<Statement>) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        for (statement in statements) statement.run(scope, out)
    }

    fun text(scope: Scope): String = StringBuilder().also { run(scope, it) }.toString()
}

internal class Output(private val of: Expression) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        out.append(textOf(of.value(scope)))
        if (out.length > LARGEST_TEXT) throw TemplateError("a text that is too large")
    }

    private companion object {
        const val LARGEST_TEXT = 1 shl 26
    }
}

internal class If(private val branches: List<Pair<Expression, Body>>, private val otherwise: Body) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        val branch = branches.firstOrNull { isTrue(it.first.value(scope)) }
        (branch?.second ?: otherwise).run(scope, out)
    }
}

/** What a value is assigned to: a name, several names, an attribute of a namespace. */
internal sealed interface Target {
    fun assign(scope: Scope, value: Any?)
}

internal class NameTarget(val name: String) : Target {
    override fun assign(scope: Scope, value: Any?) {
        scope[name] = value
    }
}

internal class AttributeTarget(private val of: String, private val name: String) : Target {
    override fun assign(scope: Scope, value: Any?) {
        val space = scope[of] as? Namespace ?: throw TemplateError("'$of' is no namespace, whose attributes can be set")
        space.values[name] = value
    }
}

internal class TupleTarget(private val targets: List<Target>) : Target {
    override fun assign(scope: Scope, value: Any?) {
        val items = itemsOf(defined(value))
        if (items.size != targets.size) throw TemplateError("${items.size} values for ${targets.size} names")
        for ((target, item) in targets.zip(items)) target.assign(scope, item)
    }
}

internal class For(
    private val target: Target,
    private val over: Expression,
    private val condition: Expression?,
    private val body: Body,
    private val otherwise: Body,
) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        val all = itemsOf(over.value(scope))
        val items = if (condition == null) all else all.filter { isTrue(condition.value(inner(scope, it))) }
        if (items.isEmpty()) return otherwise.run(scope, out)
        for (index in items.indices) {
            scope.count()
            val inner = inner(scope, items[index])
            inner["loop"] = Loop(items, index)
            try {
                body.run(inner, out)
            } catch (end: LoopEnd) {
                if (!end.goesOn) break
            }
        }
    }

    private fun inner(scope: Scope, item: Any?) = Scope(scope).also { target.assign(it, item) }
}

/** `loop`. */
internal class Loop(private val items: List<Any?>, private val index: Int) {
    fun attribute(name: String): Any? = when (name) {
        "index" -> index + 1L
        "index0" -> index.toLong()
        "revindex" -> (items.size - index).toLong()
        "revindex0" -> (items.size - index - 1).toLong()
        "first" -> index == 0
        "last" -> index == items.size - 1
        "length" -> items.size.toLong()
        "previtem" -> if (index > 0) items[index - 1] else Undefined("previtem")
        "nextitem" -> if (index + 1 < items.size) items[index + 1] else Undefined("nextitem")
        "depth" -> 1L
        "depth0" -> 0L
        "cycle" -> Callable { given -> given.values[index % given.values.size] }
        else -> Undefined(name)
    }
}

internal class SetValue(private val target: Target, private val value: Expression) : Statement {
    override fun run(scope: Scope, out: StringBuilder) = target.assign(scope, value.value(scope))
}

/** `{% set name %}...{% endset %}`, through filters. */
internal class SetBody(
    private val target: Target,
    private val filters: (Expression) -> Expression,
    private val body: Body,
) : Statement {
    override fun run(scope: Scope, out: StringBuilder) =
        target.assign(scope, filters(Constant(body.text(Scope(scope)))).value(scope))
}

internal class With(private val values: List<Pair<Target, Expression>>, private val body: Body) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        val inner = Scope(scope)
        for ((target, value) in values) target.assign(inner, value.value(scope))
        body.run(inner, out)
    }
}

internal class FilterBody(private val filters: (Expression) -> Expression, private val body: Body) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        out.append(textOf(filters(Constant(body.text(Scope(scope)))).value(scope)))
    }
}

internal class Parameter(val name: String, val default: Expression?)

internal class Macro(
    private val name: String,
    private val parameters: List<Parameter>,
    private val body: Body,
) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        scope[name] = function(scope)
    }

    fun function(defining: Scope) = Callable { given ->
        defining.count()
        val inner = Scope(defining)
        val names = parameters.map { it.name }
        inner["varargs"] = Tuple(given.values.drop(parameters.size))
        inner["kwargs"] = given.named - names.toSet()
        for ((name, value) in given.named) if (name == "caller") inner[name] = value
        for ((place, parameter) in parameters.withIndex()) {
            val value = given.find(place, parameter.name)
            inner[parameter.name] =
                if (value != null) value.value else parameter.default?.value(inner) ?: noValue(parameter)
        }
        body.text(inner)
    }

    private fun noValue(parameter: Parameter): Any? = if (parameter.default != null) null else Undefined(parameter.name)
}

/** `{% call macro() %}...{% endcall %}`. */
internal class CallBody(
    private val call: Call,
    private val parameters: List<Parameter>,
    private val body: Body,
) : Statement {
    override fun run(scope: Scope, out: StringBuilder) {
        val caller = Macro("caller", parameters, body).function(scope)
        val given = Given(call.given.values, call.given.named + ("caller" to Constant(caller)))
        out.append(textOf(Call(call.of, given).value(scope)))
    }
}
