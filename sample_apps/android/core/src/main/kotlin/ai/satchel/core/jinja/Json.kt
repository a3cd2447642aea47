package ai.satchel.core.jinja

import ai.satchel.core.numberText

/** Python's json.dumps, as the filter `tojson` of transformers calls it. */
internal fun jsonText(value: Any?, given: Arguments): String {
    val indent = given.get(2, "indent")?.let { if (it is String) it else " ".repeat(integerOf(it).toInt()) }
    val separators = given.get(3, "separators") as List<*>?
    val between = separators?.get(0) as String? ?: if (indent == null) ", " else ","
    val afterKey = separators?.get(1) as String? ?: ": "
    return JsonWriter(
        isTrue(given.get(1, "ensure_ascii")),
        indent,
        between,
        afterKey,
        isTrue(given.get(4, "sort_keys")),
    ).text(value, "\n")
}

private class JsonWriter(
    private val onlyAscii: Boolean,
    private val indent: String?,
    private val between: String,
    private val afterKey: String,
    private val sorted: Boolean,
) {
    fun text(value: Any?, newline: String): String = when (value) {
        null -> "null"
        is Boolean, is Long -> value.toString()
        is Double -> if (value.isNaN()) {
            "NaN"
        } else if (value.isInfinite()) {
            (
                if (value <
                    0
                ) {
                    "-Infinity"
                } else {
                    "Infinity"
                }
                )
        } else {
            numberText(value)
        }
        is String -> quoted(value)
        is Map<*, *> -> {
            val entries = if (sorted) value.entries.sortedWith { a, b -> compared(a.key, b.key) } else value.entries
            enclosed("{", "}", newline, entries.toList()) { (key, item), inner ->
                quoted(keyText(key)) + afterKey + text(item, inner)
            }
        }
        is List<*> -> enclosed("[", "]", newline, value, ::text)
        else -> throw TemplateError("${typeName(value)} cannot be said in JSON")
    }

    private fun keyText(key: Any?): String = if (key is String) key else text(key, "")

    private fun <T> enclosed(
        open: String,
        close: String,
        newline: String,
        items: List<T>,
        write: (T, String) -> String,
    ): String {
        if (items.isEmpty()) return open + close
        if (indent == null) return items.joinToString(between, open, close) { write(it, newline) }
        val inner = newline + indent
        return items.joinToString(between + inner, open + inner, newline + close) { write(it, inner) }
    }

    private fun quoted(text: String): String = buildString {
        append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> append('\\').append(c)
                c == '\n' -> append("\\n")
                c == '\r' -> append("\\r")
                c == '\t' -> append("\\t")
                c == '\b' -> append("\\b")
                c == '\u000c' -> append("\\f")
                c < ' ' || onlyAscii && c > '~' -> append("\\u%04x".format(c.code))
                else -> append(c)
            }
        }
        append('"')
    }
}
