package ai.satchel.core

import java.math.BigDecimal
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

private const val LARGEST_INTEGER = (1L shl 53) - 1 // beyond it a JavaScript number loses units
private const val DEEPEST = 200

/**
 * Bytes -> null, Boolean, Long, Double, String, List or Map: JSON that means the same in every language. Refused are
 * bytes that are not UTF-8, repeated keys, lone surrogates, infinities, and integers that a number of JavaScript cannot
 * hold. runtime/strict_json.py is its twin.
 *
 * @param what name of the file, for messages
 * @param exactIntegers off for tokenizers' files, which hold larger integers
 * @throws SatchelError a BundleError that names the file
 */
fun parseJson(bytes: ByteArray, what: String, exactIntegers: Boolean = true): Any? = try {
    JsonReader(decodeUtf8(bytes), exactIntegers).document()
} catch (error: IllegalArgumentException) {
    throw bundleError("$what is not valid JSON", got = reasonOf(error), hint = "export the bundle again")
}

/** UTF-8 without replacement characters; throws IllegalArgumentException. */
fun decodeUtf8(bytes: ByteArray): String = try {
    val decoder = Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
    decoder.onUnmappableCharacter(CodingErrorAction.REPORT).decode(ByteBuffer.wrap(bytes)).toString()
} catch (error: CharacterCodingException) {
    throw IllegalArgumentException("bytes that are not UTF-8", error)
}

/** JSON with sorted keys, two spaces of indentation and a newline at the end, as runtime/strict_json.py writes it. */
fun canonicalJson(value: Any?): String = buildString { writeJson(value, "\n") }.plus("\n")

private class JsonReader(private val text: String, private val exactIntegers: Boolean) {
    private var at = 0
    private var depth = 0

    fun document(): Any? {
        val value = value()
        require(at == text.length) { "text after the end, at character $at" }
        return value
    }

    private fun value(): Any? {
        skipSpace()
        val read: Any? =
            when (val c = peek()) {
                '{' -> nested(::objectValue)
                '[' -> nested(::listValue)
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> if (c == '-' || c in '0'..'9') number() else unexpected()
            }
        skipSpace()
        return read
    }

    private fun <T> nested(read: () -> T): T {
        require(++depth <= DEEPEST) { "nested too deeply" }
        at++
        return read().also { depth-- }
    }

    private fun objectValue(): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        skipSpace()
        if (accept('}')) return found
        do {
            skipSpace()
            if (peek() != '"') unexpected()
            val key = string()
            skipSpace()
            expect(':')
            require(key !in found) { "the key $key occurs twice" }
            found[key] = value()
        } while (accept(','))
        expect('}')
        return found
    }

    private fun listValue(): List<Any?> {
        val found = ArrayList<Any?>()
        skipSpace()
        if (accept(']')) return found
        do found.add(value()) while (accept(','))
        expect(']')
        return found
    }

    private fun string(): String {
        val start = ++at
        while (peek() != '"' && peek() != '\\') plain()
        if (peek() == '"') return whole(text.substring(start, at++))
        val read = StringBuilder().append(text, start, at)
        while (peek() != '"') if (peek() == '\\') read.append(escape()) else read.append(plain())
        at++
        return whole(read.toString())
    }

    private fun plain(): Char {
        require(peek() >= ' ') { "a control character in a string" }
        return text[at++]
    }

    private fun escape(): Char {
        at++
        val c = peek()
        at++
        return when (c) {
            '"', '\\', '/' -> c
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> hexadecimal()
            else -> throw IllegalArgumentException("the escape \\$c")
        }
    }

    private fun hexadecimal(): Char {
        val digits = text.substring(at, minOf(at + 4, text.length))
        require(
            digits.length == 4 && digits.all {
                Character.digit(it, 16) >= 0 && it < '\u0080'
            },
        ) { "the escape \\u$digits" }
        at += 4
        return digits.toInt(16).toChar()
    }

    private fun whole(text: String): String {
        var i = 0
        while (i < text.length) {
            val c = text[i++]
            if (!c.isSurrogate()) continue
            require(c.isHighSurrogate() && i < text.length && text[i].isLowSurrogate()) { "half of a surrogate pair" }
            i++
        }
        return text
    }

    private fun number(): Any {
        val found = NUMBER.matchAt(text, at)?.value ?: unexpected()
        at += found.length
        if (found.any { it == '.' || it == 'e' || it == 'E' }) return finite(found)
        val integer = found.toLongOrNull()
        if (!exactIntegers) return integer ?: finite(found)
        require(integer != null && integer in -LARGEST_INTEGER..LARGEST_INTEGER) { "an integer beyond 2^53 - 1" }
        return integer
    }

    private fun finite(found: String): Double {
        val value = found.toDouble()
        require(value.isFinite()) { "a number too large" }
        return value
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, at)) unexpected()
        at += word.length
        return value
    }

    private fun skipSpace() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else throw IllegalArgumentException("it ends too early")

    private fun accept(c: Char): Boolean = (at < text.length && text[at] == c).also { if (it) at++ }

    private fun expect(c: Char) {
        if (!accept(c)) unexpected()
    }

    private fun unexpected(): Nothing {
        require(at < text.length) { "it ends too early" }
        throw IllegalArgumentException("an unexpected '${text[at]}' at character $at")
    }

    private companion object {
        val NUMBER = Regex("-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
    }
}

