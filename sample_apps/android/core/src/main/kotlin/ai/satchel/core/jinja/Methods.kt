package ai.satchel.core.jinja

private typealias Method<T> = (T, Arguments) -> Any?

/** A method of a value, as something to call, or null if it has none of that name. */
internal fun methodOf(value: Any?, name: String): Callable? = when (value) {
    is String -> bound(value, TEXT_METHODS[name])
    is Map<*, *> -> if (name in CHANGING) changing(name) else bound(value, MAP_METHODS[name])
    is List<*> -> if (name in CHANGING) changing(name) else bound(value, LIST_METHODS[name])
    else -> null
}

private fun <T> bound(value: T, method: Method<T>?): Callable? = method?.let { Callable { given -> it(value, given) } }

/** Values are not a template's to change. */
private val CHANGING =
    setOf("append", "extend", "insert", "remove", "sort", "reverse", "clear", "pop", "popitem", "setdefault", "update")

private fun changing(name: String) = Callable { throw TemplateError("'$name' would change a value") }

private val MAP_METHODS: Map<String, Method<Map<*, *>>> =
    mapOf(
        "get" to { map, given ->
            given.need(0, "key").let { if (map.containsKey(it)) map[it] else given.get(1, "default") }
        },
        "items" to { map, _ -> map.entries.map { Tuple(listOf(it.key, it.value)) } },
        "keys" to { map, _ -> map.keys.toList() },
        "values" to { map, _ -> map.values.toList() },
        "copy" to { map, _ -> LinkedHashMap(map) },
    )

private val LIST_METHODS: Map<String, Method<List<*>>> =
    mapOf(
        "index" to { list, given ->
            val item = given.need(0, "value")
            list.indexOfFirst {
                same(it, item)
            }.toLong().also { if (it < 0) throw TemplateError("${represented(item)} is not in the list") }
        },
        "count" to { list, given -> given.need(0, "value").let { item -> list.count { same(it, item) }.toLong() } },
        "copy" to { list, _ -> list.toList() },
    )

private val TEXT_METHODS: Map<String, Method<String>> =
    mapOf(
        "strip" to { text, given -> stripped(text, given.get(0, "chars"), left = true, right = true) },
        "lstrip" to { text, given -> stripped(text, given.get(0, "chars"), left = true, right = false) },
        "rstrip" to { text, given -> stripped(text, given.get(0, "chars"), left = false, right = true) },
        "split" to { text, given -> split(text, given, fromRight = false) },
        "rsplit" to { text, given -> split(text, given, fromRight = true) },
        "splitlines" to { text, given -> lines(text, isTrue(given.get(0, "keepends"))) },
        "partition" to { text, given -> partitioned(text, string(given, 0), text.indexOf(string(given, 0)), false) },
        "rpartition" to { text, given ->
            partitioned(text, string(given, 0), text.lastIndexOf(string(given, 0)), true)
        },
        "startswith" to { text, given -> any(given.need(0, "prefix")) { text.startsWith(it) } },
        "endswith" to { text, given -> any(given.need(0, "suffix")) { text.endsWith(it) } },
        "removeprefix" to { text, given -> text.removePrefix(string(given, 0)) },
        "removesuffix" to { text, given -> text.removeSuffix(string(given, 0)) },
        "replace" to { text, given -> replaced(text, string(given, 0), string(given, 1), given.get(2, "count")) },
        "upper" to { text, _ -> text.uppercase(java.util.Locale.ROOT) },
        "lower" to { text, _ -> text.lowercase(java.util.Locale.ROOT) },
        "capitalize" to { text, _ -> capitalized(text) },
        "title" to { text, _ -> titled(text) },
        "find" to { text, given -> place(text, text.indexOf(string(given, 0))) },
        "rfind" to { text, given -> place(text, text.lastIndexOf(string(given, 0))) },
        "index" to { text, given ->
            place(text, text.indexOf(string(given, 0))).also { if (it < 0) throw TemplateError("substring not found") }
        },
        "count" to { text, given -> occurrences(text, string(given, 0)) },
        "join" to { text, given ->
            itemsOf(given.need(0, "iterable")).joinToString(text) {
                it as? String ?: throw TemplateError("join wants strings")
            }
        },
        "format" to { text, given -> filled(text, given) },
        "zfill" to { text, given -> text.padStart(integerOf(given.need(0, "width")).toInt(), '0') },
        "ljust" to { text, given -> text.padEnd(integerOf(given.need(0, "width")).toInt()) },
        "rjust" to { text, given -> text.padStart(integerOf(given.need(0, "width")).toInt()) },
        "isdigit" to { text, _ -> every(text, Character::isDigit) },
        "isnumeric" to { text, _ -> every(text) { Character.getType(it) in 9..11 } },
        "isalpha" to { text, _ -> every(text, Character::isLetter) },
        "isalnum" to { text, _ -> every(text, Character::isLetterOrDigit) },
        "isspace" to { text, _ -> every(text) { isPythonSpace(it) } },
        "isupper" to { text, _ -> text.any(Char::isUpperCase) && text.none(Char::isLowerCase) },
        "islower" to { text, _ -> text.any(Char::isLowerCase) && text.none(Char::isUpperCase) },
    )

