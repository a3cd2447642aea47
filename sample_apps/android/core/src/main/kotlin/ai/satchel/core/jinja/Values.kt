package ai.satchel.core.jinja

import ai.satchel.core.numberText

/*
 * Values are null, Boolean, Long, Double, String, List, Map, and the classes below; they behave as Python's do.
 */

/** What a name or key that is not there gives: it prints as nothing, and has no attributes. */
internal class Undefined(val what: String)

/** `namespace()`: the only object that a template may change. */
internal class Namespace(val values: MutableMap<String, Any?>)

/** A list that prints with parentheses. */
internal class Tuple(items: List<Any?>) : List<Any?> by items {
    override fun equals(other: Any?) = other is Tuple && toList() == other.toList()

    override fun hashCode() = toList().hashCode()
}

/** What can be called: a function, a method, a macro. */
internal fun interface Callable {
    fun call(arguments: Arguments): Any?
}

/** Arguments of a call, by place and by name. */
internal class Arguments(val values: List<Any?>, val named: Map<String, Any?> = emptyMap()) {
    /** The argument at this place or of this name, or null where there is none. */
    fun find(place: Int, name: String): Given? = if (place < values.size) {
        Given(values[place])
    } else if (name in named) {
        Given(named[name])
    } else {
        null
    }

    fun get(place: Int, name: String, default: Any? = null): Any? = find(place, name).let {
        if (it == null) default else it.value
    }

    fun need(place: Int, name: String): Any? = (
        find(place, name)
            ?: throw TemplateError("the argument '$name' is missing")
        ).value

    class Given(val value: Any?)
}

internal fun isTrue(value: Any?): Boolean = when (value) {
    null, is Undefined -> false
    is Boolean -> value
    is Long -> value != 0L
    is Double -> value != 0.0
    is String -> value.isNotEmpty()
    is Collection<*> -> value.isNotEmpty()
    is Map<*, *> -> value.isNotEmpty()
    else -> true
}

/** What printing gives. */
internal fun textOf(value: Any?): String = when (value) {
    is String -> value
    is Undefined -> ""
    else -> represented(value)
}

/** Python's repr. */
internal fun represented(value: Any?): String = when (value) {
    null -> "None"
    true -> "True"
    false -> "False"
    is String -> quoted(value)
    is Double -> if (value.isNaN()) {
        "nan"
    } else if (value.isInfinite()) {
        (
            if (value <
                0
            ) {
                "-inf"
            } else {
                "inf"
            }
            )
    } else {
        numberText(value)
    }
    is Tuple -> value.joinToString(", ", "(", if (value.size == 1) ",)" else ")") { represented(it) }
    is List<*> -> value.joinToString(", ", "[", "]") { represented(it) }
    is Map<*, *> -> value.entries.joinToString(", ", "{", "}") {
        "${represented(it.key)}: ${represented(it.value)}"
    }
    is Undefined -> "Undefined"
    else -> value.toString()
}

private fun quoted(text: String): String {
    val quote = if ('\'' in text && '"' !in text) '"' else '\''
    val inner = buildString {
        for (c in text) {
            when {
                c == '\\' || c == quote -> append('\\').append(c)
                c == '\n' -> append("\\n")
                c == '\r' -> append("\\r")
                c == '\t' -> append("\\t")
                c < ' ' || c == '\u007f' -> append("\\x%02x".format(c.code))
                else -> append(c)
            }
        }
    }
    return "$quote$inner$quote"
}

/** Python's ==. */
internal fun same(a: Any?, b: Any?): Boolean {
    val (x, y) = numeric(a) to numeric(b)
    return when {
        x is Long && y is Long -> x == y
        x != null && y != null -> x.toDouble() == y.toDouble()
        a is Undefined || b is Undefined -> a is Undefined && b is Undefined
        a is List<*> && b is List<*> -> (a is Tuple) == (b is Tuple) && a.size == b.size && a.indices.all {
            same(a[it], b[it])
        }
        a is Map<*, *> && b is Map<*, *> -> a.keys == b.keys && a.keys.all { same(a[it], b[it]) }
        else -> a == b
    }
}

/** A number, or a Boolean as one, or null. */
internal fun numeric(value: Any?): Number? = if (value is Boolean) (if (value) 1L else 0L) else value as? Number

/** Python's <, as -1, 0 or 1. */
internal fun compared(a: Any?, b: Any?): Int {
    val (x, y) = numeric(a) to numeric(b)
    return when {
        x is Long && y is Long -> x.compareTo(y)
        x != null && y != null -> x.toDouble().compareTo(y.toDouble())
        a is String && b is String -> comparedTexts(a, b)
        a is List<*> && b is List<*> -> {
            val parted = a.indices.firstOrNull {
                it >= b.size || !same(a[it], b[it])
            } ?: return a.size.compareTo(b.size)
            if (parted >= b.size) 1 else compared(a[parted], b[parted])
        }
        else -> throw TemplateError("cannot compare ${typeName(a)} with ${typeName(b)}")
    }
}

/** By code point, which UTF-16 order is not beyond the first plane. */
private fun comparedTexts(a: String, b: String): Int {
    val (x, y) = codes(a) to codes(b)
    val parted = x.indices.firstOrNull { it >= y.size || x[it] != y[it] } ?: return x.size.compareTo(y.size)
    return if (parted >= y.size) 1 else x[parted].compareTo(y[parted])
}

internal fun codes(text: String): IntArray = text.codePoints().toArray()

internal fun textOf(codes: IntArray): String = String(codes, 0, codes.size)

/** Number of characters or items. */
internal fun lengthOf(value: Any?): Long = when (value) {
    is String -> value.codePointCount(0, value.length).toLong()
    is Collection<*> -> value.size.toLong()
    is Map<*, *> -> value.size.toLong()
    is Undefined -> 0
    else -> throw TemplateError("${typeName(value)} has no length")
}

/** What a loop goes through: items, keys, characters. */
internal fun itemsOf(value: Any?): List<Any?> = when (value) {
    is List<*> -> value
    is Collection<*> -> value.toList()
    is Map<*, *> -> value.keys.toList()
    is String -> codes(value).map { String(Character.toChars(it)) }
    is Undefined -> emptyList()
    else -> throw TemplateError("${typeName(value)} is not iterable")
}

/** Python's `in`. */
internal fun contains(container: Any?, item: Any?): Boolean = when (container) {
    is String -> {
        if (item !is String) throw TemplateError("'in <string>' wants a string, not ${typeName(item)}")
        item in container
    }
    is Map<*, *> -> container.containsKey(item)
    is Undefined -> false
    else -> itemsOf(container).any { same(it, item) }
}

internal fun typeName(value: Any?): String = when (value) {
    null -> "None"
    is Boolean -> "bool"
    is Long -> "int"
    is Double -> "float"
    is String -> "str"
    is Tuple -> "tuple"
    is List<*> -> "list"
    is Map<*, *> -> "dict"
    is Undefined -> "undefined"
    is Callable -> "function"
    else -> "object"
}

internal fun integerOf(value: Any?): Long =
    numeric(value) as? Long ?: throw TemplateError("an integer is wanted, not ${typeName(value)}")

/** Throws a TemplateError for what is not there, saying what. */
internal fun defined(value: Any?): Any? =
    if (value is Undefined) throw TemplateError("'${value.what}' is undefined") else value
