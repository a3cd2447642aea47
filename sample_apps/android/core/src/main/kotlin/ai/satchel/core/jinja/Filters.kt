package ai.satchel.core.jinja

internal fun filterNamed(name: String): Callable =
    FILTERS[name] ?: throw TemplateError("the filter '$name' is not known here")

private typealias Filter = (Any?, Arguments) -> Any?

private val FILTERS: Map<String, Callable> by lazy {
    (TEXT_FILTERS + NUMBER_FILTERS + LIST_FILTERS).mapValues { (_, filter) ->
        Callable { given -> filter(given.values[0], given) }
    }
}

private val TEXT_FILTERS: Map<String, Filter> =
    mapOf(
        "trim" to { value, given -> stripped(textOf(value), given.get(1, "chars"), left = true, right = true) },
        "upper" to { value, _ -> textOf(value).uppercase(java.util.Locale.ROOT) },
        "lower" to { value, _ -> textOf(value).lowercase(java.util.Locale.ROOT) },
        "capitalize" to { value, _ -> capitalized(textOf(value)) },
        "title" to { value, _ -> Regex("[^-\\s({\\[<]+").replace(textOf(value)) { capitalized(it.value) } },
        "string" to { value, _ -> textOf(value) },
        "safe" to { value, _ -> textOf(value) },
        "escape" to { value, _ -> escaped(textOf(value)) },
        "e" to { value, _ -> escaped(textOf(value)) },
        "replace" to { value, given ->
            replaced(textOf(value), textOf(given.need(1, "old")), textOf(given.need(2, "new")), given.get(3, "count"))
        },
        "indent" to { value, given -> indented(textOf(value), given) },
        "format" to { value, given -> formatted(textOf(value), given.values.drop(1)) },
        "wordcount" to { value, _ -> Regex("\\w+").findAll(textOf(value)).count().toLong() },
        "tojson" to { value, given -> jsonText(value, given) },
    )

private val NUMBER_FILTERS: Map<String, Filter> =
    mapOf(
        "int" to { value, given -> wholeNumber(value) ?: given.get(1, "default", 0L) },
        "float" to { value, given ->
            numeric(value)?.toDouble() ?: (value as? String)?.trim()?.toDoubleOrNull() ?: given.get(1, "default", 0.0)
        },
        "abs" to { value, _ ->
            numeric(value).let { if (it is Long) kotlin.math.abs(it) else kotlin.math.abs(it!!.toDouble()) }
        },
        "round" to { value, given -> rounded(value, given) },
    )

private val LIST_FILTERS: Map<String, Filter> =
    mapOf(
        "length" to { value, _ -> lengthOf(value) },
        "count" to { value, _ -> lengthOf(value) },
        "first" to { value, _ ->
            itemsOf(value).let { if (it.isEmpty()) Undefined("the first of nothing") else it.first() }
        },
        "last" to { value, _ ->
            itemsOf(value).let { if (it.isEmpty()) Undefined("the last of nothing") else it.last() }
        },
        "list" to { value, _ -> itemsOf(value).toList() },
        "join" to { value, given ->
            val attribute = given.get(2, "attribute")
            itemsOf(value).joinToString(textOf(given.get(1, "d", ""))) {
                textOf(if (attribute == null) it else reached(it, attribute))
            }
        },
        "default" to ::defaulted,
        "d" to ::defaulted,
        "attr" to { value, given ->
            // without keys, unlike `value.name`
            val name = textOf(given.need(1, "name"))
            if (value is Namespace ||
                value is Loop
            ) {
                attributeOf(value, name)
            } else {
                methodOf(value, name) ?: Undefined(name)
            }
        },
        "reverse" to { value, _ ->
            if (value is String) textOf(codes(value).reversedArray()) else itemsOf(value).reversed()
        },
        "sort" to { value, given -> sorted(value, given) },
        "unique" to { value, _ ->
            itemsOf(value).fold(ArrayList<Any?>()) { found, item ->
                found.also { if (found.none { same(it, item) }) found.add(item) }
            }
        },
        "items" to { value, _ -> if (value is Undefined) emptyList() else pairs(value) },
        "dictsort" to { value, given ->
            pairs(value).sortedWith(
                ordering(
                    given.get(2, "by", "key").let {
                        if (it == "value") 1L else 0L
                    },
                    isTrue(given.get(1, "case_sensitive")),
                ),
            )
        },
        "map" to ::mapped,
        "select" to { value, given -> selected(value, given, attribute = false, wanted = true) },
        "reject" to { value, given -> selected(value, given, attribute = false, wanted = false) },
        "selectattr" to { value, given -> selected(value, given, attribute = true, wanted = true) },
        "rejectattr" to { value, given -> selected(value, given, attribute = true, wanted = false) },
        "sum" to { value, given ->
            val attribute = given.get(1, "attribute")
            itemsOf(value).fold(given.get(2, "start", 0L)) { sum, item ->
                operated("+", sum, if (attribute == null) item else reached(item, attribute))
            }
        },
        "min" to { value, _ -> itemsOf(value).minWithOrNull(::compared) ?: Undefined("the least of nothing") },
        "max" to { value, _ -> itemsOf(value).maxWithOrNull(::compared) ?: Undefined("the largest of nothing") },
        "batch" to { value, given -> itemsOf(value).chunked(integerOf(given.need(1, "linecount")).toInt()) },
    )