private fun string(given: Arguments, place: Int): String =
    given.need(place, "argument ${place + 1}") as? String ?: throw TemplateError("a string is wanted")

private fun every(text: String, holds: (Int) -> Boolean) = text.isNotEmpty() && codes(text).all(holds)

/** What str.isspace and str.strip take for white space. */
internal fun isPythonSpace(code: Int): Boolean =
    Character.isWhitespace(code) || Character.isSpaceChar(code) || code == 0x85

internal fun stripped(text: String, characters: Any?, left: Boolean, right: Boolean): String {
    val given = (characters as String?)?.let(::codes)
    val drops = { code: Int -> if (given == null) isPythonSpace(code) else code in given }
    val all = codes(text)
    var (start, end) = 0 to all.size
    if (left) while (start < end && drops(all[start])) start++
    if (right) while (end > start && drops(all[end - 1])) end--
    return String(all, start, end - start)
}

private fun any(given: Any?, holds: (String) -> Boolean): Boolean =
    (if (given is Tuple) given.toList() else listOf(given)).any {
        holds(it as? String ?: throw TemplateError("a string is wanted"))
    }

private fun split(text: String, given: Arguments, fromRight: Boolean): List<String> {
    val most = (given.get(1, "maxsplit") as Long? ?: -1).let { if (it < 0) Int.MAX_VALUE else it.toInt() }
    val separator = given.get(0, "sep") as String? ?: return words(text, most, fromRight)
    if (separator.isEmpty()) throw TemplateError("an empty separator")
    val all = text.split(separator)
    if (all.size - 1 <= most) return all
    if (fromRight) return listOf(all.dropLast(most).joinToString(separator)) + all.takeLast(most)
    return all.take(most) + all.drop(most).joinToString(separator)
}

/** Split at white space, without empty words. */
private fun words(text: String, most: Int, fromRight: Boolean): List<String> {
    val found = Regex("[^\\s\\u0085\\u00A0]+").findAll(text).toList()
    if (found.size <= most) return found.map { it.value }
    if (fromRight) {
        return listOf(text.substring(0, found[found.size - most - 1].range.last + 1)) +
            found.takeLast(most).map {
                it.value
            }
    }
    return found.take(most).map { it.value } + text.substring(found[most].range.first)
}

private fun lines(text: String, keepEnds: Boolean): List<String> {
    val found = ArrayList<String>()
    var start = 0
    for (end in Regex("\r\n|[\n\r\u000b\u000c\u001c-\u001e\u0085\u2028\u2029]").findAll(text)) {
        found.add(text.substring(start, if (keepEnds) end.range.last + 1 else end.range.first))
        start = end.range.last + 1
    }
    if (start < text.length) found.add(text.substring(start))
    return found
}

private fun partitioned(text: String, separator: String, place: Int, fromRight: Boolean): Tuple {
    if (place < 0) return Tuple(if (fromRight) listOf("", "", text) else listOf(text, "", ""))
    return Tuple(listOf(text.take(place), separator, text.drop(place + separator.length)))
}

internal fun replaced(text: String, old: String, new: String, count: Any?): String {
    val most = count?.let(::integerOf) ?: -1
    if (most < 0) return text.replace(old, new)
    val parts = text.split(old)
    return parts.withIndex().joinToString("") { (i, part) ->
        if (i == 0) part else (if (i <= most) new else old) + part
    }
}

internal fun capitalized(text: String): String {
    val first = text.take(if (text.isEmpty()) 0 else Character.charCount(text.codePointAt(0)))
    return first.uppercase(java.util.Locale.ROOT) + text.drop(first.length).lowercase(java.util.Locale.ROOT)
}

private fun titled(text: String): String = Regex("\\p{L}+").replace(text) { capitalized(it.value) }

/** A place in UTF-16 as one in characters. */
private fun place(text: String, index: Int): Long = if (index < 0) -1L else text.codePointCount(0, index).toLong()

private fun occurrences(text: String, part: String): Long =
    if (part.isEmpty()) lengthOf(text) + 1 else (text.split(part).size - 1).toLong()

/** `"{} {0} {name}".format(...)`, without what reaches into values. */
private fun filled(text: String, given: Arguments): String {
    var next = 0
    return Regex("\\{\\{|\\}\\}|\\{(\\w*)\\}").replace(text) { match ->
        val field = match.groupValues[1]
        when {
            match.value == "{{" -> "{"
            match.value == "}}" -> "}"
            field.isEmpty() -> textOf(given.need(next, "${next++}"))
            field[0].isDigit() -> textOf(given.need(field.toInt(), field))
            else -> textOf(given.named.getOrElse(field) { throw TemplateError("no value for {$field}") })
        }
    }
}