private fun StringBuilder.writeJson(value: Any?, newline: String) {
    when (value) {
        null, is Boolean, is Int, is Long -> append(value)
        is Double -> append(numberText(value))
        is String -> writeString(value)
        is Map<*, *> -> writeAll(
            value.entries.sortedBy {
                it.key as String
            },
            "{",
            "}",
            newline,
        ) { (key, item), indent ->
            writeString(key as String)
            append(": ")
            writeJson(item, indent)
        }
        is List<*> -> writeAll(value, "[", "]", newline) { item, indent -> writeJson(item, indent) }
        else -> throw IllegalArgumentException("no JSON: ${value.javaClass}")
    }
}

private fun <T> StringBuilder.writeAll(
    items: Collection<T>,
    open: String,
    close: String,
    newline: String,
    write: StringBuilder.(T, String) -> Unit,
) {
    append(open)
    for ((i, item) in items.withIndex()) {
        append(if (i == 0) "" else ",").append(newline).append("  ")
        write(item, "$newline  ")
    }
    if (items.isNotEmpty()) append(newline)
    append(close)
}

private fun StringBuilder.writeString(text: String) {
    append('"')
    for (c in text) {
        when {
            c == '"' || c == '\\' -> append('\\').append(c)
            c == '\n' -> append("\\n")
            c == '\r' -> append("\\r")
            c == '\t' -> append("\\t")
            c == '\b' -> append("\\b")
            c == '\u000c' -> append("\\f")
            c < ' ' -> append("\\u%04x".format(c.code))
            else -> append(c)
        }
    }
    append('"')
}

/** A number as Python's repr writes it: 0.5, 1.0, 1e-05. Throws IllegalArgumentException for NaN and infinities. */
fun numberText(value: Double): String {
    require(value.isFinite()) { "no number: $value" }
    if (value == 0.0) return if (1 / value < 0) "-0.0" else "0.0"
    val digits = BigDecimal(value.toString()).stripTrailingZeros()
    val exponent = digits.precision() - digits.scale() - 1
    if (exponent in -4..15) return digits.toPlainString().let { if ('.' in it) it else "$it.0" }
    val all = digits.unscaledValue().abs().toString()
    val mantissa = all.take(1) + if (all.length > 1) "." + all.drop(1) else ""
    val size = kotlin.math.abs(exponent).toString().padStart(2, '0')
    return "${if (value < 0) "-" else ""}${mantissa}e${if (exponent < 0) "-" else "+"}$size"
}
