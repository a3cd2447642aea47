package ai.satchel.core.jinja

private const val LARGEST_PRODUCT = 1L shl 20 // of a text or list times a number
private const val LARGEST_POWER = 64L

/** Python's binary operators; throws a TemplateError for types that they do not take. */
internal fun operated(operator: String, left: Any?, right: Any?): Any? {
    val (a, b) = defined(left) to defined(right)
    val (x, y) = numeric(a) to numeric(b)
    if (x != null &&
        y != null
    ) {
        return if (x is Long &&
            y is Long
        ) {
            integers(operator, x, y)
        } else {
            floats(operator, x.toDouble(), y.toDouble())
        }
    }
    return when {
        operator == "+" && a is String && b is String -> a + b
        operator == "+" && a is Tuple && b is Tuple -> Tuple(a.toList() + b.toList())
        operator == "+" && a is List<*> && b is List<*> && a !is Tuple && b !is Tuple -> a + b
        operator == "*" && y is Long -> repeated(a, y)
        operator == "*" && x is Long -> repeated(b, x)
        operator == "%" && a is String -> formatted(a, if (b is Tuple) b.toList() else listOf(b))
        else -> throw TemplateError("the operator $operator does not take ${typeName(a)} and ${typeName(b)}")
    }
}

private fun integers(operator: String, x: Long, y: Long): Any = try {
    when (operator) {
        "+" -> Math.addExact(x, y)
        "-" -> Math.subtractExact(x, y)
        "*" -> Math.multiplyExact(x, y)
        "/" -> x.toDouble() / notZero(y)
        "//" -> Math.floorDiv(x, notZero(y))
        "%" -> Math.floorMod(x, notZero(y))
        else -> power(x, y)
    }
} catch (error: ArithmeticException) {
    throw TemplateError("a number that is too large")
}

private fun notZero(y: Long): Long = if (y == 0L) throw TemplateError("division by zero") else y

private fun power(x: Long, y: Long): Any {
    if (maxOf(kotlin.math.abs(x), kotlin.math.abs(y)) >
        LARGEST_POWER
    ) {
        throw TemplateError("a product that is too large")
    }
    if (y < 0) return Math.pow(x.toDouble(), y.toDouble())
    return (0 until y).fold(1L) { product, _ -> Math.multiplyExact(product, x) }
}

private fun floats(operator: String, x: Double, y: Double): Double {
    if (y == 0.0 && operator in listOf("/", "//", "%")) throw TemplateError("division by zero")
    return when (operator) {
        "+" -> x + y
        "-" -> x - y
        "*" -> x * y
        "/" -> x / y
        "//" -> Math.floor(x / y)
        "%" -> x - Math.floor(x / y) * y
        else -> Math.pow(x, y)
    }
}

private fun repeated(value: Any?, times: Long): Any {
    val count = maxOf(times, 0)
    if (value !is String && value !is List<*>) throw TemplateError("${typeName(value)} cannot be multiplied")
    if (lengthOf(value) * count > LARGEST_PRODUCT) throw TemplateError("a product that is too large")
    if (value is String) return value.repeat(count.toInt())
    return List(count.toInt()) { value as List<*> }.flatten()
}

/** The plain conversions of Python's % on texts. */
internal fun formatted(pattern: String, values: List<Any?>): String {
    var next = 0
    fun value() = values.getOrElse(next++) { throw TemplateError("too few values for '$pattern'") }
    return Regex("%(?:\\.(\\d+))?([sdifr%])").replace(pattern) { match ->
        when (match.groupValues[2]) {
            "%" -> "%"
            "s" -> textOf(value())
            "r" -> represented(value())
            "f" -> "%.${match.groupValues[1].ifEmpty {
                "6"
            }}f".format(java.util.Locale.ROOT, numeric(value())?.toDouble())
            else -> numeric(value())?.toLong()?.toString() ?: throw TemplateError("a number is wanted in '$pattern'")
        }
    }.also { if (next < values.size) throw TemplateError("too many values for '$pattern'") }
}

/** Python's indexing by a number, or null beyond the ends. */
internal fun indexed(value: Any?, index: Long): Arguments.Given? {
    val size = lengthOf(value)
    val place = (if (index < 0) index + size else index).toInt()
    if (place < 0 || place >= size) return null
    return Arguments.Given(if (value is String) textOf(intArrayOf(codes(value)[place])) else (value as List<*>)[place])
}

/** Python's value[start:stop:step]. */
internal fun sliced(value: Any?, start: Any?, stop: Any?, step: Any?): Any {
    val by = if (step == null) 1L else integerOf(step)
    if (by == 0L) throw TemplateError("a slice with a step of zero")
    val size = lengthOf(value)
    val lowest = if (by < 0) -1L else 0L
    val highest = if (by < 0) size - 1 else size
    fun bound(given: Any?, default: Long): Long {
        val place = integerOf(given ?: return default)
        return (if (place < 0) place + size else place).coerceIn(lowest, maxOf(highest, lowest))
    }
    val from = bound(start, if (by < 0) highest else 0)
    val to = bound(stop, if (by < 0) -1 else size)
    val places = generateSequence(from) {
        it + by
    }.takeWhile { if (by < 0) it > to else it < to }.map { it.toInt() }.toList()
    return when (value) {
        is String -> codes(value).let { all -> textOf(IntArray(places.size) { all[places[it]] }) }
        is Tuple -> Tuple(places.map { value[it] })
        is List<*> -> places.map { value[it] }
        else -> throw TemplateError("${typeName(value)} cannot be sliced")
    }
}