private fun defaulted(value: Any?, given: Arguments): Any? {
    val missing = value is Undefined || isTrue(given.get(2, "boolean")) && !isTrue(value)
    return if (missing) given.get(1, "default_value", "") else value
}

private fun wholeNumber(value: Any?): Long? {
    val number = numeric(value)
    if (number != null) return number.toLong()
    val text = (value as? String)?.trim() ?: return null
    return text.toLongOrNull() ?: text.toDoubleOrNull()?.toLong()
}

private fun rounded(value: Any?, given: Arguments): Double {
    val digits = integerOf(given.get(1, "precision", 0L)).toInt()
    val number = numeric(value)?.toDouble() ?: throw TemplateError("a number is wanted, not ${typeName(value)}")
    val mode =
        when (given.get(2, "method", "common")) {
            "ceil" -> java.math.RoundingMode.CEILING
            "floor" -> java.math.RoundingMode.FLOOR
            else -> java.math.RoundingMode.HALF_EVEN
        }
    return java.math.BigDecimal(number).setScale(digits, mode).toDouble()
}

private fun escaped(text: String): String =
    text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;").replace("\"", "&#34;")

private fun indented(text: String, given: Arguments): String {
    val width = given.get(1, "width", 4L).let { if (it is String) it else " ".repeat(integerOf(it).toInt()) }
    val (first, blank) = isTrue(given.get(2, "first")) to isTrue(given.get(3, "blank"))
    return text.split("\n").withIndex().joinToString("\n") { (i, line) ->
        if (if (i == 0) first else blank || line.isNotEmpty()) width + line else line
    }
}

private fun pairs(value: Any?): List<Tuple> =
    (value as? Map<*, *> ?: throw TemplateError("a dict is wanted, not ${typeName(value)}")).entries.map {
        Tuple(listOf(it.key, it.value))
    }

/** "a.b.0" of a value. */
private fun reached(value: Any?, path: Any?): Any? {
    if (path is Long) return indexed(value, path)?.value ?: Undefined("$path")
    return (path as String).split(".").fold(value) { at, name ->
        name.toLongOrNull()?.let { indexed(at, it)?.value } ?: attributeOf(at, name)
    }
}

private fun sorted(value: Any?, given: Arguments): List<Any?> {
    val attribute = given.get(3, "attribute")
    val order = ordering(attribute, isTrue(given.get(2, "case_sensitive")))
    return itemsOf(value).sortedWith(if (isTrue(given.get(1, "reverse"))) order.reversed() else order)
}

private fun ordering(attribute: Any?, caseSensitive: Boolean): Comparator<Any?> {
    fun key(item: Any?): Any? {
        val key = if (attribute == null) item else reached(item, attribute)
        return if (key is String && !caseSensitive) key.lowercase(java.util.Locale.ROOT) else key
    }
    return Comparator { a, b -> compared(key(a), key(b)) }
}

private fun mapped(value: Any?, given: Arguments): List<Any?> {
    val attribute = given.named["attribute"]
    if (attribute != null) {
        return itemsOf(value).map { item ->
            reached(item, attribute).let {
                if (it is Undefined && "default" in given.named) given.named["default"] else it
            }
        }
    }
    val filter = filterNamed(textOf(given.need(1, "filter")))
    return itemsOf(value).map { filter.call(Arguments(listOf(it) + given.values.drop(2), given.named)) }
}

private fun selected(value: Any?, given: Arguments, attribute: Boolean, wanted: Boolean): List<Any?> {
    val name = if (attribute) given.need(1, "attribute") else null
    val rest = given.values.drop(if (attribute) 2 else 1)
    val test = rest.firstOrNull()?.let { testNamed(textOf(it)) }
    return itemsOf(value).filter { item ->
        val subject = if (attribute) reached(item, name) else item
        val holds = if (test ==
            null
        ) {
            isTrue(subject)
        } else {
            isTrue(test.call(Arguments(listOf(subject) + rest.drop(1), given.named)))
        }
        holds == wanted
    }
}
