package ai.satchel.core.jinja

internal fun testNamed(name: String): Callable {
    val test = TESTS[name] ?: throw TemplateError("the test '$name' is not known here")
    return Callable { given -> test(given.values[0], given.values.getOrNull(1)) }
}

private typealias Test = (value: Any?, other: Any?) -> Boolean

private val KINDS: Map<String, Test> =
    mapOf(
        "defined" to { value, _ -> value !is Undefined },
        "undefined" to { value, _ -> value is Undefined },
        "none" to { value, _ -> value == null },
        "string" to { value, _ -> value is String },
        "number" to { value, _ -> numeric(value) != null },
        "integer" to { value, _ -> value is Long },
        "float" to { value, _ -> value is Double },
        "boolean" to { value, _ -> value is Boolean },
        "true" to { value, _ -> value == true },
        "false" to { value, _ -> value == false },
        "mapping" to { value, _ -> value is Map<*, *> },
        "iterable" to { value, _ -> value is String || value is List<*> || value is Map<*, *> || value is Undefined },
        "sequence" to { value, _ -> value is String || value is List<*> || value is Map<*, *> || value is Undefined },
        "callable" to { value, _ -> value is Callable },
        "odd" to { value, _ -> Math.floorMod(integerOf(value), 2L) == 1L },
        "even" to { value, _ -> Math.floorMod(integerOf(value), 2L) == 0L },
        "divisibleby" to { value, by -> operated("%", value, by) == 0L },
        "lower" to { value, _ ->
            textOf(value).let { text -> text.any(Char::isLowerCase) && text.none(Char::isUpperCase) }
        },
        "upper" to { value, _ ->
            textOf(value).let { text -> text.any(Char::isUpperCase) && text.none(Char::isLowerCase) }
        },
        "in" to { value, container -> contains(container, value) },
        "sameas" to { value, other ->
            value === other || (numeric(value) != null || value is String) && value == other
        },
    )

private val TESTS: Map<String, Test> =
    KINDS +
        comparisons("==", "eq", "equalto") { a, b -> same(a, b) } +
        comparisons("!=", "ne") { a, b -> !same(a, b) } +
        comparisons("<", "lt", "lessthan") { a, b -> compared(a, b) < 0 } +
        comparisons("<=", "le") { a, b -> compared(a, b) <= 0 } +
        comparisons(">", "gt", "greaterthan") { a, b -> compared(a, b) > 0 } +
        comparisons(">=", "ge") { a, b -> compared(a, b) >= 0 }

private fun comparisons(vararg names: String, holds: Test) = names.associateWith { holds }
