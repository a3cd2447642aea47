package ai.satchel.core

/** Decodes a JSON value that accepts nothing it was not told of; `where` names the value for messages. */
typealias Decode<T> = (value: Any?, where: String) -> T

val text: Decode<String> = { value, where -> value as? String ?: refuse(value, "a string", where) }

val flag: Decode<Boolean> = { value, where -> value as? Boolean ?: refuse(value, "true or false", where) }

val integer: Decode<Long> = { value, where -> value as? Long ?: refuse(value, "an integer", where) }

/** An integer of 32 bits, as ids and lengths are. */
val small: Decode<Int> = { value, where ->
    val number = integer(value, where)
    if (number in Int.MIN_VALUE..Int.MAX_VALUE) number.toInt() else refuse(value, "an integer of 32 bits", where)
}

val number: Decode<Double> = { value, where -> (value as? Number)?.toDouble() ?: refuse(value, "a number", where) }

val anything: Decode<Any?> = { value, _ -> value }

@Suppress("UNCHECKED_CAST") // parseJson makes no other maps
val objectOf: Decode<Map<String, Any?>> = { value, where ->
    value as? Map<String, Any?> ?: refuse(value, "an object", where)
}

fun oneOf(vararg known: String): Decode<String> = { value, where ->
    if (value in known) value as String else refuse(value, known.joinToString(" or "), where)
}

fun <T : Any> orNull(decode: Decode<T>): Decode<T?> = { value, where ->
    if (value == null) null else decode(value, where)
}

fun <T> list(decode: Decode<T>): Decode<List<T>> = { value, where ->
    val items = value as? List<*> ?: refuse(value, "a list", where)
    items.mapIndexed { i, item -> decode(item, "$where[$i]") }
}

fun <T> dictionary(decode: Decode<T>): Decode<Map<String, T>> = { value, where ->
    objectOf(value, where).mapValues { (key, item) -> decode(item, "$where.$key") }
}

/** The values of an object, decoded one by one. */
class Fields(private val values: Map<String, Any?>, private val where: String) {
    operator fun <T> invoke(key: String, decode: Decode<T>): T = decode(values[key], "$where.$key")

    /** Null where an optional key is absent. */
    fun <T> optional(key: String, decode: Decode<T>): T? = if (key in values) invoke(key, decode) else null
}

/** An object with exactly these keys; those that begin with "?" may be absent. */
fun <T> record(vararg keys: String, make: (Fields) -> T): Decode<T> {
    val names = keys.map { it.removePrefix("?") }
    val required = keys.filter { !it.startsWith("?") }
    return { value, where ->
        val given = objectOf(value, where)
        val unknown = given.keys - names.toSet()
        val missing = required - given.keys
        if (unknown.isNotEmpty() || missing.isNotEmpty()) {
            val what = if (unknown.isNotEmpty()) "unknown keys in $where" else "keys missing from $where"
            val hint = "use the app of the Satchel that wrote the bundle, or export it again"
            throw bundleError(what, got = unknown.ifEmpty { missing.toSet() }, wanted = names, hint = hint)
        }
        make(Fields(given, where))
    }
}

private fun refuse(value: Any?, wanted: String, where: String): Nothing =
    throw bundleError("$where is not what it should be", got = value ?: "null", wanted = wanted)
